"""Judge a package transaction by its simulation, before anything on the host is changed. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from rackserve.planning.driver_plan import DriverPlan
from rackserve.planning.kernel_packages import of_the_driver

_MIB = 1024**2
# On top of what the package manager says: DKMS compiles in /var, and a new initramfs is written beside the old one.
_SPARE_MIB = 512
_NAMED = 8


@dataclass(frozen=True, slots=True)
class SimulatedTransaction:
    """What a package manager would do.

    installs: versions of new packages by name. upgrades: new versions of those that are there, also older ones.
    replaced: their versions now. removals: names. installed: versions of the driver's packages as they are now.
    candidates: versions that the repositories have, by name. error: why there is no solution, in the package manager's
    words. download_bytes, disk_bytes: None where it did not say.
    """

    installs: Mapping[str, str] = field(default_factory=dict)
    upgrades: Mapping[str, str] = field(default_factory=dict)
    replaced: Mapping[str, str] = field(default_factory=dict)
    removals: tuple[str, ...] = ()
    installed: Mapping[str, str] = field(default_factory=dict)
    candidates: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    error: str = ""
    download_bytes: int | None = None
    disk_bytes: int | None = None

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.installs or self.upgrades or self.removals)


def upstream(version: str) -> str:
    """The vendor's part of a package's version: without the epoch and the distribution's revision."""
    return re.sub(r"^\d+:", "", version).rpartition("-")[0] or re.sub(r"^\d+:", "", version)


def has_stated_version(plan: DriverPlan, name: str) -> bool:
    """Whether the plan states which version a package is to have."""
    return plan.version is not None and _numbered_alike(plan) and _of_the_driver(plan, name)


def is_of_version(plan: DriverPlan, name: str, version: str) -> bool:
    """Whether a package has the planned version, or needs none."""
    return not has_stated_version(plan, name) or upstream(version) == plan.version


def transaction_problems(
    simulation: SimulatedTransaction, plan: DriverPlan, free_mib: Mapping[str, int]
) -> tuple[str, ...]:
    """Why this transaction must not be run, each a line for the operator. free_mib: free space by mount point."""
    if simulation.error:
        return (f"the driver's packages cannot be installed: {simulation.error}", *_missing(simulation, plan))
    return (*_removals(simulation, plan), *_versions(simulation, plan), *_space(simulation, free_mib))


def _numbered_alike(plan: DriverPlan) -> bool:
    # AMD's module and its firmware carry numbers of their own; each of its repositories holds one series instead.
    return plan.vendor == "nvidia"


def _of_the_driver(plan: DriverPlan, name: str) -> bool:
    # apt names a library for another architecture with it, as in libcuda1:i386.
    return of_the_driver(plan, name.partition(":")[0])


def _missing(simulation: SimulatedTransaction, plan: DriverPlan) -> Iterator[str]:
    """Where the wanted version is not among those that the repositories have, that is the reason behind the error."""
    for name, versions in sorted(simulation.candidates.items()):
        if has_stated_version(plan, name) and plan.version not in tuple(map(upstream, versions)):
            yield f"{name} is wanted in version {plan.version}{_offered(simulation, name)}"


def _removals(simulation: SimulatedTransaction, plan: DriverPlan) -> Iterator[str]:
    others = [name for name in simulation.removals if not _of_the_driver(plan, name)]
    if others:
        yield (
            f"installing the driver would remove {_listed(others)}, and these are not the driver's: "
            "remove them yourself if nothing needs them, then run again"
        )


def _versions(simulation: SimulatedTransaction, plan: DriverPlan) -> Iterator[str]:
    if not _numbered_alike(plan):
        return
    kept = {name: version for name, version in simulation.installed.items() if name not in simulation.removals}
    after = {**kept, **simulation.installs, **simulation.upgrades}
    after = {name: upstream(version) for name, version in after.items() if _of_the_driver(plan, name)}
    if plan.version is not None:
        for name, version in sorted(after.items()):
            if version != plan.version:
                yield f"{name} would be of version {version}, planned is {plan.version}{_offered(simulation, name)}"
    elif len(set(after.values())) > 1:
        found = [
            f"{version} ({_listed([name for name in sorted(after) if after[name] == version])})"
            for version in sorted(set(after.values()))
        ]
        yield (
            f"the driver's packages would be of several versions, and have to be of one: {', '.join(found)}; "
            "state driver_version, or wait until the repository has all of them in one"
        )


def _offered(simulation: SimulatedTransaction, name: str) -> str:
    versions = simulation.candidates.get(name, ())
    return f"; the repositories have {_listed(versions)}" if versions else ""


def _space(simulation: SimulatedTransaction, free_mib: Mapping[str, int]) -> Iterator[str]:
    """Packages are fetched to /var and unpacked to /; both need it where they are one file system."""
    download = -(-(simulation.download_bytes or 0) // _MIB)
    disk = max(0, -(-(simulation.disk_bytes or 0) // _MIB))
    if not simulation.changes or "/" not in free_mib:
        return
    one = free_mib.get("/var", free_mib["/"]) == free_mib["/"]
    needed = {"/": disk + download + _SPARE_MIB} if one else {"/": disk + _SPARE_MIB, "/var": download + _SPARE_MIB}
    for mount, mib in needed.items():
        if free_mib[mount] < mib:
            yield (
                f"{mount} has {free_mib[mount]} MiB free, {mib} MiB are needed: {download} MiB to fetch, {disk} MiB "
                f"unpacked, {_SPARE_MIB} MiB for building modules and an initramfs"
            )


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    more = f" and {len(every) - _NAMED} more" if len(every) > _NAMED else ""
    return ", ".join(every[:_NAMED]) + more


def toolkit_problems(simulation: SimulatedTransaction, plan: DriverPlan) -> tuple[str, ...]:
    """Why the Container Toolkit's transaction must not be run, each a line for the operator."""
    if simulation.error:
        return (f"the Container Toolkit cannot be installed: {simulation.error}",)
    problems = []
    if simulation.removals:
        removed = _listed(simulation.removals)
        problems.append(
            f"installing the Container Toolkit would remove {removed}: remove them yourself if nothing needs them"
        )
    after = {**simulation.installed, **simulation.installs, **simulation.upgrades}
    problems += [
        f"{name} would be of version {after.get(name, 'none')}, planned is {plan.toolkit_version}"
        f"{_offered(simulation, name)}"
        for name in plan.toolkit_packages
        if upstream(after.get(name, "")) != plan.toolkit_version
    ]
    return tuple(problems)
