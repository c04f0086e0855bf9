"""Text files of a host's driver: pins, guards against upgrades, modules, and what checks the GPUs at every start."""

from __future__ import annotations

import json
import plistlib
import re

from rackserve.planning.driver_plan import DriverPlan
from rackserve.rendering.repositories import repository_file
from rackserve.rendering.text import LIBEXEC, TEMPLATES, UNIT_FOLDER, RenderedFile, program, template_text

PREFERENCES = "/etc/apt/preferences.d/10-rackserve-driver"
UNATTENDED = "/etc/apt/apt.conf.d/52rackserve-unattended"
MODPROBE = "/etc/modprobe.d/rackserve-gpu.conf"
MODULES_LOAD = "/etc/modules-load.d/rackserve-gpu.conf"
EXPECTED = "/etc/rackserve/gpus.json"
GPU_READY = f"{LIBEXEC}/gpu-ready"
GPU_READY_UNIT = f"{UNIT_FOLDER}/gpu-ready.service"
GPU_DROP_IN = f"{UNIT_FOLDER}/rackserve@.service.d/05-gpu.conf"
MEMORY_DAEMON = "io.rackserve.gpu-memory"
MEMORY_PLIST = f"/Library/LaunchDaemons/{MEMORY_DAEMON}.plist"
# Not the toolkit's own environment file, which is the operator's, and which wins over this.
CDI_DROP_IN = f"{UNIT_FOLDER}/nvidia-cdi-refresh.service.d/10-rackserve.conf"
# Who may open /dev/kfd and render nodes; NVIDIA's nodes are open to all, and fenced off by each service's unit.
GROUPS = {"amd": ("render", "video"), "intel": ("render",)}
# What asks the vendor's own interface of the cards, on behalf of gpu-ready.
_ASKING = {"nvidia": "ask-cuda", "intel": "ask-intel"}
_HEADER = "# Written by rackserve; changes here are overwritten by the next run."
# Kernels and their modules move together or not at all.
_KERNELS = ("linux-image-*", "linux-headers-*", "linux-modules-*", "linux-generic*", "linux-objects-nvidia-*")


def all_files(plan: DriverPlan) -> tuple[RenderedFile, ...]:
    """Every text file that a host gets for its GPUs."""
    sources = (repository_file(planned) for planned in plan.repositories)
    return (*sources, *pin_files(plan), *driver_files(plan), *toolkit_files(plan))


def pin_files(plan: DriverPlan) -> tuple[RenderedFile, ...]:
    """What has to be there before packages are installed, on hosts with apt; dnf locks versions with a command."""
    if plan.package_manager != "apt" or not plan.installs:
        return ()
    pins = template_text(
        "apt/10-rackserve-driver.j2",
        together=plan.together,
        version=plan.version if plan.together else None,
        toolkit=plan.toolkit_version if plan.toolkit_packages else None,
        beside=not plan.built and any(entry.name == "nvidia-cuda" for entry in plan.repositories),
    )
    guard = template_text(
        "apt/52rackserve-unattended.j2", patterns=[_regex(name) for name in (*plan.together, *_KERNELS)]
    )
    return RenderedFile(PREFERENCES, pins), RenderedFile(UNATTENDED, guard)


def driver_files(plan: DriverPlan) -> tuple[RenderedFile, ...]:
    """What loads the driver at boot and checks it before any service starts; after the packages are there."""
    if not plan.modules:
        return ()
    modules = "".join(f"{module}\n" for module in plan.modules)
    files = [
        RenderedFile(MODULES_LOAD, f"{_HEADER}\n{modules}"),
        RenderedFile(EXPECTED, expected_text(plan)),
        program("gpu-ready"),
        program("rackserve_gpus.py"),
        RenderedFile(GPU_READY_UNIT, (TEMPLATES / "systemd" / "gpu-ready.service").read_text(encoding="utf-8")),
        RenderedFile(GPU_DROP_IN, template_text("systemd/05-gpu.conf.j2", groups=GROUPS.get(plan.vendor, ()))),
    ]
    if plan.vendor == "nvidia":
        nouveau = (TEMPLATES / "modprobe" / "rackserve-gpu.conf").read_text(encoding="utf-8")
        files.append(RenderedFile(MODPROBE, nouveau))
    if plan.vendor in _ASKING:
        files.append(program(_ASKING[plan.vendor]))
    return tuple(sorted(files, key=lambda file: file.path))


def toolkit_files(plan: DriverPlan) -> tuple[RenderedFile, ...]:
    """Settings of the unit that writes the CDI specification."""
    if not plan.toolkit_environment:
        return ()
    lines = "".join(f"Environment={entry}\n" for entry in plan.toolkit_environment)
    return (RenderedFile(CDI_DROP_IN, f"{_HEADER}\n[Service]\n{lines}"),)


def expected_text(plan: DriverPlan) -> str:
    """What gpu-ready compares the host with."""
    expected = {
        "vendor": plan.vendor,
        "tag": plan.gpu_tag,
        "pci_ids": list(plan.gpu_ids),
        "count": plan.gpu_count,
        "vram_mib": plan.vram_mib,
        "modules": list(plan.modules),
        "branch": plan.branch,
        "flavour": plan.flavour,
        "fabric": plan.fabric,
    }
    return json.dumps(expected, indent=2) + "\n"


def memory_plist(limit_mib: int) -> str:
    """The launchd job that sets how much memory an Apple GPU may wire down, in MiB; a boot forgets the setting."""
    job = {
        "Label": MEMORY_DAEMON,
        "ProgramArguments": ["/usr/sbin/sysctl", f"iogpu.wired_limit_mb={limit_mib}"],
        "RunAtLoad": True,
    }
    return plistlib.dumps(job).decode()


def _regex(glob: str) -> str:
    """A glob as unattended-upgrades wants it: a regular expression that is matched from the name's beginning."""
    return "^" + re.escape(glob).replace(r"\*", ".*").replace(r"\-", "-") + "$"
