"""load-driver.sh, with the words that DKMS says: what was not built is named, and no reboot is asked for twice.

DKMS itself builds real modules on lab hosts in tests/lab/test_dkms.py.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.operations.private_root import PrivateRoot, needs_private_root

pytestmark = needs_private_root
RUNNING, NEWER = "6.1.0-41-amd64", "6.1.0-42-amd64"
OWED = "/var/lib/rackserve/driver-reboot"
LOG = "/var/lib/dkms/{module}/1.0/build/make.log"
# Sources: dkms of 3.0.10 (Debian 12), run_test.sh of 3.2.2 (Debian 13).
SAID = {
    "3.0": """Building module:
Cleaning build area...
make -j2 KERNELRELEASE={kernel} -C /lib/modules/{kernel}/build modules...(bad exit status: 2)
Error! Bad return status for module build on kernel: {kernel} (x86_64)
Consult {log} for more information.
Error! One or more modules failed to install during autoinstall.
Refer to previous errors for more information.
""",
    "3.2": """Autoinstall of module {module}/1.0 for kernel {kernel} (x86_64)
Building module(s)...(bad exit status: 2)
Failed command:
make -j2 KERNELRELEASE={kernel} -C /lib/modules/{kernel}/build modules

Error! Bad return status for module build on kernel: {kernel} (x86_64)
Consult {log} for more information.
Autoinstall on {kernel} failed for module(s) {module}(10).

Error! One or more modules failed to install during autoinstall.
Refer to previous errors for more information.
""",
}
COMPILER = """make[1]: Entering directory '/usr/src/linux-headers'
  CC [M]  /var/lib/dkms/{module}/1.0/build/nvidia.o
/var/lib/dkms/{module}/1.0/build/nvidia.c:4:33: error: 'of_another_kernel' undeclared
make[2]: *** [nvidia.o] Error 1
"""
MODINFO = """#!/bin/sh
[ "$1" = -k ] && kernel=$2 && shift 2 || kernel=$(uname -r)
[ -e "/lib/modules/$kernel/updates/dkms/$3.ko" ] || exit 1
case $2 in filename) echo "/lib/modules/$kernel/updates/dkms/$3.ko" ;; version) echo 580.1 ;; esac
"""


@pytest.fixture
def root(tmp_path: Path) -> PrivateRoot:
    """A host with headers for the kernel it runs, on which DKMS does nothing yet."""
    made = PrivateRoot(tmp_path / "root")
    made.program("uname", f"#!/bin/sh\necho {RUNNING}\n")
    made.program("modinfo", MODINFO)
    made.program("modprobe", "#!/bin/sh\nmkdir -p /sys/module/$1; echo 580.1 >/sys/module/$1/version\n")
    made.program("dkms", "#!/bin/sh\nexit 0\n")
    for kernel in (RUNNING, NEWER):
        write(made, f"/usr/lib/modules/{kernel}/build/Makefile")
    made.path("/var/lib/rackserve").mkdir(exist_ok=True)
    return made


def write(root: PrivateRoot, name: str, text: str = "") -> None:
    path = root.path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def dkms(root: PrivateRoot, *lines: str, code: int = 0) -> None:
    """What DKMS does when it is asked to build for kernel $3."""
    root.program("dkms", "\n".join(("#!/bin/sh", *lines, f"exit {code}\n")))


def fails(root: PrivateRoot, version: str, module: str) -> str:
    """The line in which DKMS says that it failed to build a module, and which leaves the module's log behind."""
    log = LOG.format(module=module)
    write(root, f"/root/{module}.log", COMPILER.format(module=module))
    words = SAID[version].format(kernel="$3", log=log, module=module)
    return f"mkdir -p {Path(log).parent}; cp /root/{module}.log {log}; cat <<END\n{words}END"


def builds(module: str) -> str:
    return f"mkdir -p /usr/lib/modules/$3/updates/dkms; touch /usr/lib/modules/$3/updates/dkms/{module}.ko"


def load(root: PrivateRoot, kernel_owed: str = "", flavour: str = "") -> subprocess.CompletedProcess[str]:
    """As on a host whose driver cannot be taken out while it runs."""
    return root.script("load-driver.sh", "digest", "nvidia", flavour, "yes", "no", "", kernel_owed)


@pytest.mark.parametrize("version", SAID)
def test_a_module_that_does_not_compile_is_refused_in_the_compilers_own_words(root, version):
    dkms(root, fails(root, version, "nvidia"), code=11)
    done = load(root)
    assert done.returncode == 1
    assert done.stderr.startswith(f"nvidia was not built for {RUNNING}: nvidia.c:4:33: error: 'of_another_kernel'")
    assert done.stderr.strip().endswith(f"(see {LOG.format(module='nvidia')})")


def test_of_two_that_do_not_compile_the_drivers_own_is_named(root):
    dkms(root, fails(root, "3.0", "nvidia"), fails(root, "3.0", "zfs"), code=11)
    assert load(root).stderr.strip().endswith(f"(see {LOG.format(module='nvidia')})")


def test_where_dkms_names_no_log_its_last_words_are_told(root):
    dkms(root, "echo 'Error! Could not locate dkms.conf file.'", code=4)
    assert "Error! Could not locate dkms.conf file." in load(root).stderr


def test_a_module_is_built_where_its_package_found_no_headers_though_another_one_fails(root):
    dkms(root, fails(root, "3.2", "zfs"), builds("nvidia"), code=11)
    done = load(root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"building nvidia for {RUNNING}"]
    assert "building" not in load(root).stdout


def test_a_module_of_the_next_kernel_alone_takes_a_reboot_that_is_written_down(root):
    root.path(f"/usr/lib/modules/{RUNNING}/build/Makefile").unlink()
    write(root, f"/boot/vmlinuz-{NEWER}")
    dkms(root, builds("nvidia"))
    done = load(root)
    reason = f"the running kernel {RUNNING} has no nvidia module, {NEWER} has one"
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"building nvidia for {NEWER}", f"reboot needed: {reason}"]
    digest, boot, written = root.path(OWED).read_text().strip().split(" ", 2)
    assert (digest, written) == ("digest", reason)
    assert boot == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_reboot_is_asked_for_again_in_the_same_boot_and_never_in_another(root):
    dkms(root, builds("nvidia"))
    assert load(root, "its kernel").stdout.splitlines()[-1] == "reboot needed: its kernel"
    assert load(root, "its kernel").stdout.splitlines()[-1] == "reboot needed: its kernel"
    root.path(OWED).write_text("digest another-boot its kernel\n")
    done = load(root, "its kernel")
    assert done.returncode == 1
    assert done.stderr == "rebooted for this driver already, and it still takes a reboot: its kernel\n"
    # Of another plan's driver it is the first one.
    root.path(OWED).write_text("another another-boot its kernel\n")
    assert load(root, "its kernel").stdout.splitlines()[-1] == "reboot needed: its kernel"


@pytest.mark.parametrize(
    ("version", "flavour", "reason"),
    [
        ("570.9", "proprietary", "nvidia 570.9 is loaded, 580.1 is installed"),
        ("580.1", "open", "the proprietary nvidia is loaded, the open one is installed"),
    ],
)
def test_what_is_loaded_in_place_of_the_installed_one_takes_a_reboot(root, version, flavour, reason):
    dkms(root, builds("nvidia"))
    write(root, "/sys/module/nvidia/version", f"{version}\n")
    said = load(root, flavour=flavour).stdout.splitlines()
    assert said[-1] == f"reboot needed: {reason}, and it cannot be taken out of a running system"


def test_what_is_loaded_as_it_is_installed_stays(root):
    dkms(root, builds("nvidia"))
    write(root, "/sys/module/nvidia/version", "580.1\n")
    done = load(root, flavour="proprietary")
    assert (done.returncode, "reboot" in done.stdout) == (0, False)
    assert not root.path(OWED).exists()
