"""Which version of a runtime, and which build of it, suits a host and a driver."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from packaging.version import InvalidVersion, Version

from rackserve.domain.errors import Problem
from rackserve.domain.stack import NvidiaDriver, RuntimeBuild, RuntimeVersions
from rackserve.planning.stack_rules import Driver, Wish, amd_problems, at_least, capability_of, name_of, numbers


@dataclass(frozen=True, slots=True)
class Chosen:
    """A version of a runtime and its build, and what stands against them: nothing, where they can be taken."""

    version: str
    versions: RuntimeVersions
    build: RuntimeBuild
    problems: tuple[Problem, ...] = ()


def choose(wish: Wish, driver: Driver | None, runtime: str, version: str | None) -> Chosen | tuple[Problem, ...]:
    """The version that is asked for, else the newest that suits, or all problems of the best one.

    Of those that suit, the newest that can be installed as it is comes first: one that nobody has pinned takes an
    operator's own requirements or image.
    """
    known = [entry for entry in wish.facts.runtimes.values() if entry.runtime == runtime]
    if not known:
        names = ", ".join(sorted({entry.runtime for entry in wish.facts.runtimes.values()}))
        return (wish.problem(f"{runtime} is not a runtime of the catalogue", "runtime", f"one of {names}"),)
    ranges = _ranges(known, version)
    if not ranges:
        return (_unknown(wish, runtime, version, known),)
    outcomes = [_choose_build(wish, driver, entry, version) for entry in ranges]
    suitable = [outcome for outcome in outcomes if isinstance(outcome, Chosen) and not outcome.problems]
    if suitable:
        return next((outcome for outcome in suitable if _is_pinned(wish, outcome)), suitable[0])
    first = outcomes[0]
    problems = first.problems if isinstance(first, Chosen) else first
    return tuple(_with_way_out(wish, driver, problem) for problem in problems)


def _is_pinned(wish: Wish, chosen: Chosen) -> bool:
    """Whether its files are known by their checksums; other builds than wheels and images have pins of their own."""
    build = chosen.build
    pin = (build.install, chosen.versions.runtime, chosen.version, build.backend)
    return build.install not in {"wheel", "image"} or pin in wish.pinned


def _ranges(known: list[RuntimeVersions], version: str | None) -> list[RuntimeVersions]:
    """The ranges to look through, newest first: those that hold the version, else all that are released."""
    newest_first = sorted(known, key=lambda entry: Version(entry.pick), reverse=True)
    if version is not None:
        return [entry for entry in newest_first if _covers(entry, version)]
    return [entry for entry in newest_first if not entry.prerelease] or newest_first


def _covers(entry: RuntimeVersions, version: str) -> bool:
    if version in entry.also:
        return True
    try:
        # A release candidate belongs to the release it leads to.
        release = Version(Version(version).base_version)
    except InvalidVersion:
        return False
    return Version(entry.first) <= release < Version(entry.before)


def _unknown(wish: Wish, runtime: str, version: str | None, known: list[RuntimeVersions]) -> Problem:
    first = min((entry.first for entry in known), key=Version)
    before = max((entry.before for entry in known), key=Version)
    picks = ", ".join(sorted((entry.pick for entry in known), key=Version))
    message = f"{runtime} {version} is not in the catalogue, which knows {first} up to but not including {before}"
    return wish.problem(message, "runtime", f"{picks}, or a [runtimes] entry in a catalogue file of your own")


def _choose_build(
    wish: Wish, driver: Driver | None, versions: RuntimeVersions, version: str | None
) -> Chosen | tuple[Problem, ...]:
    """The first build without problems, else the one with the fewest; images first where the host has its own."""
    candidates = []
    for build in versions.builds:
        if build.vendor == wish.vendor and (version is None or build.version in {None, version}):
            exact = build.version or version or versions.pick
            against = tuple(_against(wish, driver, f"{versions.runtime} {exact}", build))
            candidates.append(Chosen(exact, versions, build, against))
    if candidates:
        own_image = versions.runtime in wish.request.images
        return min(candidates, key=lambda chosen: (len(chosen.problems), own_image and chosen.build.install != "image"))
    vendors = ", ".join(sorted({build.vendor for build in versions.builds} - {"none"}))
    message = f"{versions.runtime} {version or versions.pick} has no build for {wish.cards}: it is for {vendors}"
    return (wish.problem(message, "runtime"),)


def _with_way_out(wish: Wish, driver: Driver | None, problem: Problem) -> Problem:
    """Say what does run on this host, where the problem itself names nothing better."""
    if problem.hint:
        return problem
    newest: dict[str, str] = {}
    for entry in sorted(wish.facts.runtimes.values(), key=lambda entry: (entry.prerelease, Version(entry.pick))):
        chosen = _choose_build(wish, driver, entry, None)
        if isinstance(chosen, Chosen) and not chosen.problems and not entry.prerelease:
            newest[entry.runtime] = chosen.version
    runs = ", ".join(f"{runtime} {version}" for runtime, version in sorted(newest.items()))
    return wish.problem(problem.message, problem.key, f"what runs on this host: {runs}") if runs else problem


def _against(wish: Wish, driver: Driver | None, what: str, build: RuntimeBuild) -> Iterator[Problem]:
    """All that stands against this build on this host with this driver."""
    if build.host_rocm == "barred" and wish.host_rocm:
        yield wish.problem(f"{what} ({build.install}) must not meet the ROCm that {wish.host_rocm} needs", "runtime")
    for message in _system_conflicts(wish, build):
        yield wish.problem(f"{what} {message}", "runtime")
    for message in _card_conflicts(wish, build):
        yield wish.problem(f"{what} {message}", "runtime")
    if build.cuda is not None:
        yield from _cuda_problems(wish, driver, what, build.cuda)
    if build.rocm is not None and driver is not None and not isinstance(driver, NvidiaDriver):
        low, high = numbers(driver.rocm_min), numbers(driver.rocm_max)
        if not low <= numbers(build.rocm)[: len(low)] <= high:
            message = (
                f"{what} is built with ROCm {build.rocm}, and amdgpu {driver.series} carries ROCm {driver.rocm_min}"
            )
            yield wish.problem(f"{message} to {driver.rocm_max}", "driver_branch", _amd_choice(wish, build.rocm))
    if build.driver_min is not None and driver is not None and not at_least(driver, build.driver_min):
        message = f"{what} needs driver {build.driver_min} or newer, and this is {name_of(driver)}"
        yield wish.problem(message, "driver_branch", f"driver_branch {build.driver_min} or newer")


def _system_conflicts(wish: Wish, build: RuntimeBuild) -> Iterator[str]:
    system = wish.system
    if build.systems and (system is None or system.id not in build.systems):
        yield f"({build.install}) is for {', '.join(build.systems)} only"
    if system is None:
        return
    if system.platform != build.platform:
        yield f"({build.install}) is for {build.platform}, and the host has {system.name}"
    if build.glibc is not None and system.glibc is not None and numbers(system.glibc) < numbers(build.glibc):
        yield f"({build.install}) needs glibc {build.glibc} or newer, and {system.name} has {system.glibc}"
    if build.host_rocm == "needed" and build.rocm is not None:
        family = ".".join(build.rocm.split(".")[:2])
        release = wish.facts.rocm.get(family)
        if release is not None and system.id not in release.systems:
            yield f"needs ROCm {family} on the host, and AMD does not package it for {system.name}"


def _card_conflicts(wish: Wish, build: RuntimeBuild) -> Iterator[str]:
    low, high = build.capability_min, build.capability_max
    for gpu in wish.gpus:
        if build.targets and gpu.target not in build.targets:
            yield f"has kernels for {', '.join(build.targets)}, and {gpu.tag} is {gpu.target or 'of no stated target'}"
        if low is not None and capability_of(gpu) < numbers(low):
            yield f"has kernels for compute capability {low} and up, and {gpu.tag} has {gpu.target}"
        if high is not None and capability_of(gpu) > numbers(high):
            yield f"has kernels for compute capability up to {high}, and {gpu.tag} has {gpu.target}"


def _cuda_problems(wish: Wish, driver: Driver | None, what: str, cuda: str) -> Iterator[Problem]:
    family = cuda.partition(".")[0]
    known = wish.facts.cuda.get(family)
    if known is None:
        hint = f"a [cuda.{family}] entry in a catalogue file of your own"
        yield wish.problem(f"{what} needs CUDA {cuda}, which the catalogue does not know", "runtime", hint)
        return
    for gpu in wish.gpus:
        if known.capability_min is not None and capability_of(gpu) < numbers(known.capability_min):
            floor = f"{known.capability_min} and up"
            message = f"{what} is built with CUDA {cuda}, which is for compute capability {floor}"
            yield wish.problem(f"{message}, and {gpu.tag} has {gpu.target}", "runtime")
    if driver is not None and not at_least(driver, known.driver_min):
        version = f" ({driver.version})" if driver.version is not None else ""
        message = f"{what} is built with CUDA {cuda}, which needs driver {known.driver_min} or newer"
        hint = f"driver_branch {known.driver_min.partition('.')[0]} or newer"
        yield wish.problem(f"{message}, and this is {name_of(driver)}{version}", "driver_branch", hint)


def _amd_choice(wish: Wish, rocm: str) -> str:
    family = numbers(rocm)[:2]
    fit = [
        driver.series
        for driver in wish.facts.amd_drivers.values()
        if numbers(driver.rocm_min) <= family <= numbers(driver.rocm_max) and not any(amd_problems(wish, driver))
    ]
    return f"driver_branch {' or '.join(fit)}" if fit else ""
