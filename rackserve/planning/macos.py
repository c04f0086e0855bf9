"""Services on Apple's machines: which plans launchd is to run, and what stands against them there. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from rackserve.catalog.loader import Catalog
from rackserve.domain.gpu import Gpu
from rackserve.domain.host import Host
from rackserve.domain.node import Node
from rackserve.planning.plans import LLAMACPP, GpuServicePlan, HostPlan
from rackserve.runtimes.archives import ArchiveRelease, Wanted, archive_release
from rackserve.runtimes.launch import CURRENT
from rackserve.runtimes.llamacpp_origins import FromArchive, Origin

MODELS_DIR = "/opt/models"
# The system's volume is read-only, and this is what macOS puts in its place from the one for data.
# Source: /usr/share/firmlinks of macOS.
_WRITABLE = ("/Library", "/Users", "/Volumes", "/opt", "/private/var", "/usr/local", "/var")
# Names of launchd jobs of ours that are no service's.
OTHER_JOBS = ("gpu-memory",)
_ANYWHERE = "0.0.0.0/0"


@dataclass(frozen=True, slots=True)
class MacRelease:
    """An archive of a runtime, and where it goes.

    checksum: SHA-256 or SHA-512, as its length tells. size_bytes: 0 where it is not known. name: of its folder.
    program: its path in there. link: what leads to the one in use.
    """

    url: str
    checksum: str
    size_bytes: int
    name: str
    program: str
    link: str


def is_mac(plan: HostPlan) -> bool:
    """Whether its services run under launchd: a tag of Apple's that is not pretended."""
    return plan.gpu.vendor == "apple" and not plan.host.gpu_simulated


def on_mac(host: Host, gpu: Gpu) -> Host:
    """The host with a place for models that macOS lets be made, unless the inventory states one."""
    if gpu.vendor != "apple" or host.gpu_simulated or "models_dir" in host.model_fields_set:
        return host
    return host.model_copy(update={"models_dir": MODELS_DIR})


def mac_problems(plan: HostPlan) -> list[str]:
    """Everything that keeps the plan from a Mac, one sentence each; empty when it may go on."""
    problems = [sentence for service in plan.gpu_services for sentence in _service_problems(service)]
    folder = f"{plan.host.models_dir}/"
    if plan.gpu_services and not any(folder.startswith(f"{writable}/") for writable in _WRITABLE):
        problems.append(
            f"models_dir {plan.host.models_dir}: macOS keeps the folder / read-only; set models_dir = {MODELS_DIR!r}, "
            f"or another one below {', '.join(_WRITABLE)}"
        )
    return problems


def _service_problems(plan: GpuServicePlan) -> Iterator[str]:
    name, service = plan.name, plan.service
    if name in OTHER_JOBS:
        yield f"{name}: io.rackserve.{name} is a launchd job of rackserve's own; give the service another name"
    if service.listen != "127.0.0.1" and _ANYWHERE not in service.allow_from:
        yield (
            f"{name}: listen {service.listen}: launchd filters no networks, so allow_from cannot be kept; listen on "
            f"127.0.0.1 behind a gateway, or say allow_from = [{_ANYWHERE!r}] if everybody may reach the port"
        )


def mac_releases(
    plan: HostPlan, catalog: Catalog, node: Node, llamacpp: Origin | str
) -> tuple[tuple[MacRelease, ...], tuple[str, ...]]:
    """What has to be installed for the services, and why the rest of it cannot be. llamacpp: where it comes from."""
    releases, problems = {}, []
    for service in plan.gpu_services:
        if service.runtime_name == LLAMACPP:
            found = _from_llamacpp(service, llamacpp)
        elif service.runtime_name == "ollama":
            wanted = Wanted("ollama", service.runtime.version, service.runtime.backend)
            found = _from_archive(service, archive_release(plan.host, catalog, node, wanted))
        else:
            continue
        if isinstance(found, MacRelease):
            releases[service.runtime_name] = found
        else:
            problems.append(f"{service.name}: {found}")
    return tuple(releases.values()), tuple(problems)


def _from_llamacpp(plan: GpuServicePlan, origin: Origin | str) -> MacRelease | str:
    if isinstance(origin, str):
        return origin
    if not isinstance(origin, FromArchive):
        return "llama.cpp is installed from its release archive on macOS: llamacpp_install = 'archive'"
    # The size of an archive that an operator names is not known.
    return MacRelease(origin.url, origin.sha256, 0, origin.release, *_parted(plan.launch.program))


def _from_archive(plan: GpuServicePlan, found: ArchiveRelease | str) -> MacRelease | str:
    if isinstance(found, str):
        return found
    return MacRelease(found.url, found.checksum, found.size_bytes, found.name, *_parted(plan.launch.program))


def _parted(program: str) -> tuple[str, str]:
    """The path of a program in its release, and what leads to the release in use."""
    first, *rest = PurePosixPath(program).relative_to(CURRENT).parts
    return "/".join(rest), f"{CURRENT}/{first}"
