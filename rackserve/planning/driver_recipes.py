"""Which of the catalogue's recipes and repositories a host needs. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.repository import DriverRecipe, Repository, ToolkitRecipe, UserModeRecipe
from rackserve.planning.stack import Stack
from rackserve.planning.stack_rules import numbers

PackageManager = Literal["apt", "dnf", "none"]
_FAMILIES: Mapping[str, PackageManager] = {"ubuntu": "apt", "debian": "apt", "rhel": "dnf", "rocky": "dnf"}
# Debian's words for a CPU, by `uname -m`. RPM's are the kernel's own.
_DEB_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_ENTRY = "an entry in a catalogue file of your own"


@dataclass(frozen=True, slots=True)
class PlannedRepository:
    """A repository as one host has it.

    architecture: the distribution's word (amd64). url: without placeholders. only: packages that are taken from it.
    """

    name: str
    format: Literal["deb", "rpm"]
    url: str
    suite: str
    components: tuple[str, ...]
    architecture: str
    key_url: str
    fingerprints: tuple[str, ...]
    key_sha256: str | None
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Target:
    """What is planned for. architecture: as `uname -m` prints it."""

    host: Host
    gpu: Gpu
    stack: Stack
    architecture: str
    catalog: Catalog

    @property
    def system(self) -> str:
        """As in "debian-12"."""
        return self.stack.os or ""

    def problem(self, message: str, hint: str = "") -> Problem:
        """A problem of this host's tag."""
        return Problem(message, host=self.host.name, key="gpu_tag", hint=hint)


@dataclass(frozen=True, slots=True)
class Recipes:
    """What the catalogue has for a host; None where nothing is needed."""

    driver: DriverRecipe | None = None
    user_mode: UserModeRecipe | None = None
    toolkit: ToolkitRecipe | None = None


def package_manager(system: str) -> PackageManager:
    """What installs packages on a system of the catalogue."""
    return _FAMILIES.get(system.partition("-")[0], "none")


def wants_toolkit(host: Host, stack: Stack) -> bool:
    """Whether a planned runtime runs in a container, or the operator's own containers are to see the GPUs."""
    return stack.vendor == "nvidia" and (stack.container_toolkit or bool(host.container_engines))


def wants_dcgm(host: Host, gpu: Gpu) -> bool:
    """NVIDIA's data-centre GPU manager: stated, else on the cards that are sold for data centres."""
    return gpu.data_centre if host.dcgm is None else host.dcgm


def find_recipes(target: Target, problems: list[Problem]) -> Recipes:
    """The recipes of a host; what the catalogue lacks is added to `problems`."""
    facts, stack, system = target.catalog.drivers, target.stack, target.system
    driver = next((entry for entry in facts.driver_recipes.values() if _suits(entry, target)), None)
    if driver is None and target.gpu.vendor != "none":
        what = " ".join(word for word in (stack.vendor, stack.driver_branch, stack.kernel_module) if word)
        problems.append(target.problem(f"the catalogue has no recipe for the driver ({what}) on {system}", _ENTRY))
    user_mode = toolkit = None
    # Intel's cards need it to compute at all; AMD's only where a runtime is linked to the host's ROCm.
    if stack.vendor == "intel" or stack.rocm_on_host:
        release = family(stack.rocm) if stack.vendor == "amd" else None
        fitting = [entry for entry in facts.user_mode_recipes.values() if entry.vendor == stack.vendor]
        user_mode = next((e for e in fitting if system in e.systems and e.release in {None, release}), None)
        if user_mode is None:
            message = f"the catalogue has no recipe for {stack.vendor}'s user-mode packages on {system}"
            problems.append(target.problem(message, _ENTRY))
    if wants_toolkit(target.host, stack):
        toolkit = next((entry for entry in facts.toolkit_recipes.values() if system in entry.systems), None)
        if toolkit is None:
            message = f"the catalogue has no recipe for NVIDIA's Container Toolkit on {system}"
            problems.append(target.problem(message, _ENTRY))
    return Recipes(driver, user_mode, toolkit)


def _suits(recipe: DriverRecipe, target: Target) -> bool:
    stack = target.stack
    branch = numbers(stack.driver_branch) if stack.driver_branch is not None else (0,)
    origin = "vendor" if stack.driver_source in {"nvidia", "amd"} else "distribution"
    return (
        recipe.vendor == stack.vendor
        and (stack.os or "") in recipe.systems
        and recipe.origin == origin
        and (not recipe.targets or target.gpu.target in recipe.targets)
        and recipe.flavour == stack.kernel_module
        and (recipe.first is None or numbers(recipe.first) <= branch)
        and (recipe.before is None or branch < numbers(recipe.before))
    )


def _repository_names(target: Target, recipes: Recipes) -> Iterator[str]:
    if recipes.driver is not None:
        yield from recipes.driver.repositories
        if target.stack.nvlsm or (recipes.driver.dcgm and wants_dcgm(target.host, target.gpu)):
            yield from recipes.driver.beside_repositories
    for recipe in (recipes.user_mode, recipes.toolkit):
        if recipe is not None:
            yield from recipe.repositories


def find_repositories(target: Target, recipes: Recipes, problems: list[Problem]) -> Iterator[PlannedRepository]:
    """The repositories of these recipes, each once; what the catalogue lacks is added to `problems`."""
    for name in dict.fromkeys(_repository_names(target, recipes)):
        named = [entry for entry in target.catalog.drivers.repositories.values() if entry.name == name]
        fitting = [entry for entry in named if target.system in entry.systems and _series(entry, target.stack)]
        if not fitting:
            problems.append(target.problem(f"the catalogue has no repository {name} for {target.system}", _ENTRY))
        elif target.architecture not in fitting[0].architectures:
            known = ", ".join(sorted(fitting[0].architectures))
            message = f"repository {name} has packages for {known}, and the host is {target.architecture}"
            problems.append(target.problem(message))
        else:
            yield _planned(fitting[0], target.architecture, target.host)


def named_repositories(
    names: tuple[str, ...], system: str, architecture: str, host: Host, catalog: Catalog
) -> tuple[PlannedRepository, ...]:
    """The repositories of these names for a system and a CPU, as far as the catalogue has them."""
    return tuple(
        _planned(entry, architecture, host)
        for name in names
        for entry in catalog.drivers.repositories.values()
        if entry.name == name and system in entry.systems and architecture in entry.architectures
    )


def _series(entry: Repository, stack: Stack) -> bool:
    return entry.series in {None, stack.driver_branch, stack.rocm}


def _planned(entry: Repository, architecture: str, host: Host) -> PlannedRepository:
    mirror = host.package_mirrors.get(entry.name)
    # A mirror keeps the vendor's layout below its own base URL, with the key beside it. The fingerprint stays ours.
    url = mirror or entry.url.replace("{arch}", entry.architectures[architecture])
    words = _DEB_ARCHITECTURES if entry.format == "deb" else {}
    return PlannedRepository(
        name=entry.name,
        format=entry.format,
        url=url,
        suite=entry.suite,
        components=entry.components,
        architecture=words.get(architecture, architecture),
        key_url=f"{mirror.rstrip('/')}/{entry.key_file}" if mirror else entry.key_url,
        fingerprints=entry.fingerprints,
        key_sha256=entry.key_sha256,
        only=entry.only,
    )


def family(rocm: str | None) -> str:
    """7.2.3 as 7.2: what ROCm's packages are named after; empty for none."""
    return ".".join(rocm.split(".")[:2]) if rocm else ""
