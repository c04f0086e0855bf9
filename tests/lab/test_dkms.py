"""DKMS for real: NVIDIA's open module from Debian's archive, a module that does not compile, and what is read of both.

Hosts run this machine's kernel, which has no headers: modules are built for the oldest kernel whose headers the mirror
has, which the driver of a stable release is sure to know. What is made of DKMS's words is asked in seconds by
tests/operations/test_load_driver_script.py.
"""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass

import pytest

from rackserve.domain.gpu_state import GpuState
from rackserve.facts.gpu_host import GpuHost, parse_gpu_host
from rackserve.lab.lab import Lab
from rackserve.operations.commands import script_text
from rackserve.planning.transaction import upstream
from tests.lab.conftest import LabFactory

pytestmark = [pytest.mark.lab, pytest.mark.build, pytest.mark.full]

# Debian tells modprobe about its module only where there is a CUDA library to go with it.
DRIVER = "nvidia-open-kernel-dkms libcuda1"
# Of the release alone: security updates leave the open flavour behind, whose firmware then has another version.
SOURCES = """
sed -i -E 's/^(deb .*) main.*/\\1 main/' /etc/apt/sources.list
sed -n 's/ bookworm main$/ bookworm contrib non-free non-free-firmware/p' /etc/apt/sources.list \\
  >/etc/apt/sources.list.d/driver.list
apt-get -q -o APT::Update::Error-Mode=any update || exit
"""
KERNELS = "apt-cache search --names-only '^linux-headers-[0-9].*[0-9]-'$(dpkg --print-architecture)'$'"
FILE = "nvidia-current-open"
APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends"
LOG = "/var/lib/dkms/nvidia-lab/1.0/build/make.log"
# A driver that this kernel's headers are too new for, packed as Debian packs them.
BROKEN = """
mkdir -p /root/p/DEBIAN /root/p/usr/src/nvidia-lab-1.0 && cd /root/p
cat >usr/src/nvidia-lab-1.0/dkms.conf <<'END'
PACKAGE_NAME=nvidia-lab
PACKAGE_VERSION=1.0
BUILT_MODULE_NAME[0]=nvidia
DEST_MODULE_LOCATION[0]=/updates/dkms
AUTOINSTALL=yes
MAKE[0]="make -C /lib/modules/${kernelver}/build M=${dkms_tree}/nvidia-lab/1.0/build modules"
CLEAN=true
END
echo 'obj-m := nvidia.o' >usr/src/nvidia-lab-1.0/Makefile
cat >usr/src/nvidia-lab-1.0/nvidia.c <<'END'
#include <linux/module.h>
MODULE_LICENSE("GPL");
MODULE_VERSION("1.0");
static int __init lab(void) { return of_another_kernel; }
module_init(lab);
END
cat >DEBIAN/control <<'END'
Package: nvidia-lab-dkms
Version: 1.0
Architecture: all
Maintainer: Lab <lab@lab>
Description: a driver of another kernel
END
printf '#!/bin/sh\\nexec /usr/lib/dkms/common.postinst nvidia-lab 1.0\\n' >DEBIAN/postinst
chmod 755 DEBIAN/postinst
dpkg-deb --build . /root/nvidia-lab-dkms.deb >/dev/null && dpkg -i /root/nvidia-lab-dkms.deb
"""


@dataclass(frozen=True)
class Host:
    """A host on which DKMS can build for `kernel`, with a package whose module it failed to build."""

    lab: Lab
    kernel: str
    installation: subprocess.CompletedProcess[str]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        return self.lab.ssh("h1", command, check=False, timeout=600)

    def load(self) -> subprocess.CompletedProcess[str]:
        arguments = ("digest", "nvidia nvidia_uvm", "open", "yes", "no", "", "")
        return self.run(shlex.join(["sh", "-c", script_text("load-driver.sh"), "sh", *arguments]))

    def state(self) -> GpuState:
        return parse_gpu_host(self.run(GpuHost().command(module="nvidia", ask=[])).stdout.splitlines())

    def modinfo(self, field: str, file: str) -> str:
        return self.run(f"modinfo -k {self.kernel} -F {field} {file}").stdout.strip()


def host_with_dkms(lab: Lab, suite: str) -> Host:
    lab.up(1, suite)
    lab.ssh("h1", "apt-get -q update", timeout=120)
    headers = lab.ssh("h1", f"{KERNELS} | cut -d ' ' -f 1 | sort -V | head -n 1").stdout.strip()
    assert headers, "Debian's archive has no kernel headers"
    kernel = headers.removeprefix("linux-headers-")
    lab.ssh("h1", f"{APT} install dkms {headers} </dev/null 2>&1", timeout=300)
    # Headers alone boot nothing, and only kernels that could be booted are looked at.
    lab.ssh("h1", f"[ -e /boot/vmlinuz-{kernel} ] || : >/boot/vmlinuz-{kernel}")
    return Host(lab, kernel, lab.ssh("h1", f"({BROKEN}) 2>&1", check=False, timeout=120))


@pytest.fixture(scope="module")
def bookworm(lab_factory: LabFactory) -> Host:
    """DKMS 3.0, modules as they are."""
    return host_with_dkms(lab_factory("dkms12"), "bookworm")


@pytest.fixture(scope="module")
def trixie(lab_factory: LabFactory) -> Host:
    """DKMS 3.2, which says other words, and compressed modules."""
    return host_with_dkms(lab_factory("dkms13"), "trixie")


def last_words(output: str) -> str:
    return " ".join(output.strip().splitlines()[-3:])


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_a_module_that_does_not_compile_is_refused_in_the_compilers_own_words(
    request: pytest.FixtureRequest, suite: str
) -> None:
    host: Host = request.getfixturevalue(suite)
    # DKMS fails its package, which stays half configured.
    assert host.installation.returncode == 1
    assert "returned error exit status 10" in host.installation.stdout
    state = host.state()
    assert (state.unsettled, state.headers, state.module_versions) == (("nvidia-lab-dkms",), (host.kernel,), {})
    done = host.load()
    assert done.returncode == 1
    assert done.stderr.startswith(f"nvidia was not built for {host.kernel}: nvidia.c:4:")
    assert "error: " in done.stderr
    assert "of_another_kernel" in done.stderr
    assert done.stderr.strip().endswith(f"(see {LOG})")
    assert "of_another_kernel" in host.run(f"cat {LOG}").stdout


def test_a_mended_module_is_built_and_read_though_it_is_compressed(trixie: Host) -> None:
    trixie.run("sed -i s/of_another_kernel/0/ /usr/src/nvidia-lab-1.0/nvidia.c")
    done = trixie.load()
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith(f"has no nvidia module, {trixie.kernel} has one")
    assert trixie.modinfo("filename", "nvidia").endswith("/updates/dkms/nvidia.ko.xz")
    assert trixie.state().module_versions == {trixie.kernel: "1.0"}


def test_nvidias_module_is_built_where_its_package_found_no_headers_though_another_one_fails(bookworm: Host) -> None:
    host = bookworm
    simulated = host.run(f"({SOURCES} apt-get -s -q --no-install-recommends install {DRIVER}) 2>&1")
    if simulated.returncode:
        pytest.skip(f"the mirror's {DRIVER} cannot be installed on Debian 12: {last_words(simulated.stdout)}")
    # As if the headers came after the driver: its package ends well and has built nothing.
    build = f"/lib/modules/{host.kernel}/build"
    host.run(f"mv {build} {build}.later")
    installed = host.run(f"{APT} install {DRIVER} </dev/null 2>&1")
    host.run(f"mv {build}.later {build}")
    assert installed.returncode == 0, last_words(installed.stdout)
    state = host.state()
    assert (state.unsettled, state.headers, state.module_versions) == ((), (host.kernel,), {})
    done = host.load()
    if done.returncode and not host.modinfo("filename", FILE):
        # The archive's driver and kernels are not always of one mind. It is said as usual, and is all there is to see.
        assert f"nvidia was not built for {host.kernel}: " in done.stderr
        assert "/make.log)" in done.stderr
        pytest.skip(f"the mirror's driver does not compile today: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    # The minutes that it takes are not spent in silence, which firewalls take for the end.
    lines = done.stdout.splitlines()
    assert lines[0] == f"building nvidia for {host.kernel}"
    assert len([line for line in lines if line.startswith("building: ")]) > 1
    reason = f"the running kernel {state.kernel} has no nvidia module, {host.kernel} has one"
    assert lines[-1] == f"reboot needed: {reason}"
    assert f"Consult {LOG}" in host.run("cat /run/rackserve-dkms.log").stdout
    assert host.modinfo("license", FILE) == "Dual MIT/GPL"
    # Debian's own file name is not the module's.
    assert host.modinfo("name", FILE) == "nvidia"
    version = upstream(state.packages["nvidia-open-kernel-dkms"])
    assert host.state().module_versions == {host.kernel: version} == {host.kernel: host.modinfo("version", FILE)}
    again = host.load()
    assert again.returncode == 0
    assert "building" not in again.stdout
