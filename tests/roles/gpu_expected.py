"""What each vendor's driver takes on each system, written down by hand: nothing here asks the planner."""

from __future__ import annotations

from typing import Any

from tests.roles.gpu_box import CATALOG, SYSTEMS

Line = tuple[str, ...]
NAMES = {
    "ubuntu-22.04": "Ubuntu 22.04",
    "ubuntu-24.04": "Ubuntu 24.04",
    "ubuntu-26.04": "Ubuntu 26.04",
    "debian-12": "Debian 12",
    "debian-13": "Debian 13",
    "debian-forky": "Debian testing (forky)",
    "rhel-9": "Red Hat Enterprise Linux 9",
    "rhel-10": "Red Hat Enterprise Linux 10",
    "rocky-9": "Rocky Linux 9",
    "rocky-10": "Rocky Linux 10",
    "macos-15": "macOS 15",
    "macos-26": "macOS 26",
}
EL = {"rhel-9", "rhel-10", "rocky-9", "rocky-10"}
UBUNTU = {"ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04"}
CARRIED = {
    "none": set(NAMES),
    "nvidia": {"debian-12", "debian-13", *UBUNTU, *EL},
    "amd": UBUNTU | EL,
    "intel": {"ubuntu-24.04", "ubuntu-26.04"},
    "apple": {"macos-15", "macos-26"},
}
_HEADER = "# Written by rackserve; changes here are overwritten by the next run.\n"
_CUDA = "https://developer.download.nvidia.com/compute/cuda/repos"
_OLD_KEY = ("3bf863cc.pub", "EB693B3035CD5710E231E123A4B469963BF863CC", "")
# The folder in NVIDIA's repository; the file, the fingerprint and the pinned checksum of its key.
_CUDA_KEYS = {
    "ubuntu-22.04": ("ubuntu2204", *_OLD_KEY),
    "ubuntu-24.04": ("ubuntu2404", *_OLD_KEY),
    "ubuntu-26.04": ("ubuntu2604", "60DF8A40.pub", "14BAFBC7562AD710CA04E69905FBB6DA60DF8A40", ""),
    "debian-12": ("debian12", *_OLD_KEY),
    "debian-13": ("debian13", "8793F200.pub", "02182E60104FCDC26EAE1B8597A5D4CB8793F200", ""),
    "9": ("rhel9", "D42D0685.pub", "610C7B14E068A878070DA4E99CD0A493D42D0685", ""),
    "10": ("rhel10", "CDF6BA43.pub", "", "afbea87d3b979b3788ef34223aeeb323ade481128e2c133723ae99b8a51368bb"),
}
_EPEL = {"9": "FF8AD1344597106ECE813B918A3872BF3228467C", "10": "7D8D15CBFC4E62688591FB2633D98517E37ED158"}
_SUITES = {"ubuntu-22.04": "jammy", "ubuntu-24.04": "noble", "ubuntu-26.04": "resolute"}
_INTEL_KEY = "0C0E6AF955CE463C03FC51574D098D70AFBE5E1F"
_AMD = ("https://repo.radeon.com/rocm/rocm.gpg.key", "CA8BB4727A47B4D09B4EE8969386B48A1A693C5C", "")


def count(tag: str) -> int:
    """Cards in a usual host."""
    gpu = CATALOG.gpus[tag]
    return 1 if gpu.vendor in {"none", "apple"} else (8 if gpu.nvswitch or gpu.vendor == "amd" else 2)


def carries(tag: str, system: str) -> bool:
    """Whether the decision table has a driver for it."""
    return system in CARRIED[CATALOG.gpus[tag].vendor]


def refusal(tag: str, system: str) -> str:
    """What the decision table says of a pair without a driver."""
    gpu, name = CATALOG.gpus[tag], NAMES[system]
    if gpu.vendor == "apple" or system.startswith("macos"):
        return f"{tag} cannot be used under {name}"
    if gpu.vendor == "nvidia":
        return f"nobody packages driver 580 for {name}"
    if gpu.vendor == "amd":
        return f"AMD does not package amdgpu 31.50 for {name}"
    return f"nobody packages Level Zero and OpenCL for {tag} under {name}"


def expected(tag: str, system: str) -> list[Line]:
    """What a virgin host of this kind is sent, in order. DIGEST stands for the plan's."""
    gpu = CATALOG.gpus[tag]
    if gpu.vendor == "none":
        return []
    if gpu.vendor == "apple":
        return [("wired-limit.sh", "io.rackserve.gpu-memory", "/Library/LaunchDaemons/io.rackserve.gpu-memory.plist")]
    steps = {"nvidia": _nvidia_rpm if system in EL else _nvidia_deb, "amd": _amd, "intel": _intel}
    return steps[gpu.vendor](gpu, system)


def _nvidia_deb(gpu: Any, system: str) -> list[Line]:
    ubuntu, flavour = system in UBUNTU, _flavour(gpu)
    dash, kernel = ("-open" if flavour == "open" else ""), SYSTEMS[system][3]
    if ubuntu:
        names = [
            "python3",
            f"linux-modules-nvidia-580-server{dash}-{kernel}",
            f"linux-modules-nvidia-580-server{dash}-generic",
            f"nvidia-headless-no-dkms-580-server{dash}",
            "nvidia-utils-580-server",
            "nvidia-compute-utils-580-server",
            "libnvidia-compute-580-server",
        ]
        brought, fabric = [*names[3:], "nvidia-kernel-common-580-server"], "nvidia-fabricmanager-580"
    else:
        names = ["python3", "dkms", f"linux-headers-{kernel}", "linux-headers-amd64", f"nvidia-kernel{dash}-dkms"]
        names += ["nvidia-driver-cuda", "nvidia-persistenced", "nvidia-modprobe"]
        brought, fabric = [*names[4:], "nvidia-kernel-support", "firmware-nvidia-gsp"], "nvidia-fabricmanager"
    names, brought = _switches(gpu, names, brought, fabric)
    revision = "0ubuntu1" if ubuntu else "1"
    pairs = " ".join(f"{name}=580.178.04-{revision}" for name in sorted(brought))
    folder, key_file, fingerprint, checksum = _CUDA_KEYS[system]
    key = (f"{_CUDA}/{folder}/x86_64/{key_file}", fingerprint, checksum)
    needed = gpu.data_centre or not ubuntu
    return [
        *(_deb_repository("nvidia-cuda", f"{_CUDA}/{folder}/x86_64/", key, "/") if needed else ()),
        *_deb_transaction(names, pairs),
        *_files(gpu),
        *_loaded(gpu, flavour, built=not ubuntu),
    ]


def _nvidia_rpm(gpu: Any, system: str) -> list[Line]:
    flavour, release = _flavour(gpu), system.partition("-")[2]
    kmod, kind = ("kmod-nvidia-open-dkms", "open") if flavour == "open" else ("kmod-nvidia-latest-dkms", "dkms")
    names = [kmod, "nvidia-driver-cuda", "nvidia-driver-cuda-libs", "nvidia-persistenced", "nvidia-modprobe"]
    names, locked = _switches(gpu, names, [*names, "nvidia-kmod-common", "libnvidia-ml"], "nvidia-fabricmanager")
    wanted = [f"{name}-580.178.04" if name in locked else name for name in names]
    folder, key_file, *pinned = _CUDA_KEYS[release]
    key = (f"{_CUDA}/{folder}/x86_64/{key_file}", *pinned)
    stream = f"nvidia-driver:580-{kind}" if release == "9" else ""
    return [
        _rpm_repository("nvidia-cuda", f"{_CUDA}/{folder}/x86_64/", key),
        _epel(release),
        *_rpm_transaction(stream, locked, wanted),
        *_files(gpu),
        *_loaded(gpu, flavour, built=True),
    ]


def _amd(gpu: Any, system: str) -> list[Line]:
    names, boot = ["amdgpu-dkms", "amdgpu-dkms-firmware"], ("cat", "/proc/sys/kernel/random/boot_id")
    if system in EL:
        release = system.partition("-")[2]
        url = f"https://repo.radeon.com/amdgpu/31.50/el/{release}/main/x86_64/"
        packages = [_rpm_repository("amdgpu", url, _AMD), _epel(release), *_rpm_transaction("", names, names)]
    else:
        wanted = ["python3", "dkms", f"linux-headers-{SYSTEMS[system][3]}", "linux-headers-generic", *names]
        brought = "amdgpu-dkms=1:6.16.13.31500000-1.24 amdgpu-dkms-firmware=1:31.50-1.24"
        url = "https://repo.radeon.com/amdgpu/31.50/ubuntu/"
        packages = _deb_repository("amdgpu", url, _AMD, _SUITES[system]) + _deb_transaction(wanted, brought)
    load, verify = _loaded(gpu, "", built=True)
    return [*packages, *_files(gpu), load, boot, REBOOT, boot, verify]


REBOOT: Line = ("systemd-run", "--quiet", "--collect", "--on-active=1", "systemctl", "reboot")


def _intel(gpu: Any, system: str) -> list[Line]:
    noble = system == "ubuntu-24.04"
    url = "https://ppa.launchpadcontent.net/kobuk-team/intel-graphics/ubuntu/"
    key = (f"https://keyserver.ubuntu.com/pks/lookup?op=get&search=0x{_INTEL_KEY}", _INTEL_KEY, "")
    # The cards that Linux 6.8 does not know yet.
    newer = noble and gpu.target == "xe2"
    wanted = ["python3", *(["linux-generic-hwe-24.04"] if newer else [])]
    wanted += ["libze1", "libze-intel-gpu1", "intel-opencl-icd", "clinfo"]
    boot = ("cat", "/proc/sys/kernel/random/boot_id")
    owed = (
        f"Linux {SYSTEMS[system][3]} does not drive GPU 0000:10:00.0, 0000:11:00.0, 6.17.0-20-generic is installed"
        if newer
        else ""
    )
    load, verify = _loaded(gpu, "", built=False, kernel=owed)
    return [
        *(_deb_repository("intel-graphics", url, key, "noble") if noble else ()),
        *_deb_transaction(wanted, ""),
        *_files(gpu),
        *((load, boot, REBOOT, boot) if newer else ()),
        verify,
    ]


def _flavour(gpu: Any) -> str:
    """Volta has no GSP, so only NVIDIA's proprietary module drives it."""
    return "proprietary" if gpu.tag.startswith("v100") else "open"


def _switches(gpu: Any, names: list[str], together: list[str], fabric: str) -> tuple[list[str], list[str]]:
    """With what runs NVSwitches and watches data-centre cards: all names, and those of the driver's version."""
    names = list(names)
    if gpu.nvswitch:
        brought = [fabric, fabric.replace("nvidia-fabricmanager", "libnvidia-nscq")]
        names, together = names + brought, together + brought
        if gpu.target.startswith("10."):
            names += ["nvlsm", "infiniband-diags"]
    if gpu.data_centre:
        names += ["datacenter-gpu-manager-4-core", "datacenter-gpu-manager-4-cuda13"]
    return names, sorted(together)


def _deb_repository(name: str, url: str, key: Line, suite: str) -> list[Line]:
    keyring, components = f"/etc/apt/keyrings/rackserve-{name}.gpg", "" if suite == "/" else "Components: main\n"
    text = (
        f"{_HEADER}Types: deb\nURIs: {url}\nSuites: {suite}\n{components}Architectures: amd64\nSigned-By: {keyring}\n"
    )
    place = (keyring, f"/etc/apt/sources.list.d/rackserve-{name}.sources", text)
    return [("packages.sh", "600", "ca-certificates", "gpg", "curl"), ("repository-deb.sh", url, *key, *place)]


def _epel(release: str) -> Line:
    """Where DKMS is, and nothing else of it is wanted."""
    base = "https://dl.fedoraproject.org/pub/epel"
    key = (f"{base}/RPM-GPG-KEY-EPEL-{release}", _EPEL[release], "")
    return _rpm_repository("epel", f"{base}/{release}/Everything/x86_64/", key, "includepkgs=dkms\n")


def _rpm_repository(name: str, url: str, key: Line, more: str = "") -> Line:
    keyring = f"/etc/pki/rpm-gpg/RPM-GPG-KEY-rackserve-{name}"
    text = (
        f"{_HEADER}[rackserve-{name}]\nname={name} (rackserve)\nbaseurl={url}\nenabled=1\ngpgcheck=1\n"
        f"gpgkey=file://{keyring}\n"
        "# Vendors of GPUs sign their packages and not the list of them; each package's signature is checked.\n"
        f"repo_gpgcheck=0\n{more}"
    )
    return ("repository-rpm.sh", url, *key, keyring, f"/etc/yum.repos.d/rackserve-{name}.repo", text)


def _deb_transaction(names: list[str], brought: str) -> list[Line]:
    return [
        ("write", "/etc/apt/preferences.d/10-rackserve-driver", "644"),
        ("write", "/etc/apt/apt.conf.d/52rackserve-unattended", "644"),
        ("refresh-deb.sh", "600"),
        ("rm", "-f", "/var/lib/rackserve/driver.json"),
        ("driver-deb.sh", "600", "no", "", brought, *names),
    ]


def _rpm_transaction(stream: str, locked: list[str], wanted: list[str]) -> list[Line]:
    before = ("python3", "dkms", "kernel-devel-matched", "kernel-headers")
    return [
        ("refresh-rpm.sh", "600", stream, *before),
        ("rm", "-f", "/var/lib/rackserve/driver.json"),
        ("driver-rpm.sh", "600", "", " ".join(locked), *before, *wanted),
    ]


def _files(gpu: Any) -> list[Line]:
    nvidia = gpu.vendor == "nvidia"
    return [
        *([("write", "/etc/modprobe.d/rackserve-gpu.conf", "644")] if nvidia else []),
        ("write", "/etc/modules-load.d/rackserve-gpu.conf", "644"),
        ("write", "/etc/rackserve/gpus.json", "644"),
        ("write", "/etc/systemd/system/gpu-ready.service", "644"),
        ("write", "/etc/systemd/system/rackserve@.service.d/05-gpu.conf", "644"),
        *([("write", "/usr/libexec/rackserve/ask-cuda", "755")] if nvidia else []),
        *([("write", "/usr/libexec/rackserve/ask-intel", "755")] if gpu.vendor == "intel" else []),
        ("write", "/usr/libexec/rackserve/gpu-ready", "755"),
        ("write", "/usr/libexec/rackserve/rackserve_gpus.py", "755"),
    ]


def _loaded(gpu: Any, flavour: str, *, built: bool, kernel: str = "") -> tuple[Line, Line]:
    units = ["nvidia-persistenced.service", "nvidia-dcgm.service"] if gpu.vendor == "nvidia" else []
    units += ["nvidia-fabricmanager.service"] if gpu.nvswitch else []
    intel = "xe" if gpu.target == "xe2" else "i915"
    modules = {"nvidia": "nvidia nvidia_uvm", "amd": "amdgpu", "intel": intel}[gpu.vendor]
    # NVIDIA's modules alone are taken out of a running system.
    words = (flavour, "yes" if built else "no", "yes" if gpu.vendor == "nvidia" else "no", " ".join(units), kernel)
    return ("load-driver.sh", "DIGEST", modules, *words), ("verify-driver.sh", "DIGEST", " ".join(units))
