"""What goes onto a host for its GPUs: repositories, packages, pins, modules and units, out of a solved stack.

Pure. What depends on the kernel that a host happens to have installed stays a pattern until `package_names` is given
the host's state (kernel_packages.py).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.stack import Flavour
from rackserve.planning.driver_recipes import (
    PackageManager,
    PlannedRepository,
    Recipes,
    Target,
    family,
    find_recipes,
    find_repositories,
    package_manager,
    wants_dcgm,
)
from rackserve.planning.stack import Stack
from rackserve.planning.stack_rules import numbers

__all__ = ["DriverPlan", "PlannedRepository", "plan_driver"]

# The first branch whose CUDA is 13: DCGM brings libraries for either.
_CUDA_13_FROM = "580"

# What checks the GPUs before every start of a service is Python, which a minimal Debian does not have.
_HELPERS = ("python3",)


@dataclass(frozen=True, slots=True)
class DriverPlan:
    """The driver of one host. Patterns may hold {release} and {suffix} of a kernel.

    gpu_ids: PCI ids that the tag stands for. vram_mib: of one card. secure: Secure Boot as the inventory states it.
    version: the driver's, exactly; None for the newest of the branch that the distribution has.
    prerequisites: packages that have to be there before the driver's. packages: the driver's, with what goes beside it.
    headers: needed for the kernels whose module is `built` on the host. signed_module: the package that has to exist
        for each kernel, where modules come ready-made.
    together: globs of the packages that are of one version: pinned, and upgraded by nobody else. apart: exceptions.
    rivals: globs of packages that must not be there.
    module: the kernel module that counts. modules: all to be loaded, in this order.
    units: to be enabled where their packages bring them.
    toolkit_packages: NVIDIA's Container Toolkit, of toolkit_version; toolkit_unit keeps its CDI specification fresh,
        with toolkit_environment.
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
    apart: tuple[str, ...]
    rivals: tuple[str, ...]
    module: str
    modules: tuple[str, ...]
    units: tuple[str, ...]
    dnf_module: str
    kernel_package: str
    toolkit_packages: tuple[str, ...]
    toolkit_version: str | None
    toolkit_unit: str
    toolkit_environment: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 over all of it: what the marker on the host names."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def summary(self) -> str:
        """What is planned, for the operator: "nvidia 580.178.04 open, built on the host, for 2 x l40s"."""
        number = self.version or self.branch or "of the system"
        made = "built on the host" if self.built else "signed by the distribution" if self.signed_module else ""
        what = ", ".join(word for word in (f"{self.module} {number} {self.flavour or ''}".strip(), made) if word)
        kernel = f" on the kernel of {self.kernel_package}" if self.kernel_package else ""
        return f"{what}{kernel}, for {self.gpu_count} x {self.gpu_tag}"

    @property
    def installs(self) -> bool:
        """Whether there is anything to install; not for hosts without a GPU, and not under macOS."""
        return bool(self.packages)


def plan_driver(
    host: Host, gpu: Gpu, stack: Stack, architecture: str, catalog: Catalog
) -> DriverPlan | tuple[Problem, ...]:
    """The plan of a host whose stack is solved for a stated system, or why there is none; never an exception.

    architecture: as `uname -m` prints it.
    """
    target = Target(host, gpu, stack, architecture, catalog)
    problems: list[Problem] = []
    recipes = find_recipes(target, problems) if package_manager(target.system) != "none" else Recipes()
    repositories = tuple(find_repositories(target, recipes, problems))
    return tuple(problems) or _plan(target, recipes, repositories)


def _plan(target: Target, recipes: Recipes, repositories: tuple[PlannedRepository, ...]) -> DriverPlan:
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
        prerequisites=(*_HELPERS, *driver.prerequisites) if driver else (),
        packages=tuple(dict.fromkeys(_packages(target, recipes))),
        headers=driver.headers if driver and driver.built else (),
        signed_module=_filled(driver.signed_module, stack) if driver else "",
        built=driver.built if driver else False,
        together=tuple(_filled(name, stack) for name in driver.together) if driver else (),
        apart=driver.apart if driver else (),
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
        toolkit_environment=toolkit.refresh_environment if toolkit else (),
    )


def _packages(target: Target, recipes: Recipes) -> Iterator[str]:
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
    return pattern.replace("{branch}", branch).replace("{cuda}", cuda).replace("{rocm}", family(stack.rocm))
