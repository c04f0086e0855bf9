"""The rules of a host's stack below its runtimes. Each yields all problems that it finds, none stops at the first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Gpu, Vendor
from rackserve.domain.stack import AmdDriver, Flavour, NvidiaDriver, StackFacts, SystemFacts

FLAVOURS: tuple[Flavour, ...] = ("open", "proprietary")
Driver = NvidiaDriver | AmdDriver


@dataclass(frozen=True, slots=True)
class StackRequest:
    """What a host's stack has to carry.

    gpus: the cards, each kind once or more often; empty for a host that serves from its own RAM.
    os: a system of the catalogue, or None where nobody stated it. kernel: as `uname -r` prints it, or None.
    runtimes: names with versions; None takes the newest version that suits the host.
    driver_branch, kernel_module: None leaves the choice to the catalogue's policy.
    allow_eol: take a driver branch that its vendor no longer supports, where it is named.
    secure_boot: whether the firmware demands signed modules; None where nobody stated it.
    images: runtimes that the host has a container image of its own for.
    """

    host: str
    gpus: tuple[Gpu, ...]
    os: str | None = None
    kernel: str | None = None
    runtimes: tuple[tuple[str, str | None], ...] = ()
    driver_branch: str | None = None
    kernel_module: Flavour | None = None
    allow_eol: bool = False
    secure_boot: bool | None = None
    images: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Wish:
    """A request next to what the catalogue knows of it.

    gpus: one card of each kind, all of one vendor. strangers: cards of other vendors. system, kernel: None where they
    are not known. kernel_package: what has to be installed for that kernel, empty for one that is there.
    host_rocm: the runtime that needs ROCm's user space on the host, empty where none does.
    pinned: wheels and images whose files the catalogue knows by their checksums: (install, runtime, version, backend).
    """

    request: StackRequest
    facts: StackFacts
    gpus: tuple[Gpu, ...]
    strangers: tuple[Gpu, ...]
    vendor: Vendor
    system: SystemFacts | None
    kernel: str | None
    kernel_package: str = ""
    host_rocm: str = ""
    pinned: frozenset[tuple[str, str, str, str]] = frozenset()

    def problem(self, message: str, key: str, hint: str = "") -> Problem:
        """A problem of this host."""
        return Problem(message, host=self.request.host, key=key, hint=hint)

    @property
    def cards(self) -> str:
        """Tags of the cards, for a message."""
        return ", ".join(gpu.tag for gpu in self.gpus) or "no GPU"


def wish_of(request: StackRequest, catalog: Catalog) -> Wish:
    """Look up what the request names. A tag without a GPU is no card."""
    cards = tuple({gpu.tag: gpu for gpu in request.gpus if gpu.vendor != "none"}.values())
    vendor: Vendor = cards[0].vendor if cards else "none"
    gpus = tuple(gpu for gpu in cards if gpu.vendor == vendor)
    strangers = tuple(gpu for gpu in cards if gpu.vendor != vendor)
    system = catalog.stacks.systems.get(request.os) if request.os is not None else None
    kernel, package = _kernel(request, gpus, system)
    return Wish(request, catalog.stacks, gpus, strangers, vendor, system, kernel, package, pinned=_pinned(catalog))


def _pinned(catalog: Catalog) -> frozenset[tuple[str, str, str, str]]:
    wheels = {("wheel", entry.runtime, entry.version, entry.backend) for entry in catalog.requirements.values()}
    images = {("image", entry.runtime, entry.version, entry.backend) for entry in catalog.images.values()}
    return frozenset(wheels | images)


def _kernel(request: StackRequest, gpus: tuple[Gpu, ...], system: SystemFacts | None) -> tuple[str | None, str]:
    """The kernel to plan with: the stated one, else the system's own, else its newer one where a card needs that."""
    if request.kernel is not None:
        return request.kernel, ""
    if system is None or system.kernel is None:
        return None, ""
    floors = [numbers(gpu.driver_min) for gpu in gpus if gpu.vendor == "intel" and gpu.driver_min is not None]
    floor = max(floors, default=(0,))
    if system.hwe_kernel is not None and numbers(system.kernel) < floor <= numbers(system.hwe_kernel):
        return system.hwe_kernel, system.hwe_package
    return system.kernel, ""


def numbers(version: str) -> tuple[int, ...]:
    """580.65.06 as (580, 65, 6), to be compared."""
    return tuple(int(part) for part in version.split("."))


def kernel_numbers(release: str) -> tuple[int, ...] | None:
    """6.8.0-151-generic as (6, 8, 0); None for what is no kernel release."""
    found = re.match(r"([0-9]{1,6})\.([0-9]{1,6})(?:\.([0-9]{1,6}))?", release, re.ASCII)
    return tuple(int(part) for part in found.groups() if part is not None) if found else None


def name_of(driver: Driver) -> str:
    """The branch or series."""
    return driver.branch if isinstance(driver, NvidiaDriver) else driver.series


def at_least(driver: Driver, floor: str) -> bool:
    """Whether the driver is not older than the floor; by its branch alone where no version of it was read."""
    if driver.version is not None:
        return numbers(driver.version) >= numbers(floor)
    branch = numbers(name_of(driver))
    return branch >= numbers(floor)[: len(branch)]


def capability_of(gpu: Gpu) -> tuple[int, int]:
    """Compute capability; 0.0 for what has none."""
    return gpu.compute_capability or (0, 0)


def request_problems(wish: Wish) -> Iterator[Problem]:
    """What is wrong whatever driver and runtimes are chosen."""
    request, facts = wish.request, wish.facts
    if request.os is not None and wish.system is None:
        known = f"one of {', '.join(sorted(facts.systems))}, or a [systems] entry in a catalogue file of your own"
        yield wish.problem(f"{request.os} is not a system of the catalogue", "os", known)
    if wish.kernel is not None and kernel_numbers(wish.kernel) is None:
        yield wish.problem(f"{wish.kernel!r} is no kernel release", "kernel", "as uname -r prints it")
    if wish.strangers:
        cards = ", ".join(f"{gpu.tag} is {gpu.vendor}" for gpu in (*wish.gpus, *wish.strangers))
        yield wish.problem(f"cards of several vendors in one host: {cards}", "gpu_tag", "one vendor for each host")
    if wish.gpus and wish.system is not None and (wish.vendor == "apple") != (wish.system.platform == "macos"):
        platform = "macos" if wish.vendor == "apple" else "linux"
        fit = sorted(name for name, entry in facts.systems.items() if entry.platform == platform)
        yield wish.problem(f"{wish.cards} cannot be used under {wish.system.name}", "os", f"one of {', '.join(fit)}")
    if request.driver_branch is not None and wish.vendor not in {"nvidia", "amd"}:
        message = f"driver branch {request.driver_branch} is asked for, and {wish.cards} takes no such driver"
        yield wish.problem(message, "driver_branch", "leave it out")
    if request.kernel_module is not None and wish.vendor != "nvidia":
        message = f"{request.kernel_module} kernel modules are asked for, and {wish.cards} is not NVIDIA's"
        yield wish.problem(message, "kernel_module", "leave it out")
    if wish.vendor == "intel":
        yield from _intel_problems(wish)


def _intel_problems(wish: Wish) -> Iterator[Problem]:
    kernel = kernel_numbers(wish.kernel) if wish.kernel is not None else None
    for gpu in wish.gpus:
        if gpu.driver_min is not None and kernel is not None and kernel < numbers(gpu.driver_min):
            message = f"{gpu.tag} needs Linux {gpu.driver_min} or newer for its xe driver, and this is {wish.kernel}"
            yield wish.problem(message, "kernel", _newer_kernel(wish, gpu.driver_min))
    if wish.system is not None and wish.system.platform == "linux" and not wish.system.intel_user_mode:
        fit = sorted(name for name, entry in wish.facts.systems.items() if entry.intel_user_mode)
        message = f"nobody packages Level Zero and OpenCL for {wish.cards} under {wish.system.name}"
        yield wish.problem(message, "os", f"one of {', '.join(fit)}")


def _newer_kernel(wish: Wish, floor: str) -> str:
    system = wish.system
    if system is not None and system.hwe_kernel is not None and numbers(system.hwe_kernel) >= numbers(floor):
        return f"install {system.hwe_package} ({system.hwe_kernel}) and boot it"
    return "a newer system"


def nvidia_problems(wish: Wish, driver: NvidiaDriver) -> Iterator[Problem]:
    """What stands against this branch on this host, whatever runs on it."""
    if not driver.supported and not wish.request.allow_eol:
        why = ", ".join(part for part in (f"since {driver.ends}" if driver.ends else "", driver.note) if part)
        message = f"NVIDIA no longer supports driver branch {driver.branch}{f' ({why})' if why else ''}"
        yield wish.problem(message, "driver_branch", f"{_choice(wish, wish.gpus)}, or allow_eol = true")
    for gpu in wish.gpus:
        if against := _against(driver, gpu):
            yield wish.problem(against, "driver_branch", _choice(wish, (gpu,)))
    if not flavours(wish, driver):
        yield _flavour_problem(wish, driver)
    if wish.system is not None and wish.system.platform == "linux":
        yield from _nvidia_source_problems(wish, wish.system, driver)


def _against(driver: NvidiaDriver, gpu: Gpu) -> str:
    """Why this branch does not drive this card; empty where it does."""
    capability, low, high = capability_of(gpu), driver.capability_min, driver.capability_max
    if capability < numbers(low) or (high is not None and capability > numbers(high)):
        span = f"{low} to {high}" if high is not None else f"{low} and up"
        return f"driver {driver.branch} is for compute capability {span}, and {gpu.tag} has {gpu.target}"
    if gpu.driver_min is not None and not at_least(driver, gpu.driver_min):
        return f"{gpu.tag} needs driver {gpu.driver_min} or newer, and this is {driver.branch}"
    return ""


def _choice(wish: Wish, gpus: tuple[Gpu, ...]) -> str:
    """The branches of the policy that drive these cards."""
    drivers = (wish.facts.nvidia_drivers.get(branch) for branch in wish.facts.stack_policy.nvidia_drivers)
    fit = [driver.branch for driver in drivers if driver and not any(_against(driver, gpu) for gpu in gpus)]
    return f"driver_branch {' or '.join(fit)}" if fit else f"no branch drives {', '.join(gpu.tag for gpu in gpus)}"


def card_flavours(wish: Wish, gpu: Gpu) -> tuple[Flavour, ...]:
    """Flavours of NVIDIA's kernel module that drive this card: what its tag says, within what its generation allows."""
    policy, capability = wish.facts.stack_policy, capability_of(gpu)
    barred = {"open": "proprietary", "proprietary": "open"}.get(gpu.kernel_module)
    fit = [flavour for flavour in FLAVOURS if flavour != barred]
    if policy.open_from is not None and capability < numbers(policy.open_from):
        fit = [flavour for flavour in fit if flavour != "open"]
    if policy.open_only_from is not None and capability >= numbers(policy.open_only_from):
        fit = [flavour for flavour in fit if flavour != "proprietary"]
    return tuple(fit)


def flavours(wish: Wish, driver: NvidiaDriver) -> tuple[Flavour, ...]:
    """Flavours that suit all cards, the branch and the request."""
    asked = wish.request.kernel_module
    return tuple(
        flavour
        for flavour in FLAVOURS
        if flavour in driver.kernel_modules
        and asked in {None, flavour}
        and all(flavour in card_flavours(wish, gpu) for gpu in wish.gpus)
    )


def _flavour_problem(wish: Wish, driver: NvidiaDriver) -> Problem:
    cards = [(gpu.tag, card_flavours(wish, gpu)) for gpu in wish.gpus]
    facts = [f"{tag} takes {' or '.join(fit) or 'neither'}" for tag, fit in cards]
    facts.append(f"driver {driver.branch} has {' or '.join(driver.kernel_modules)}")
    if wish.request.kernel_module is not None:
        facts.append(f"{wish.request.kernel_module} is asked for")
    shared = [flavour for flavour in FLAVOURS if all(flavour in fit for _, fit in cards)]
    hint = f"kernel_module {' or '.join(shared)}" if shared else "cards of these generations in hosts of their own"
    if shared and not set(shared) & set(driver.kernel_modules):
        hint = f"an older driver_branch, which still has {' or '.join(shared)} modules"
    return wish.problem(f"no flavour of the kernel module suits all: {', '.join(facts)}", "kernel_module", hint)


def nvidia_source(system: SystemFacts, driver: NvidiaDriver) -> str:
    """Where the branch comes from: `distribution` (signed modules), `nvidia` (built by DKMS); empty: from nowhere."""
    if driver.branch in system.nvidia_signed:
        return "distribution"
    first = system.nvidia_repo_first
    in_repo = system.nvidia_repo and (first is None or numbers(driver.branch) >= numbers(first))
    return "nvidia" if in_repo else ""


def _nvidia_source_problems(wish: Wish, system: SystemFacts, driver: NvidiaDriver) -> Iterator[Problem]:
    source = nvidia_source(system, driver)
    if not source:
        branches = wish.facts.nvidia_drivers.values()
        fit = [entry.branch for entry in branches if entry.supported and nvidia_source(system, entry)]
        hint = f"driver_branch {' or '.join(fit)}" if fit else "a system that NVIDIA packages its driver for"
        yield wish.problem(f"nobody packages driver {driver.branch} for {system.name}", "os", hint)
    elif source == "nvidia" and wish.request.secure_boot:
        signed = " or ".join(system.nvidia_signed)
        hint = "Secure Boot off, or a key of the host's own enrolled at its console"
        message = f"Secure Boot is on, and driver {driver.branch} for {system.name} is built by DKMS, unsigned"
        yield wish.problem(message, "secure_boot", f"driver_branch {signed}, or {hint}" if signed else hint)


def amd_problems(wish: Wish, driver: AmdDriver) -> Iterator[Problem]:
    """What stands against this release of amdgpu on this host, whatever runs on it."""
    system, kernel = wish.system, kernel_numbers(wish.kernel) if wish.kernel is not None else None
    if system is not None and system.platform == "linux" and system.amdgpu_suite not in driver.suites:
        fit = sorted(name for name, entry in wish.facts.systems.items() if entry.amdgpu_suite in driver.suites)
        message = f"AMD does not package amdgpu {driver.series} for {system.name}"
        yield wish.problem(message, "os", f"one of {', '.join(fit)}")
    if kernel is None:
        return
    low, high = numbers(driver.kernel_min), numbers(driver.kernel_max) if driver.kernel_max is not None else None
    if kernel < low or (high is not None and kernel[: len(high)] > high):
        span = f"{driver.kernel_min} to {driver.kernel_max}" if high is not None else f"{driver.kernel_min} and newer"
        message = f"amdgpu {driver.series} builds for Linux {span}, and this is {wish.kernel}"
        yield wish.problem(message, "kernel", "another kernel, or another amdgpu release as driver_branch")
