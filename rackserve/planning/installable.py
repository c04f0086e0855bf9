"""Whether what fits can also be put onto a host: everything that is fetched is pinned, and may be used. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from rackserve.catalog.loader import Catalog
from rackserve.domain.errors import Problem
from rackserve.planning.images import digest, own_image
from rackserve.planning.macos import is_mac, mac_problems
from rackserve.planning.plans import GpuServicePlan, HostPlan
from rackserve.runtimes.options import version_advice, version_problem

_OWN_FILE = "in a file that `catalog` names"


def not_installable(plan: HostPlan, catalog: Catalog) -> tuple[Problem, ...]:
    """Why the plan cannot be put onto the host, though it fits."""
    on_macos = mac_problems(plan) if is_mac(plan) else []
    return tuple(
        Problem(message, host=plan.host.name, service=service.name, key=key, hint=hint)
        for service in plan.gpu_services
        for found in (_unknown_version, _no_file, _no_image, _idle_image, _other_image, _no_requirements, _no_licence)
        for message, key, hint in found(service, plan, catalog)
    ) + tuple(Problem(sentence, host=plan.host.name) for sentence in on_macos)


_Found = Iterator[tuple[str, str, str]]


def _unknown_version(service: GpuServicePlan, plan: HostPlan, catalog: Catalog) -> _Found:
    problem = version_problem(catalog, service.runtime_name, service.runtime.version)
    if problem is not None and not plan.host.allow_unknown_versions:
        yield problem, "runtime_version", version_advice(catalog, service.runtime_name)


def _no_file(service: GpuServicePlan, _plan: HostPlan, _catalog: Catalog) -> _Found:
    if service.source is None:
        message = f"{service.model.name} has no {service.sizing.quantization} file in the catalogue to be fetched"
        yield message, "model", f"list file, size and checksum under [models] {_OWN_FILE}"


def _no_image(service: GpuServicePlan, _plan: HostPlan, _catalog: Catalog) -> _Found:
    container = service.launch.container
    if container is not None and not container.image:
        name, runtime = service.runtime_name, service.runtime
        message = f"no image of {name} {runtime.version} for {runtime.backend} is known by its digest"
        own = f'set images = {{"{name}": "registry/name@sha256:..."}}'
        yield message, "images", f"{own}, or add it under [images] {_OWN_FILE}"


def _idle_image(service: GpuServicePlan, plan: HostPlan, _catalog: Catalog) -> _Found:
    if service.launch.container is None and service.runtime_name in plan.host.images:
        runtime = service.runtime
        message = f"{service.runtime_name} {runtime.version} has no image here, it is installed as {runtime.install}"
        yield message, "images", "leave it out"


def _other_image(service: GpuServicePlan, plan: HostPlan, catalog: Catalog) -> _Found:
    """Of an image that is not the catalogue's nobody but the operator knows which version it holds."""
    own = own_image(plan.host, service.runtime_name)
    if own is None or service.launch.container is None or service.service.runtime_version is not None:
        return
    if digest(own) not in {digest(entry.image) for entry in catalog.images.values()}:
        version = service.runtime.version
        message = f"which version of {service.runtime_name} the image of `images` holds is not known"
        yield message, "runtime_version", f"state it, as {version!r} if that is what it holds"


def _no_requirements(service: GpuServicePlan, _plan: HostPlan, catalog: Catalog) -> _Found:
    runtime = service.runtime
    if runtime.install != "wheel":
        return
    wanted = (service.runtime_name, runtime.version, runtime.backend)
    known = [entry for entry in catalog.requirements.values() if entry.runtime == service.runtime_name]
    name = f"{service.runtime_name}-{runtime.version}-{runtime.backend}"
    pinned = next((entry for entry in known if (entry.runtime, entry.version, entry.backend) == wanted), None)
    if pinned is None:
        listed = ", ".join(f"{entry.version} for {entry.backend}" for entry in known)
        message = f"no pinned requirements of {service.runtime_name} {runtime.version} for {runtime.backend}"
        hint = f'the catalogue has {listed or "none"}; add [requirements."{name}"] {_OWN_FILE}'
        yield message, "runtime_version", hint
    elif _by_ray(service) and not re.search("^ray==", pinned.text, re.MULTILINE):
        message = f"the pinned requirements of {service.runtime_name} {runtime.version} hold no Ray"
        yield message, "distributed", f'set it to "native", or pin ray in [requirements."{name}"] {_OWN_FILE}'


def _by_ray(service: GpuServicePlan) -> bool:
    return service.member is not None and service.member.distributed == "ray"


def _no_licence(service: GpuServicePlan, plan: HostPlan, _catalog: Catalog) -> _Found:
    if service.runtime_name == "lmstudio" and not is_mac(plan) and not plan.host.lmstudio_accept_license:
        terms = "its terms allow use within an organisation, and neither to pass it on nor to serve others with it"
        hint = "read https://lmstudio.ai/app-terms and set it to True; llama.cpp and ollama serve the same files"
        yield f"LM Studio is not free software: {terms}", "lmstudio_accept_license", hint
