"""What goes onto a host for its GPUs: repositories, packages, pins, modules and units, out of a solved stack.

Pure. What depends on the kernel that a host happens to have installed stays a pattern until `package_names` is given
the host's state (kernel_packages.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Literal

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.repository import DriverRecipe, Repository, ToolkitRecipe, UserModeRecipe
from rackserve.domain.stack import Flavour
from rackserve.planning.stack import Stack
from rackserve.planning.stack_rules import numbers

PackageManager = Literal["apt", "dnf", "none"]
_FAMILIES: Mapping[str, PackageManager] = {"ubuntu": "apt", "debian": "apt", "rhel": "dnf", "rocky": "dnf"}
# Debian's words for a CPU, by `uname -m`. RPM's are the kernel's own.
_DEB_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_ENTRY = "an entry in a catalogue file of your own"
# The first branch whose CUDA is 13: DCGM brings libraries for either.
_CUDA_13_FROM = "580"


@dataclass(frozen=True, slots=True)
class PlannedRepository:
    """A repository as one host has it. architecture: the distribution's word (amd64); url: without placeholders."""

    name: str
    format: Literal["deb", "rpm"]
    url: str
    suite: str
    components: tuple[str, ...]
    architecture: str
    key_url: str
    fingerprints: tuple[str, ...]
    key_sha256: str | None


@dataclass(frozen=True, slots=True)
class DriverPlan:
    """The driver of one host. Patterns may hold {release} and {suffix} of a kernel.

    gpu_ids: PCI ids that the tag stands for. vram_mib: of one card. secure: Secure Boot as the inventory states it.
    version: the driver's, exactly; None for the newest of the branch that the distribution has.
    prerequisites: packages that have to be there before the driver's. packages: the driver's, with what goes beside it.
    headers: needed for the kernels whose module is `built` on the host. signed_module: the package that has to exist
        for each kernel, where modules come ready-made.
    together: globs of the packages that are of one version: pinned, and upgraded by nobody else.
    rivals: globs of packages that must not be there.
    module: the kernel module that counts. modules: all to be loaded, in this order.
    units: to be enabled where their packages bring them.
    toolkit_packages: NVIDIA's Container Toolkit, of toolkit_version; toolkit_unit keeps its CDI specification fresh.
    kernel_package: brings a kernel that the cards need and the system does not boot by itself.
    """

    host: str
    vendor: str
    system: str
    package_manager: PackageManager
    gpu_tag: str
    gpu_ids: tuple[str, ...]
    gpu_count: int
    vram_mib: int
    branch: str | None
    version: str | None
    flavour: Flavour | None
    fabric: bool
    repositories: tuple[PlannedRepository, ...]
    prerequisites: tuple[str, ...]
    packages: tuple[str, ...]
    headers: tuple[str, ...]
    signed_module: str
    built: bool
    together: tuple[str, ...]
    rivals: tuple[str, ...]
    module: str
    modules: tuple[str, ...]
    units: tuple[str, ...]
    dnf_module: str
    kernel_package: str
    toolkit_packages: tuple[str, ...]
    toolkit_version: str | None
    toolkit_unit: str

    @property
    def digest(self) -> str:
        """SHA-256 over all of it: what the marker on the host names."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def installs(self) -> bool:
        """Whether there is anything to install; not for hosts without a GPU, and not under macOS."""
        return bool(self.packages)


@dataclass(frozen=True, slots=True)
class _Target:
    """What is planned for. architecture: as `uname -m` prints it."""

    host: Host
    gpu: Gpu
    stack: Stack
    architecture: str
    catalog: Catalog

    @property
    def system(self) -> str:
        return self.stack.os or ""

    def problem(self, message: str, hint: str = "") -> Problem:
        return Problem(message, host=self.host.name, key="gpu_tag", hint=hint)


@dataclass(frozen=True, slots=True)
class _Recipes:
    """What the catalogue has for a host; None where nothing is needed."""

    driver: DriverRecipe | None = None
    user_mode: UserModeRecipe | None = None
    toolkit: ToolkitRecipe | None = None


def package_manager(system: str) -> PackageManager:
    """What installs packages on a system of the catalogue."""
    return _FAMILIES.get(system.partition("-")[0], "none")


def plan_driver(
    host: Host, gpu: Gpu, stack: Stack, architecture: str, catalog: Catalog
) -> DriverPlan | tuple[Problem, ...]:
    """The plan of a host whose stack is solved for a stated system, or why there is none; never an exception.

    architecture: as `uname -m` prints it.
    """
    target = _Target(host, gpu, stack, architecture, catalog)
    problems: list[Problem] = []
    recipes = _recipes(target, problems) if package_manager(target.system) != "none" else _Recipes()
    repositories = tuple(_repositories(target, recipes, problems))
    return tuple(problems) or _plan(target, recipes, repositories)


def wants_toolkit(host: Host, stack: Stack) -> bool:
    """Whether a planned runtime runs in a container, or the operator's own containers are to see the GPUs."""
    return stack.vendor == "nvidia" and (stack.container_toolkit or bool(host.container_engines))


def wants_dcgm(host: Host, gpu: Gpu) -> bool:
    """NVIDIA's data-centre GPU manager: stated, else on the cards that are sold for data centres."""
    return gpu.data_centre if host.dcgm is None else host.dcgm


def _recipes(target: _Target, problems: list[Problem]) -> _Recipes:
    facts, stack, system = target.catalog.drivers, target.stack, target.system
    driver = next((entry for entry in facts.driver_recipes.values() if _suits(entry, stack)), None)
    if driver is None and target.gpu.vendor != "none":
        what = " ".join(word for word in (stack.vendor, stack.driver_branch, stack.kernel_module) if word)
        problems.append(target.problem(f"the catalogue has no recipe for the driver ({what}) on {system}", _ENTRY))
    user_mode = toolkit = None
    # Intel's cards need it to compute at all; AMD's only where a runtime is linked to the host's ROCm.
    if stack.vendor == "intel" or stack.rocm_on_host:
        release = _family(stack.rocm) if stack.vendor == "amd" else None
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
    return _Recipes(driver, user_mode, toolkit)


def _suits(recipe: DriverRecipe, stack: Stack) -> bool:
    branch = numbers(stack.driver_branch) if stack.driver_branch is not None else (0,)
    origin = "vendor" if stack.driver_source in {"nvidia", "amd"} else "distribution"
    return (
        recipe.vendor == stack.vendor
        and (stack.os or "") in recipe.systems
        and recipe.origin == origin
        and recipe.flavour == stack.kernel_module
        and (recipe.first is None or numbers(recipe.first) <= branch)
        and (recipe.before is None or branch < numbers(recipe.before))
    )


def _repository_names(target: _Target, recipes: _Recipes) -> Iterator[str]:
    if recipes.driver is not None:
        yield from recipes.driver.repositories
        if wants_dcgm(target.host, target.gpu) and recipes.driver.dcgm:
            yield from recipes.driver.dcgm_repositories
    for recipe in (recipes.user_mode, recipes.toolkit):
        if recipe is not None:
            yield from recipe.repositories


def _repositories(target: _Target, recipes: _Recipes, problems: list[Problem]) -> Iterator[PlannedRepository]:
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
    )


def _plan(target: _Target, recipes: _Recipes, repositories: tuple[PlannedRepository, ...]) -> DriverPlan:
    host, gpu, stack, driver, toolkit = target.host, target.gpu, target.stack, recipes.driver, recipes.toolkit
    # Ubuntu's archive keeps only the newest of a branch, so an exact version is nothing to plan for there.
    exact = stack.driver_version if driver is not None and driver.origin == "vendor" else None
    version = host.driver_version or exact
    return DriverPlan(
        host=host.name,
        vendor=stack.vendor,
        system=stack.os or "",
        package_manager=package_manager(stack.os or ""),
        gpu_tag=gpu.tag,
        gpu_ids=gpu.pci_ids,
        gpu_count=host.gpu_count if gpu.vendor != "none" else 0,
        vram_mib=gpu.vram_mib,
        branch=stack.driver_branch,
        version=version,
        flavour=stack.kernel_module,
        fabric=stack.fabric_manager,
        repositories=repositories,
        prerequisites=driver.prerequisites if driver else (),
        packages=tuple(dict.fromkeys(_packages(target, recipes))),
        headers=driver.headers if driver and driver.built else (),
        signed_module=_filled(driver.signed_module, stack) if driver else "",
        built=driver.built if driver else False,
        together=tuple(_filled(name, stack) for name in driver.together) if driver else (),
        rivals=tuple(_filled(name, stack) for name in driver.rivals) if driver else (),
        module=driver.module if driver else "",
        modules=driver.modules if driver else (),
        units=(*driver.units, *(driver.fabric_units if stack.fabric_manager else ())) if driver else (),
        dnf_module=_filled(driver.dnf_module, stack) if driver else "",
        kernel_package=stack.kernel_package,
        toolkit_packages=(*toolkit.packages, *(toolkit.hook_packages if host.container_engines else ()))
        if toolkit
        else (),
        toolkit_version=toolkit.version if toolkit else None,
        toolkit_unit=toolkit.refresh_unit if toolkit else "",
    )


def _packages(target: _Target, recipes: _Recipes) -> Iterator[str]:
    driver, stack = recipes.driver, target.stack
    names = [stack.kernel_package] if stack.kernel_package else []
    if driver is not None:
        names += driver.packages
        names += driver.fabric if stack.fabric_manager else ()
        names += driver.nvlsm if stack.nvlsm else ()
        names += driver.dcgm if wants_dcgm(target.host, target.gpu) else ()
    if recipes.user_mode is not None:
        names += [*recipes.user_mode.packages, *recipes.user_mode.firmware]
    for name in names:
        yield _filled(name, stack)


def _filled(pattern: str, stack: Stack) -> str:
    """The stack's own words in a pattern; those of a kernel stay for later."""
    branch = stack.driver_branch or ""
    cuda = "13" if branch and numbers(branch) >= numbers(_CUDA_13_FROM) else "12"
    return pattern.replace("{branch}", branch).replace("{cuda}", cuda).replace("{rocm}", _family(stack.rocm))


def _family(rocm: str | None) -> str:
    return ".".join(rocm.split(".")[:2]) if rocm else ""
