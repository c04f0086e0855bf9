"""Stand-ins for the packages of a driver plan: names, versions and dependencies as planned, contents that act it out.

Their programs lie in `standins`; what they act out is written in each.
"""

from __future__ import annotations

from collections.abc import Iterator

from rackserve.lab.elf import STANDINS, intel_compute, kernel_module, libcuda
from rackserve.lab.repository import Package
from rackserve.planning.driver_plan import DriverPlan

ARCHIVE = "archive"
# Where the archive or the vendor's repository has no version of its own stated, as for a branch of Ubuntu's.
VERSIONS = {"580": "580.178.04", "595": "595.99.02"}
_LIBRARIES = "/usr/lib/x86_64-linux-gnu"
# Whose repository has a package, by what its name begins with, before the plan's first.
_HOMES = {
    "datacenter-gpu-manager": "nvidia-cuda",
    "nvidia-container-toolkit": "nvidia-container-toolkit",
    "libnvidia-container": "nvidia-container-toolkit",
    "amdrocm": "rocm",
    "amdgpu": "amdgpu",
}
# The packages whose loaders are asked for cards; the ICD stands for OpenCL's loader too.
_INTEL = {"libze1": "libze_loader.so.1", "intel-opencl-icd": "libOpenCL.so.1"}
_SERVICE = (
    "[Unit]\nDescription={name} of the lab\n[Service]\nExecStart={command}\n[Install]\nWantedBy=multi-user.target\n"
)
_CDI_PATH = "[Path]\nPathChanged=/lib/modules\n[Install]\nWantedBy=multi-user.target\n"
_CDI_SERVICE = "[Service]\nType=oneshot\nExecStart=/usr/bin/nvidia-ctk cdi generate\n"
# As DKMS's own: a kernel without headers is passed over, and the package counts as installed all the same.
_BUILD = """#!/bin/sh
[ "$1" = configure ] || exit 0
for kernel in /lib/modules/*; do dkms autoinstall -k "${kernel##*/}" || echo "skipped ${kernel##*/}"; done
exit 0
"""
# As the real ones, before their files go: what was built of them goes too.
_UNBUILD = """#!/bin/sh
for kernel in /lib/modules/*; do
  for module in /usr/src/@SOURCE@/lab-modules/*.ko; do rm -f "$kernel/updates/dkms/${module##*/}"; done
  rmdir "$kernel/updates/dkms" "$kernel/updates" 2>/dev/null || :
  depmod "${kernel##*/}"
done
"""
# The hook is for tests: a package whose script takes long, or fails.
_LDCONFIG = "#!/bin/sh\n[ ! -x /etc/lab-postinst ] || /etc/lab-postinst || exit $?\nldconfig\n"
# The real ones bring the link that ldconfig makes here.
_UNLINK = f"#!/bin/sh\nrm -f {_LIBRARIES}/libcuda.so.1\n"
_DEPMOD = '#!/bin/sh\nfor kernel in /lib/modules/*; do depmod "${kernel##*/}"; done\n'


def driver_version(plan: DriverPlan) -> str:
    """What the stand-ins are numbered."""
    return plan.version or VERSIONS.get(plan.branch or "", "1.0.0")


def home(plan: DriverPlan, name: str) -> str:
    """The name of the repository that has a package; ARCHIVE for the distribution's own."""
    planned = [entry.name for entry in plan.repositories]
    for prefix, repository in _HOMES.items():
        if name.startswith(prefix) and repository in planned:
            return repository
    if plan.signed_module or name in {"dkms", "zstd"} or name.startswith("linux-"):
        return ARCHIVE
    return planned[0] if planned else ARCHIVE


def driver_packages(plan: DriverPlan, kernel: str, version: str | None = None) -> Iterator[Package]:
    """All packages of the plan, in another version if that is given. kernel: of the hosts, as `uname -r` prints it."""
    number = version or driver_version(plan)
    names = [name for name in plan.packages if "{suffix}" not in name and name != plan.kernel_package]
    if plan.signed_module:
        name = plan.signed_module.replace("{release}", kernel)
        modules = {
            f"/usr/lib/modules/{kernel}/kernel/nvidia/{file}": content for file, content in _modules(plan, number)
        }
        signed = {path: kernel_module(_nvidia_fields(plan, number, signer="Canonical Ltd.")) for path in modules}
        yield Package(name, f"{number}-1", files=signed, scripts={"postinst": _DEPMOD})
    for name in names:
        files = dict(_files(plan, name, number))
        built = "-dkms" in name or "dkms-" in name
        scripts = {"postinst": _BUILD if built else _LDCONFIG}
        if built:
            scripts["prerm"] = _UNBUILD.replace("@SOURCE@", f"{name}-{number}")
        elif any("libcuda" in path for path in files):
            scripts["postrm"] = _UNLINK
        if built:
            folder = f"/usr/src/{name}-{number}/lab-modules"
            files |= {f"{folder}/{file}": content for file, content in _modules(plan, number)}
        # Numbered apart, as the real ones are, and above those that the host's own archive may have.
        own = name.startswith(("datacenter-gpu-manager", "amdrocm", "libze", "intel-", "clinfo", "nvlsm", "infiniband"))
        yield Package(name, "99.0-1" if own else f"{number}-1", "dkms" if built else "", files=files, scripts=scripts)


def toolkit_packages(plan: DriverPlan) -> Iterator[Package]:
    """NVIDIA's Container Toolkit."""
    for name in plan.toolkit_packages:
        files = {}
        if name == "nvidia-container-toolkit-base":
            files = {
                "/usr/bin/nvidia-ctk": _program("nvidia-ctk"),
                "/usr/bin/nvidia-cdi-hook": _program("nvidia-cdi-hook"),
                "/usr/lib/systemd/system/nvidia-cdi-refresh.path": _CDI_PATH,
                "/usr/lib/systemd/system/nvidia-cdi-refresh.service": _CDI_SERVICE,
            }
        yield Package(name, f"{plan.toolkit_version}-1", files=files)


def archive_packages(plan: DriverPlan, kernel: str) -> Iterator[Package]:
    """What the distribution's own archive has for this kernel: headers, and DKMS."""
    headers = {f"/usr/lib/modules/{kernel}/build/Makefile": "# stand-in\n"}
    for pattern in plan.headers:
        if "{release}" in pattern:
            yield Package(pattern.replace("{release}", kernel), "1.0-1", files=headers)
    if "dkms" in plan.prerequisites:
        yield Package("dkms", "99-1", files={"/usr/sbin/dkms": _program("dkms")})
    if "zstd" in plan.prerequisites:
        yield Package("zstd", "99-1")


def kernel_fields(module: str) -> dict[str, str]:
    """What modinfo shows of a module that is part of the kernel."""
    return {"license": "GPL and additional rights", "name": module, "depends": ""}


def _modules(plan: DriverPlan, version: str) -> Iterator[tuple[str, bytes]]:
    for module in plan.modules:
        yield f"{module.replace('_', '-')}.ko", kernel_module({**_nvidia_fields(plan, version), "name": module})


def _nvidia_fields(plan: DriverPlan, version: str, signer: str = "") -> dict[str, str]:
    licence = {"open": "Dual MIT/GPL", "proprietary": "NVIDIA"}.get(plan.flavour or "", "GPL and additional rights")
    return {"version": version, "license": licence, "depends": "", **({"signer": signer} if signer else {})}


def _files(plan: DriverPlan, name: str, version: str) -> Iterator[tuple[str, str | bytes]]:
    """What a package brings beside its name."""
    if plan.vendor == "nvidia" and name.startswith(("libnvidia-compute", "nvidia-driver-cuda")) and "libs" not in name:
        yield f"{_LIBRARIES}/libcuda.so.{version}", libcuda(version)
        yield "/usr/bin/nvidia-smi", _program("nvidia-smi")
        yield "/usr/bin/nvidia-modprobe", _program("nvidia-modprobe")
    if name == "nvidia-persistenced" or name.startswith("nvidia-compute-utils"):
        yield _unit("nvidia-persistenced", "/bin/sleep infinity")
    if name.startswith("nvidia-fabricmanager"):
        yield "/usr/bin/nv-fabricmanager", _program("nv-fabricmanager").replace("@VERSION@", version)
        yield _unit("nvidia-fabricmanager", "/usr/bin/nv-fabricmanager")
    if name in _INTEL:
        yield f"{_LIBRARIES}/{_INTEL[name]}", intel_compute(_INTEL[name])
    if name == "datacenter-gpu-manager-4-core":
        yield _unit("nvidia-dcgm", "/bin/sleep infinity")


def _unit(name: str, command: str) -> tuple[str, str]:
    return f"/usr/lib/systemd/system/{name}.service", _SERVICE.format(name=name, command=command)


def _program(name: str) -> str:
    return (STANDINS / name).read_text()
