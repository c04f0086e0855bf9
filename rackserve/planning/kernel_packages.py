"""Names of packages that depend on the kernels a host has: metapackages, headers, ready-made modules. Pure."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable

from rackserve.domain.gpu_state import GpuState
from rackserve.planning.driver_plan import DriverPlan

_IMAGE = "linux-image-"


def kernel_suffix(state: GpuState) -> str:
    """What the installed kernel's metapackage ends in (generic, generic-hwe-24.04, aws, amd64), empty for none.

    A host that boots a kernel without its metapackage gets no new kernels by itself, so it needs none of their modules.
    """
    metas = {name.removeprefix(_IMAGE) for name in state.packages if name.startswith(_IMAGE)}
    booted = {name for name in metas if state.kernel.endswith(f"-{name.partition('-hwe-')[0]}")}
    # The longest: cloud-amd64 before amd64, and a host with the HWE metapackage boots its kernel.
    return max(booted, key=len, default="")


def kernels_to_cover(state: GpuState) -> tuple[str, ...]:
    """The running kernel and the one that boots next: a module is needed for both."""
    return tuple(dict.fromkeys(kernel for kernel in (state.kernel, state.next_kernel) if kernel))


def package_names(plan: DriverPlan, state: GpuState) -> tuple[str, ...]:
    """Every package that the host has to have, in its own kernel's words."""
    names = [*plan.prerequisites, *_headers(plan, state), *plan.packages]
    suffix = kernel_suffix(state)
    filled: list[str] = []
    for name in names:
        if "{suffix}" in name and plan.signed_module:
            # The metapackage brings the newest kernel's module, which is often neither of the two that are needed now.
            filled += [plan.signed_module.replace("{release}", kernel) for kernel in kernels_to_cover(state)]
        if "{suffix}" not in name or suffix:
            filled.append(name.replace("{suffix}", suffix))
    return tuple(dict.fromkeys(filled))


def _headers(plan: DriverPlan, state: GpuState) -> Iterable[str]:
    """Headers of both kernels, and where the kernel has a metapackage, that of its headers for all that will come."""
    suffix = kernel_suffix(state)
    for pattern in plan.headers:
        if "{suffix}" in pattern:
            if suffix:
                yield pattern
            continue
        for kernel in kernels_to_cover(state):
            if kernel not in state.headers:
                yield pattern.replace("{release}", kernel)


def asked_for(plan: DriverPlan) -> list[str]:
    """Patterns whose candidates decide whether both kernels can be covered."""
    return [pattern for pattern in (*plan.headers, plan.signed_module) if "{release}" in pattern]


def of_the_driver(plan: DriverPlan, name: str) -> bool:
    """Whether a package is one of those that are of one version."""
    return matches_any(name, plan.together) and not matches_any(name, plan.apart)


def matches_any(name: str, patterns: Iterable[str]) -> bool:
    """Whether a package's name matches one of the globs."""
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
