"""Solve one host's stack: operating system, driver, CUDA or ROCm and runtimes that go together, or why none do.

Everything is decided from the request and the catalogue; nothing is asked of the host. All conflicts are named at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Vendor
from rackserve.domain.stack import AmdDriver, Backend, Flavour, InstallKind, NvidiaDriver
from rackserve.planning.stack_builds import Chosen, choose
from rackserve.planning.stack_rules import (
    Driver,
    StackRequest,
    Wish,
    amd_problems,
    capability_of,
    flavours,
    name_of,
    numbers,
    nvidia_problems,
    nvidia_source,
    request_problems,
    wish_of,
)

__all__ = ["Stack", "StackRequest", "StackRuntime", "solve"]

Source = Literal["none", "distribution", "nvidia", "amd", "system", "unknown"]


@dataclass(frozen=True, slots=True)
class StackRuntime:
    """A runtime as it goes onto the host. python is set for wheels, cuda and rocm where the build was made with one."""

    version: str
    install: InstallKind
    backend: Backend
    cuda: str | None
    rocm: str | None
    torch: str | None
    python: str | None
    container_toolkit: bool


@dataclass(frozen=True, slots=True)
class Stack:
    """One consistent set.

    kernel: what was planned with: stated, or the system's own. kernel_package: to be installed and booted for it.
    driver_version: the newest of the branch that the catalogue has seen; a repository may have a newer one.
    driver_source: `distribution` for modules that it signs, `nvidia` and `amd` for the vendor's repository and DKMS,
        `system` for what comes with the operating system, `unknown` where the operating system was not stated.
    cuda: the newest CUDA among the runtimes. rocm: the newest ROCm among them, else the one that the driver came with.
    rocm_on_host: a runtime needs ROCm's user space installed; otherwise it is to be left off.
    fabric_manager: of exactly the driver's version. nvlsm: beside it, on boards with NVLink 5.
    runtimes: by name.
    reasons, warnings: one sentence each, for the plan.
    """

    host: str
    vendor: Vendor
    os: str | None
    kernel: str | None
    kernel_package: str
    driver_branch: str | None
    driver_version: str | None
    driver_source: Source
    kernel_module: Flavour | None
    cuda: str | None
    rocm: str | None
    rocm_on_host: bool
    container_toolkit: bool
    fabric_manager: bool
    nvlsm: bool
    runtimes: Mapping[str, StackRuntime]
    reasons: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What comes of one driver."""

    driver: Driver | None
    chosen: Mapping[str, Chosen]
    problems: tuple[Problem, ...]


def solve(request: StackRequest, catalog: Catalog) -> Stack | tuple[Problem, ...]:
    """The stack, or at least one problem; never an exception."""
    wish = wish_of(request, catalog)
    problems = [*request_problems(wish), *_repeated(wish)]
    attempts = [_attempt(wish, driver) for driver in _drivers(wish)]
    if not attempts:
        problems.append(_no_such_driver(wish))
        attempts = [_attempt(wish, None)]
    # The first that works, in the policy's order; where none does, the one that comes nearest.
    best = min(attempts, key=lambda attempt: len(attempt.problems))
    problems.extend(best.problems)
    return tuple(dict.fromkeys(problems)) if problems else _stack(wish, best)


def _repeated(wish: Wish) -> Iterator[Problem]:
    """One runtime in several versions: they would take each other's place."""
    asked: dict[str, list[str]] = {}
    for runtime, version in dict.fromkeys(wish.request.runtimes):
        asked.setdefault(runtime, []).append(version or "any version")
    for runtime, versions in asked.items():
        if len(versions) > 1:
            message = f"{runtime} is asked for in {len(versions)} versions on one host: {', '.join(versions)}"
            yield wish.problem(message, "runtime", "one version of a runtime for each host")


def _drivers(wish: Wish) -> list[Driver | None]:
    """Drivers to try, best first. One None where the cards' driver is part of the system; empty if there is none."""
    asked, policy, drivers = wish.request.driver_branch, wish.facts.stack_policy, _known_drivers(wish)
    if wish.vendor not in {"nvidia", "amd"}:
        return [None]
    order = policy.nvidia_drivers if wish.vendor == "nvidia" else policy.amd_drivers
    if asked is not None:
        return [drivers[asked]] if asked in drivers else []
    return [drivers[name] for name in order if name in drivers]


def _known_drivers(wish: Wish) -> Mapping[str, Driver]:
    return wish.facts.nvidia_drivers if wish.vendor == "nvidia" else wish.facts.amd_drivers


def _no_such_driver(wish: Wish) -> Problem:
    known = ", ".join(sorted(_known_drivers(wish), key=numbers))
    if wish.request.driver_branch is None:
        return wish.problem(
            f"the catalogue names no driver to choose for {wish.cards}", "driver_branch", f"one of {known}"
        )
    message = f"{wish.request.driver_branch} is no driver branch of the catalogue"
    section = f"{wish.vendor}_drivers"
    return wish.problem(
        message, "driver_branch", f"one of {known}, or a [{section}] entry in a catalogue file of your own"
    )


def _attempt(wish: Wish, driver: Driver | None) -> _Attempt:
    problems: list[Problem] = []
    if isinstance(driver, NvidiaDriver):
        problems.extend(nvidia_problems(wish, driver))
    elif driver is not None:
        problems.extend(amd_problems(wish, driver))
    chosen, against = _choose_all(wish, driver)
    needing = [name for name, entry in chosen.items() if entry.build.host_rocm == "needed"]
    if needing:
        # What one runtime installs bars builds of the others that would clash with it: choose once more, knowing that.
        chosen, against = _choose_all(replace(wish, host_rocm=needing[0]), driver)
    return _Attempt(driver, chosen, (*problems, *against))


def _choose_all(wish: Wish, driver: Driver | None) -> tuple[dict[str, Chosen], list[Problem]]:
    chosen: dict[str, Chosen] = {}
    problems: list[Problem] = []
    for runtime, version in wish.request.runtimes:
        outcome = choose(wish, driver, runtime, version)
        if isinstance(outcome, Chosen):
            chosen[runtime] = outcome
        else:
            problems.extend(outcome)
    return chosen, problems


def _stack(wish: Wish, attempt: _Attempt) -> Stack:
    driver = attempt.driver
    runtimes = {name: _runtime(chosen) for name, chosen in attempt.chosen.items()}
    fabric = wish.vendor == "nvidia" and any(gpu.nvswitch for gpu in wish.gpus)
    nvlsm_from = wish.facts.stack_policy.nvlsm_from
    module = flavours(wish, driver)[0] if isinstance(driver, NvidiaDriver) else None
    return Stack(
        host=wish.request.host,
        vendor=wish.vendor,
        os=wish.request.os,
        kernel=wish.kernel,
        kernel_package=wish.kernel_package,
        driver_branch=name_of(driver) if driver is not None else None,
        driver_version=driver.version if driver is not None else None,
        driver_source=_source(wish, driver),
        kernel_module=module,
        cuda=max((runtime.cuda for runtime in runtimes.values() if runtime.cuda), key=numbers, default=None),
        rocm=_rocm(driver, runtimes),
        rocm_on_host=any(chosen.build.host_rocm == "needed" for chosen in attempt.chosen.values()),
        container_toolkit=any(runtime.container_toolkit for runtime in runtimes.values()),
        fabric_manager=fabric,
        nvlsm=fabric
        and nvlsm_from is not None
        and any(gpu.nvswitch and capability_of(gpu) >= numbers(nvlsm_from) for gpu in wish.gpus),
        runtimes=runtimes,
        reasons=tuple(_reasons(wish, attempt, module)),
        warnings=tuple(dict.fromkeys(_warnings(wish, attempt))),
    )


def _runtime(chosen: Chosen) -> StackRuntime:
    build, versions = chosen.build, chosen.versions
    return StackRuntime(
        version=chosen.version,
        install=build.install,
        backend=build.backend,
        cuda=build.cuda,
        rocm=build.rocm,
        torch=versions.torch if build.install == "wheel" else None,
        python=(build.python or versions.python) if build.install == "wheel" else None,
        container_toolkit=build.container_toolkit,
    )


def _source(wish: Wish, driver: Driver | None) -> Source:
    if driver is None:
        return "system" if wish.gpus else "none"
    if isinstance(driver, AmdDriver):
        return "amd"
    if wish.system is None:
        return "unknown"
    return "distribution" if nvidia_source(wish.system, driver) == "distribution" else "nvidia"


def _rocm(driver: Driver | None, runtimes: Mapping[str, StackRuntime]) -> str | None:
    """The newest ROCm that a runtime was built with, else the one that the driver came out with."""
    newest = max((runtime.rocm for runtime in runtimes.values() if runtime.rocm), key=numbers, default=None)
    return newest or (driver.rocm if isinstance(driver, AmdDriver) else None)


def _reasons(wish: Wish, attempt: _Attempt, module: Flavour | None) -> Iterator[str]:
    if wish.kernel_package:
        yield f"Linux {wish.kernel} from {wish.kernel_package}: the system's own kernel is too old for {wish.cards}"
    if attempt.driver is not None:
        yield _driver_reason(wish, attempt.driver)
    elif wish.gpus:
        yield f"no driver to install: that of {wish.cards} is part of the operating system"
    else:
        yield "no driver: the host has no GPU"
    if module is not None:
        yield f"{module} kernel modules: {_module_reason(wish, module)}"
    if any(gpu.nvswitch for gpu in wish.gpus):
        yield "fabric manager of exactly the driver's version: the boards carry NVSwitches"
    for name, chosen in attempt.chosen.items():
        yield _runtime_reason(wish, name, chosen)


def _driver_reason(wish: Wish, driver: Driver) -> str:
    version = f" ({driver.version})" if driver.version not in {None, name_of(driver)} else ""
    if wish.request.driver_branch is not None:
        return f"driver {name_of(driver)}{version}: asked for"
    passed = [name_of(other) for other in _drivers(wish) if other is not None]
    passed = passed[: passed.index(name_of(driver))]
    if not passed:
        return f"driver {name_of(driver)}{version}: the first choice of the catalogue"
    return (
        f"driver {name_of(driver)}{version}: {', '.join(passed)} come first in the catalogue and do not suit this host"
    )


def _module_reason(wish: Wish, module: Flavour) -> str:
    if wish.request.kernel_module is not None:
        return "asked for"
    return "NVIDIA's default where the cards allow it" if module == "open" else "not all of the cards have open ones"


def _runtime_reason(wish: Wish, name: str, chosen: Chosen) -> str:
    build = chosen.build
    made_with = f" with CUDA {build.cuda}" if build.cuda else f" with ROCm {build.rocm}" if build.rocm else ""
    asked = (name, None) not in wish.request.runtimes
    why = "asked for" if asked else "the newest of the catalogue that suits this host"
    toolkit = ", in a container: needs the NVIDIA Container Toolkit" if build.container_toolkit else ""
    return f"{name} {chosen.version} ({build.install}, {build.backend}{made_with}): {why}{toolkit}"


def _warnings(wish: Wish, attempt: _Attempt) -> Iterator[str]:
    request, driver = wish.request, attempt.driver
    if request.os is None:
        yield "os not stated: nothing was checked against the operating system, its packages and its C library"
    if isinstance(driver, NvidiaDriver):
        if not driver.supported:
            yield f"driver {driver.branch} gets no security updates any more"
        if driver.note:
            yield f"driver {driver.branch}: {driver.note}"
        if _source(wish, driver) == "nvidia" and request.secure_boot is None:
            yield "secure boot not stated: where it is on, modules built by DKMS are not loaded"
    for name, chosen in attempt.chosen.items():
        if chosen.build.note:
            yield f"{name} {chosen.version}: {chosen.build.note}"
