"""A libvirt box for Vagrant with a bare Debian of our own, where a Debian mirror is in reach but no box catalogue.

It is a lab base (`rackserve.lab.base`) with what a machine of its own needs on top: a kernel, a boot loader, DHCP, and
the user `vagrant` with a key that was made here. Like a base it carries this machine's certificates and apt settings:
it is made to be used here, not to be published.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from rackserve.domain.errors import LabError
from rackserve.lab.base import Recipe, cache_folder, make_recipe, mmdebstrap_argv, remove_tree
from rackserve.lab.locks import locked
from rackserve.lab.login import Login
from rackserve.lab.machine import machine_reach
from rackserve.lab.shell import attempt, readable_by_all, require_machine, run
from rackserve.lab.sources import apt_lines, machine_mirror

# forky is not among them: its index is often past its date, and a box has no one who knows that.
SUITES = ("bookworm", "trixie")
DISK_GIB = 8
# Where the only partition begins: 1 MiB in, which leaves the boot loader its usual gap.
PARTITION_START = 1 << 20
PACKAGES = (
    *("linux-image-cloud-amd64", "initramfs-tools", "zstd", "udev", "systemd-resolved"),
    *("extlinux", "syslinux-common"),
)
# program -> Debian package, beyond what every lab needs
TOOLS = {"qemu-img": "qemu-utils", "sfdisk": "fdisk", "mkfs.ext4": "e2fsprogs", "mount": "mount"}

FILES = {
    "/boot/extlinux/extlinux.conf": (
        "DEFAULT debian\nLABEL debian\n LINUX /vmlinuz\n INITRD /initrd.img\n"
        " APPEND root=LABEL=root rw console=ttyS0 quiet\n"
    ),
    "/etc/fstab": "LABEL=root / ext4 defaults,noatime 0 1\n",
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/sudoers.d/vagrant": "vagrant ALL=(ALL) NOPASSWD:ALL\n",
    "/etc/systemd/network/20-dhcp.network": "[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n",
    # Every machine makes host keys of its own at its first boot; Debian makes them when the package is installed.
    "/etc/systemd/system/ssh.service.d/host-keys.conf": (
        "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n"
    ),
}
# Runs with the root as $1 and the public key as $2, after mmdebstrap. The user `deploy` is the lab's, not a box's.
FINISH = """set -e
chroot "$1" userdel --remove deploy 2>/dev/null
rm "$1/etc/sudoers.d/deploy"
chroot "$1" useradd --create-home --shell /bin/bash vagrant
install -d -m 0700 "$1/home/vagrant/.ssh"
printf '%s\\n' "$2" > "$1/home/vagrant/.ssh/authorized_keys"
chroot "$1" chown -R vagrant: /home/vagrant
chmod 0440 "$1/etc/sudoers.d/vagrant"
chroot "$1" systemctl unmask systemd-networkd-wait-online.service
chroot "$1" systemctl enable systemd-networkd.service systemd-resolved.service
ln -sf ../run/systemd/resolve/stub-resolv.conf "$1/etc/resolv.conf"
chroot "$1" extlinux --install /boot/extlinux
fstrim "$1"
"""
METADATA = {"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_GIB}
BOX_VAGRANTFILE = 'Vagrant.configure("2") { |c| c.vm.provider(:libvirt) { |l| l.disk_bus = "virtio" } }\n'


@dataclass(frozen=True, slots=True)
class BoxRecipe:
    """Everything a box is made from; its key changes when any of it does."""

    base: Recipe
    public_key: str

    @property
    def key(self) -> str:
        """Short hash of the whole recipe."""
        parts = [self.base.key, self.public_key, PACKAGES, FINISH, METADATA, BOX_VAGRANTFILE, PARTITION_START]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    @property
    def name(self) -> str:
        """What Vagrant calls the box; an older box of the same suite has another key and is never taken for it."""
        return f"rackserve/{self.base.suite}-{self.key}"

    @property
    def file_name(self) -> str:
        """What the box is called in the cache."""
        return f"{self.base.suite}-{self.key}.box"


@dataclass(frozen=True, slots=True)
class Box:
    """A box in the cache: its name for Vagrant, its file, and the private key that its user `vagrant` accepts."""

    name: str
    file: Path
    private_key: Path


def box_recipe(base: Recipe, public_key: str) -> BoxRecipe:
    """The recipe of a box on top of a lab base."""
    files = {**dict(base.files), **FILES}
    return BoxRecipe(replace(base, files=tuple(sorted(files.items()))), public_key.strip())


def box_mmdebstrap_argv(recipe: BoxRecipe, target: Path, seed: Path) -> list[str]:
    """The base's own command with the packages of a machine added."""
    program, *arguments = mmdebstrap_argv(recipe.base, target, seed)
    return [program, f"--include={','.join(PACKAGES)}", *arguments]


def boxes_folder() -> Path:
    """Where boxes and their key are kept."""
    return cache_folder() / "boxes"


def ensure_box(suite: str, progress: Callable[[str], None]) -> Box:
    """The box for `suite`, built now if this machine has none made by the same recipe."""
    _require_tools()
    folder = boxes_folder()
    folder.mkdir(parents=True, exist_ok=True)
    cache_folder().chmod(0o700)  # pip and apt settings may carry a password
    with locked("lab-box", wait=True, on_wait=lambda: progress("waiting for another build of a box")) as lock:
        login = Login(folder)
        base = make_recipe(suite, apt_lines(machine_mirror(), suite), machine_reach())
        recipe = box_recipe(base, login.public_key())
        box = Box(recipe.name, folder / recipe.file_name, login.key)
        if not box.file.is_file():
            progress(f"building a box with Debian {suite}, once, in about two minutes")
            _build(recipe, box.file, lock)
    return box


def _require_tools() -> None:
    require_machine()
    if platform.machine() != "x86_64":
        raise LabError(f"boxes are made for x86_64 only, this machine is {platform.machine()}")
    missing = {package for program, package in TOOLS.items() if shutil.which(program) is None}
    if missing:
        raise LabError(f"a box needs tools that are not installed: apt-get install {' '.join(sorted(missing))}")


@readable_by_all()
def _build(recipe: BoxRecipe, box: Path, lock: int) -> None:
    """Build beside the final place and rename, so that a box with its final name is always whole."""
    for stale in box.parent.glob(".building-*"):
        _clear(stale)
    staging = Path(tempfile.mkdtemp(prefix=".building-", dir=box.parent))
    try:
        disk, image, packed = staging / "disk.raw", staging / "box.img", staging / "packed"
        _format(disk)
        _install(recipe, disk, staging, box.with_suffix(".log"), lock)
        run(["qemu-img", "convert", "-O", "qcow2", str(disk), str(image)])
        _pack(image, packed)
        packed.rename(box)
    finally:
        _clear(staging)


def _clear(staging: Path) -> None:
    """Remove a staging folder; a build that was killed may have left its disk mounted."""
    if (staging / "root").is_mount():
        attempt(["umount", "--recursive", str(staging / "root")])
    remove_tree(staging)


def _format(disk: Path) -> None:
    """Make a disk with one bootable partition and an empty ext4 on it.

    By offset and not by partition device: not every kernel parses partition tables of loop devices. extlinux reads
    neither 64-bit block numbers nor checksums of metadata.
    """
    with disk.open("wb") as file:
        file.truncate(DISK_GIB << 30)
    run(["sfdisk", "--quiet", str(disk)], stdin=f"start={PARTITION_START // 512}, type=L, bootable\n")
    options = ["-q", "-L", "root", "-O", "^64bit,^metadata_csum", "-E", f"offset={PARTITION_START}"]
    run(["mkfs.ext4", *options, str(disk), f"{((DISK_GIB << 30) - PARTITION_START) // 1024}k"])


def _install(recipe: BoxRecipe, disk: Path, staging: Path, log: Path, lock: int) -> None:
    """Put Debian and the boot loader on the disk."""
    seed, root = staging / "seed", staging / "root"
    for name, content in recipe.base.files:
        file = seed / name.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    root.mkdir()
    with _mounted("-o", f"loop,offset={PARTITION_START},discard", str(disk), str(root)):
        _logged(box_mmdebstrap_argv(recipe, root, seed), log, lock)
        with ExitStack() as kernel:
            # extlinux looks for the device that it writes to.
            kernel.enter_context(_mounted("--bind", "/dev", str(root / "dev")))
            kernel.enter_context(_mounted("-t", "proc", "proc", str(root / "proc")))
            kernel.enter_context(_mounted("-t", "sysfs", "sysfs", str(root / "sys")))
            run(["sh", "-c", FINISH, "finish", str(root), recipe.public_key])
        boot_code = (root / "usr/lib/EXTLINUX/mbr.bin").read_bytes()
    with disk.open("r+b") as whole:
        whole.write(boot_code[:440])  # what lies behind is the partition table


@contextmanager
def _mounted(*arguments: str) -> Iterator[None]:
    """Mount with these arguments, the last of which is the place; a loop device goes with the mount."""
    run(["mount", *arguments])
    try:
        yield
    finally:
        run(["umount", arguments[-1]])


def _logged(argv: list[str], log: Path, lock: int) -> None:
    """Run to the end; the program inherits the lock, so that the next build waits for it if this process is killed."""
    with log.open("w") as output:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, pass_fds=[lock], check=False
        )
    if done.returncode != 0:
        errors = [line for line in log.read_text().splitlines() if line.startswith("E: ")] or ["no error line"]
        raise LabError(f"{argv[0]} could not build the box: {errors[0]} (all of it in {log})")


def _pack(image: Path, packed: Path) -> None:
    """Write the box: an archive of the image, its metadata and a Vagrantfile."""
    beside = image.parent
    (beside / "metadata.json").write_text(json.dumps(METADATA))
    (beside / "Vagrantfile").write_text(BOX_VAGRANTFILE)
    with tarfile.open(packed, "w:gz", compresslevel=1) as archive:
        for name in ("metadata.json", "Vagrantfile", image.name):
            archive.add(beside / name, arcname=name)
