"""Root filesystems the hosts stand on: one per Debian suite, built once with mmdebstrap and kept.

A base is as bare as a fresh server: no package lists, no GPU driver, nothing of rackserve. What it has beyond Debian is
what this machine itself needs to reach its mirrors (certificates, apt and pip settings).
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rackserve.domain.errors import LabError
from rackserve.lab.locks import locked
from rackserve.lab.machine import Reach, machine_reach
from rackserve.lab.shell import readable_by_all, remove_folder
from rackserve.lab.sources import apt_lines, machine_mirror

PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "libpam-systemd", "openssh-server", "sudo", "python3", "ca-certificates"),
    *("curl", "gpg", "iproute2", "kmod", "procps", "pciutils"),
)
UNWANTED = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")
# A mirror may hold an unreleased suite's index for longer than its Valid-Until says; released ones stay strict.
STALE_INDEX_ALLOWED = {"forky": 'Acquire::Check-Valid-Until "false";'}

# Runs with the new root as $1, after the seed files are in place.
FINISH = """set -e
chroot "$1" update-ca-certificates >/dev/null
chroot "$1" useradd --create-home --shell /bin/bash deploy
chmod 0440 "$1/etc/sudoers.d/deploy"
chroot "$1" systemctl mask apt-daily.timer apt-daily-upgrade.timer systemd-networkd-wait-online.service
rm -f "$1"/etc/ssh/ssh_host_* "$1/etc/hostname" "$1/etc/resolv.conf" "$1/etc/apt/apt.conf.d/99mmdebstrap"
: > "$1/etc/machine-id"
"""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything a base is made from; its key changes when any of it does."""

    suite: str
    sources: tuple[str, ...]
    build_settings: tuple[str, ...]
    files: tuple[tuple[str, str], ...]

    @property
    def key(self) -> str:
        """Short hash of the whole recipe."""
        parts = [self.suite, self.sources, self.build_settings, self.files, PACKAGES, UNWANTED, FINISH]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]

    @property
    def folder_name(self) -> str:
        """What the base is called in the cache."""
        return f"{self.suite}-{self.key}"


def make_recipe(suite: str, sources: Sequence[str], reach: Reach) -> Recipe:
    """The recipe for `suite` on a machine that reaches its mirrors by `reach`."""
    always = ('Acquire::Languages "none";', *([STALE_INDEX_ALLOWED[suite]] if suite in STALE_INDEX_ALLOWED else []))
    files = {
        "/etc/apt/apt.conf.d/90lab": "\n".join((*always, *reach.host_apt_settings)) + "\n",
        "/etc/sudoers.d/deploy": "deploy ALL=(ALL) NOPASSWD:ALL\n",
        **reach.files,
    }
    return Recipe(suite, tuple(sources), (*always, *reach.apt_settings), tuple(sorted(files.items())))


def mmdebstrap_argv(recipe: Recipe, target: Path, seed: Path) -> list[str]:
    """The command that builds `recipe` into `target` from the seed files in `seed`."""
    return [
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        *(f"--aptopt={setting}" for setting in recipe.build_settings),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in UNWANTED),
        f'--customize-hook=cp -r --no-preserve=ownership {shlex.quote(str(seed))}/. "$1"/',
        f"--customize-hook={FINISH}",
        recipe.suite,
        str(target),
        *recipe.sources,
    ]


def cache_folder() -> Path:
    """Where bases are kept: RACKSERVE_LAB_CACHE, else below /var/cache."""
    return Path(os.environ.get("RACKSERVE_LAB_CACHE", "/var/cache/rackserve/lab")).absolute()


def ensure_base(suite: str, progress: Callable[[str], None]) -> Path:
    """The root filesystem for `suite`, built now if this machine has none made by the same recipe."""
    recipe = make_recipe(suite, apt_lines(machine_mirror(), suite), machine_reach())
    base = cache_folder() / recipe.folder_name
    if base.is_dir():
        return base
    cache_folder().mkdir(parents=True, exist_ok=True)
    cache_folder().chmod(0o700)  # pip and apt settings may carry a password
    with locked(
        f"lab-base-{suite}", wait=True, on_wait=lambda: progress(f"waiting for another build of {suite}")
    ) as lock:
        if not base.is_dir():
            progress(f"building the Debian {suite} base, once, in about half a minute")
            _build(recipe, base, lock)
    return base


@readable_by_all()
def _build(recipe: Recipe, base: Path, lock: int) -> None:
    """Build beside the final place and rename, so that a base with its final name is always whole.

    mmdebstrap inherits the lock: if this process is killed, the next build waits until the orphan is done too.
    """
    for stale in base.parent.glob(f".building-{recipe.suite}-*"):
        remove_tree(stale)
    staging = Path(tempfile.mkdtemp(prefix=f".building-{recipe.suite}-", dir=base.parent))
    try:
        seed, target = staging / "seed", staging / "root"
        for name, content in recipe.files:
            file = seed / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content)
        log = base.parent / f"{recipe.folder_name}.log"
        with log.open("w") as output:
            done = subprocess.run(
                mmdebstrap_argv(recipe, target, seed),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[lock],
                check=False,
            )
        if done.returncode != 0:
            errors = [line for line in log.read_text().splitlines() if line.startswith("E: ")] or ["no error line"]
            raise LabError(f"mmdebstrap could not build Debian {recipe.suite}: {errors[0]} (all of it in {log})")
        target.rename(base)
    finally:
        remove_tree(staging)


def remove_tree(folder: Path) -> None:
    """Remove a staging folder, but never through something still mounted below it."""
    mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    if any(place.startswith(f"{folder}/") for place in mounted):
        raise LabError(f"something is still mounted below {folder}: unmount it, then run this again")
    remove_folder(folder)
