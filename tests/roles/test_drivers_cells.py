"""What a dozen kinds of hosts are sent by deploys/drivers.py, word for word, as an operator would read it in a log."""

from __future__ import annotations

import copy
import shlex
from typing import Any

import pytest

from tests.roles.driving import drive, told
from tests.roles.gpu_box import Box

NVIDIA_FILES = """write /etc/modprobe.d/rackserve-gpu.conf 644
write /etc/modules-load.d/rackserve-gpu.conf 644
write /etc/rackserve/gpus.json 644
write /etc/systemd/system/gpu-ready.service 644
write /etc/systemd/system/rackserve@.service.d/05-gpu.conf 644
write /usr/libexec/rackserve/ask-cuda 755
write /usr/libexec/rackserve/gpu-ready 755
write /usr/libexec/rackserve/rackserve_gpus.py 755"""
INTEL_FILES = """write /etc/modules-load.d/rackserve-gpu.conf 644
write /etc/rackserve/gpus.json 644
write /etc/systemd/system/gpu-ready.service 644
write /etc/systemd/system/rackserve@.service.d/05-gpu.conf 644
write /usr/libexec/rackserve/ask-intel 755
write /usr/libexec/rackserve/gpu-ready 755
write /usr/libexec/rackserve/rackserve_gpus.py 755"""
OTHER_FILES = """write /etc/modules-load.d/rackserve-gpu.conf 644
write /etc/rackserve/gpus.json 644
write /etc/systemd/system/gpu-ready.service 644
write /etc/systemd/system/rackserve@.service.d/05-gpu.conf 644
write /usr/libexec/rackserve/gpu-ready 755
write /usr/libexec/rackserve/rackserve_gpus.py 755"""
APT_PINS = """write /etc/apt/preferences.d/10-rackserve-driver 644
write /etc/apt/apt.conf.d/52rackserve-unattended 644
refresh-deb.sh 600
rm -f /var/lib/rackserve/driver.json"""
REBOOT = """cat /proc/sys/kernel/random/boot_id
systemd-run --quiet --collect --on-active=1 systemctl reboot
cat /proc/sys/kernel/random/boot_id"""
# Keys: a fingerprint and no checksum for Enterprise Linux 9, the other way round for 10.
CUDA_9 = """repository-rpm.sh https://developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64/ \
https://developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64/D42D0685.pub \
610C7B14E068A878070DA4E99CD0A493D42D0685 '' \
/etc/pki/rpm-gpg/RPM-GPG-KEY-rackserve-nvidia-cuda /etc/yum.repos.d/rackserve-nvidia-cuda.repo TEXT"""
CUDA_10 = """repository-rpm.sh https://developer.download.nvidia.com/compute/cuda/repos/rhel10/x86_64/ \
https://developer.download.nvidia.com/compute/cuda/repos/rhel10/x86_64/CDF6BA43.pub \
'' afbea87d3b979b3788ef34223aeeb323ade481128e2c133723ae99b8a51368bb \
/etc/pki/rpm-gpg/RPM-GPG-KEY-rackserve-nvidia-cuda /etc/yum.repos.d/rackserve-nvidia-cuda.repo TEXT"""
# DKMS is nowhere else on Enterprise Linux.
EPEL_9, EPEL_10 = (
    f"""repository-rpm.sh https://dl.fedoraproject.org/pub/epel/{release}/Everything/x86_64/ \
https://dl.fedoraproject.org/pub/epel/RPM-GPG-KEY-EPEL-{release} {key} '' \
/etc/pki/rpm-gpg/RPM-GPG-KEY-rackserve-epel /etc/yum.repos.d/rackserve-epel.repo TEXT"""
    for release, key in (
        (9, "FF8AD1344597106ECE813B918A3872BF3228467C"),
        (10, "7D8D15CBFC4E62688591FB2633D98517E37ED158"),
    )
)
BUILD = "python3 dkms kernel-devel-matched kernel-headers"
DCGM = "datacenter-gpu-manager-4-core datacenter-gpu-manager-4-cuda13"
OLD = dict.fromkeys(("kmod-nvidia-open-dkms", "nvidia-kmod-common", "nvidia-driver-cuda"), "575.57.08-1.el9")
HWE = {"kernels": ["6.17.0-8-generic"], "packages": {"linux-image-generic-hwe-24.04": "1"}}

CELLS: dict[str, tuple[Box, str]] = {
    # Enterprise Linux 9 has module streams: one for each flavour of the kernel module.
    "rhel-9-open-and-docker": (
        Box("l40s", "rhel-9", 2, engines={"docker"}),
        f"""{CUDA_9}
{EPEL_9}
repository-rpm.sh https://nvidia.github.io/libnvidia-container/stable/rpm/x86_64/ \
https://nvidia.github.io/libnvidia-container/gpgkey C95B321B61E88C1809C4F759DDCAE044F796ECB0 '' \
/etc/pki/rpm-gpg/RPM-GPG-KEY-rackserve-nvidia-container-toolkit \
/etc/yum.repos.d/rackserve-nvidia-container-toolkit.repo TEXT
refresh-rpm.sh 600 nvidia-driver:580-open {BUILD}
rm -f /var/lib/rackserve/driver.json
driver-rpm.sh 600 '' 'kmod-nvidia-open-dkms libnvidia-ml nvidia-driver-cuda nvidia-driver-cuda-libs \
nvidia-kmod-common nvidia-modprobe nvidia-persistenced' {BUILD} \
kmod-nvidia-open-dkms-580.178.04 nvidia-driver-cuda-580.178.04 nvidia-driver-cuda-libs-580.178.04 \
nvidia-persistenced-580.178.04 nvidia-modprobe-580.178.04 {DCGM}
{NVIDIA_FILES}
load-driver.sh DIGEST 'nvidia nvidia_uvm' open yes yes 'nvidia-persistenced.service nvidia-dcgm.service' ''
verify-driver.sh DIGEST 'nvidia-persistenced.service nvidia-dcgm.service'
refresh-rpm.sh 600 ''
driver-rpm.sh 600 '' '' nvidia-container-toolkit-base-1.20.0 nvidia-container-toolkit-1.20.0 \
libnvidia-container-tools-1.20.0 libnvidia-container1-1.20.0
cdi.sh nvidia-cdi-refresh.path 2
container-engine.sh docker""",
    ),
    "rhel-9-proprietary": (
        Box("v100-32gb-sxm", "rhel-9", 8),
        f"""{CUDA_9}
{EPEL_9}
refresh-rpm.sh 600 nvidia-driver:580-dkms {BUILD}
rm -f /var/lib/rackserve/driver.json
driver-rpm.sh 600 '' 'kmod-nvidia-latest-dkms libnvidia-ml nvidia-driver-cuda nvidia-driver-cuda-libs \
nvidia-kmod-common nvidia-modprobe nvidia-persistenced' {BUILD} \
kmod-nvidia-latest-dkms-580.178.04 nvidia-driver-cuda-580.178.04 nvidia-driver-cuda-libs-580.178.04 \
nvidia-persistenced-580.178.04 nvidia-modprobe-580.178.04 {DCGM}
{NVIDIA_FILES}
load-driver.sh DIGEST 'nvidia nvidia_uvm' proprietary yes yes 'nvidia-persistenced.service nvidia-dcgm.service' ''
verify-driver.sh DIGEST 'nvidia-persistenced.service nvidia-dcgm.service'""",
    ),
    # What goes is named with its version for the way back; what is new of the driver is locked with the rest.
    "rocky-9-from-another-branch": (
        Box(
            "rtx-4090",
            "rocky-9",
            packages=OLD,
            headers=["5.14.0-570.12.1.el9_6.x86_64"],
            stream="nvidia-driver:575-open",
        ),
        f"""{CUDA_9}
{EPEL_9}
refresh-rpm.sh 600 nvidia-driver:580-open {BUILD}
rm -f /var/lib/rackserve/driver.json
driver-rpm.sh 600 'kmod-nvidia-open-dkms-575.57.08-1.el9 nvidia-driver-cuda-575.57.08-1.el9 \
nvidia-kmod-common-575.57.08-1.el9' 'kmod-nvidia-open-dkms libnvidia-ml nvidia-driver-cuda nvidia-driver-cuda-libs \
nvidia-kmod-common nvidia-modprobe nvidia-persistenced' {BUILD} \
kmod-nvidia-open-dkms-580.178.04 nvidia-driver-cuda-580.178.04 nvidia-driver-cuda-libs-580.178.04 \
nvidia-persistenced-580.178.04 nvidia-modprobe-580.178.04
{NVIDIA_FILES}
load-driver.sh DIGEST 'nvidia nvidia_uvm' open yes yes 'nvidia-persistenced.service nvidia-dcgm.service' ''
verify-driver.sh DIGEST 'nvidia-persistenced.service nvidia-dcgm.service'""",
    ),
    # Enterprise Linux 10 has no streams, and a consumer's card no DCGM.
    "rocky-10-open": (
        Box("rtx-4090", "rocky-10", 2),
        f"""{CUDA_10}
{EPEL_10}
refresh-rpm.sh 600 '' {BUILD}
rm -f /var/lib/rackserve/driver.json
driver-rpm.sh 600 '' 'kmod-nvidia-open-dkms libnvidia-ml nvidia-driver-cuda nvidia-driver-cuda-libs \
nvidia-kmod-common nvidia-modprobe nvidia-persistenced' {BUILD} \
kmod-nvidia-open-dkms-580.178.04 nvidia-driver-cuda-580.178.04 nvidia-driver-cuda-libs-580.178.04 \
nvidia-persistenced-580.178.04 nvidia-modprobe-580.178.04
{NVIDIA_FILES}
load-driver.sh DIGEST 'nvidia nvidia_uvm' open yes yes 'nvidia-persistenced.service nvidia-dcgm.service' ''
verify-driver.sh DIGEST 'nvidia-persistenced.service nvidia-dcgm.service'""",
    ),
    "rhel-10-nvlink-5": (
        Box("b200", "rhel-10", 8),
        f"""{CUDA_10}
{EPEL_10}
refresh-rpm.sh 600 '' {BUILD}
rm -f /var/lib/rackserve/driver.json
driver-rpm.sh 600 '' 'kmod-nvidia-open-dkms libnvidia-ml libnvidia-nscq nvidia-driver-cuda nvidia-driver-cuda-libs \
nvidia-fabricmanager nvidia-kmod-common nvidia-modprobe nvidia-persistenced' {BUILD} \
kmod-nvidia-open-dkms-580.178.04 nvidia-driver-cuda-580.178.04 nvidia-driver-cuda-libs-580.178.04 \
nvidia-persistenced-580.178.04 nvidia-modprobe-580.178.04 nvidia-fabricmanager-580.178.04 libnvidia-nscq-580.178.04 \
nvlsm infiniband-diags {DCGM}
{NVIDIA_FILES}
load-driver.sh DIGEST 'nvidia nvidia_uvm' open yes yes \
'nvidia-persistenced.service nvidia-dcgm.service nvidia-fabricmanager.service' ''
verify-driver.sh DIGEST 'nvidia-persistenced.service nvidia-dcgm.service nvidia-fabricmanager.service'""",
    ),
    # AMD's module is numbered apart from its series, so no version is stated; a loaded one takes a reboot.
    **{
        f"rhel-{release}-amd": (
            Box("mi300x", f"rhel-{release}", 8),
            f"""repository-rpm.sh https://repo.radeon.com/amdgpu/31.50/el/{release}/main/x86_64/ \
https://repo.radeon.com/rocm/rocm.gpg.key CA8BB4727A47B4D09B4EE8969386B48A1A693C5C '' \
/etc/pki/rpm-gpg/RPM-GPG-KEY-rackserve-amdgpu /etc/yum.repos.d/rackserve-amdgpu.repo TEXT
{epel}
refresh-rpm.sh 600 '' {BUILD}
rm -f /var/lib/rackserve/driver.json
driver-rpm.sh 600 '' 'amdgpu-dkms amdgpu-dkms-firmware' {BUILD} amdgpu-dkms amdgpu-dkms-firmware
{OTHER_FILES}
load-driver.sh DIGEST amdgpu '' yes no '' ''
{REBOOT}
verify-driver.sh DIGEST ''""",
        )
        for release, epel in (("9", EPEL_9), ("10", EPEL_10))
    },
    # Ready-made and signed by Ubuntu; NVIDIA's repository comes along for DCGM.
    "ubuntu-22.04-signed": (
        Box("h100-sxm-80gb", "ubuntu-22.04", 8),
        f"""packages.sh 600 ca-certificates gpg curl
repository-deb.sh https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64/ \
https://developer.download.nvidia.com/compute/cuda/repos/ubuntu2204/x86_64/3bf863cc.pub \
EB693B3035CD5710E231E123A4B469963BF863CC '' \
/etc/apt/keyrings/rackserve-nvidia-cuda.gpg /etc/apt/sources.list.d/rackserve-nvidia-cuda.sources TEXT
{APT_PINS}
driver-deb.sh 600 no '' 'libnvidia-compute-580-server=580.178.04-0ubuntu1 libnvidia-nscq-580=580.178.04-0ubuntu1 \
nvidia-compute-utils-580-server=580.178.04-0ubuntu1 nvidia-fabricmanager-580=580.178.04-0ubuntu1 \
nvidia-headless-no-dkms-580-server-open=580.178.04-0ubuntu1 nvidia-kernel-common-580-server=580.178.04-0ubuntu1 \
nvidia-utils-580-server=580.178.04-0ubuntu1' \
python3 linux-modules-nvidia-580-server-open-5.15.0-160-generic linux-modules-nvidia-580-server-open-generic \
nvidia-headless-no-dkms-580-server-open \
nvidia-utils-580-server nvidia-compute-utils-580-server libnvidia-compute-580-server \
nvidia-fabricmanager-580 libnvidia-nscq-580 {DCGM}
{NVIDIA_FILES}
load-driver.sh DIGEST 'nvidia nvidia_uvm' open no yes \
'nvidia-persistenced.service nvidia-dcgm.service nvidia-fabricmanager.service' ''
verify-driver.sh DIGEST 'nvidia-persistenced.service nvidia-dcgm.service nvidia-fabricmanager.service'""",
    ),
    # The modules follow the metapackage of the kernel that is booted; without DCGM no repository is needed.
    "ubuntu-24.04-newer-kernel": (
        Box("rtx-4090", "ubuntu-24.04", **HWE),
        f"""{APT_PINS}
driver-deb.sh 600 no '' 'libnvidia-compute-580-server=580.178.04-0ubuntu1 \
nvidia-compute-utils-580-server=580.178.04-0ubuntu1 nvidia-headless-no-dkms-580-server-open=580.178.04-0ubuntu1 \
nvidia-kernel-common-580-server=580.178.04-0ubuntu1 nvidia-utils-580-server=580.178.04-0ubuntu1' \
python3 linux-modules-nvidia-580-server-open-6.17.0-8-generic \
linux-modules-nvidia-580-server-open-generic-hwe-24.04 nvidia-headless-no-dkms-580-server-open \
nvidia-utils-580-server nvidia-compute-utils-580-server libnvidia-compute-580-server
{NVIDIA_FILES}
load-driver.sh DIGEST 'nvidia nvidia_uvm' open no yes 'nvidia-persistenced.service nvidia-dcgm.service' ''
verify-driver.sh DIGEST 'nvidia-persistenced.service nvidia-dcgm.service'""",
    ),
    "debian-13-built": (
        Box("l40s", "debian-13", 2),
        f"""packages.sh 600 ca-certificates gpg curl
repository-deb.sh https://developer.download.nvidia.com/compute/cuda/repos/debian13/x86_64/ \
https://developer.download.nvidia.com/compute/cuda/repos/debian13/x86_64/8793F200.pub \
02182E60104FCDC26EAE1B8597A5D4CB8793F200 '' \
/etc/apt/keyrings/rackserve-nvidia-cuda.gpg /etc/apt/sources.list.d/rackserve-nvidia-cuda.sources TEXT
{APT_PINS}
driver-deb.sh 600 no '' 'firmware-nvidia-gsp=580.178.04-1 nvidia-driver-cuda=580.178.04-1 \
nvidia-kernel-open-dkms=580.178.04-1 nvidia-kernel-support=580.178.04-1 nvidia-modprobe=580.178.04-1 \
nvidia-persistenced=580.178.04-1' \
python3 dkms linux-headers-6.12.57+deb13-amd64 linux-headers-amd64 \
nvidia-kernel-open-dkms nvidia-driver-cuda nvidia-persistenced nvidia-modprobe {DCGM}
{NVIDIA_FILES}
load-driver.sh DIGEST 'nvidia nvidia_uvm' open yes yes 'nvidia-persistenced.service nvidia-dcgm.service' ''
verify-driver.sh DIGEST 'nvidia-persistenced.service nvidia-dcgm.service'""",
    ),
    # Linux 6.8 has the module as well, and does not know the card: it takes the reboot all the same.
    "ubuntu-24.04-arc-and-its-kernel": (
        Box("arc-b580", "ubuntu-24.04"),
        f"""packages.sh 600 ca-certificates gpg curl
repository-deb.sh https://ppa.launchpadcontent.net/kobuk-team/intel-graphics/ubuntu/ \
'https://keyserver.ubuntu.com/pks/lookup?op=get&search=0x0C0E6AF955CE463C03FC51574D098D70AFBE5E1F' \
0C0E6AF955CE463C03FC51574D098D70AFBE5E1F '' \
/etc/apt/keyrings/rackserve-intel-graphics.gpg /etc/apt/sources.list.d/rackserve-intel-graphics.sources TEXT
{APT_PINS}
driver-deb.sh 600 no '' '' python3 linux-generic-hwe-24.04 libze1 libze-intel-gpu1 intel-opencl-icd clinfo
{INTEL_FILES}
load-driver.sh DIGEST xe '' no no '' \
'Linux 6.8.0-88-generic does not drive GPU 0000:10:00.0, 6.17.0-20-generic is installed'
{REBOOT}
verify-driver.sh DIGEST ''""",
    ),
    "ubuntu-26.04-arc-of-the-kernel-itself": (
        Box("arc-a770-16gb", "ubuntu-26.04"),
        f"""{APT_PINS}
driver-deb.sh 600 no '' '' python3 libze1 libze-intel-gpu1 intel-opencl-icd clinfo
{INTEL_FILES}
verify-driver.sh DIGEST ''""",
    ),
    # 131,072 MiB, of which macOS leaves three quarters to the GPU.
    "macos-15": (
        Box("apple-m4-max", "macos-15"),
        "wired-limit.sh io.rackserve.gpu-memory /Library/LaunchDaemons/io.rackserve.gpu-memory.plist 98304 TEXT",
    ),
    "cpu": (Box("cpu", "rocky-9"), ""),
}
SETTINGS: dict[str, dict[str, Any]] = {
    "rhel-9-open-and-docker": {"container_engines": ["docker"]},
    "macos-15": {"memory_mib": 131072},
}


@pytest.mark.parametrize("name", CELLS)
def test_a_host_is_sent_this_word_for_word_and_nothing_the_second_time(name):
    box, wanted = copy.deepcopy(CELLS[name])
    settings = {"host": SETTINGS.get(name, {})}
    lines = [
        ["TEXT" if "\n" in word else word for word in line] for line in told(drive({"host": box}, settings), "host")
    ]
    assert "\n".join(map(shlex.join, lines)) == wanted
    assert told(drive({"host": box}, settings), "host") == []
