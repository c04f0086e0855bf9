"""Services of Apple's machines: releases, models, accounts, keys and daemons, and the services running."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from rackserve.operations.macos import (
    mac_account,
    mac_api_key,
    mac_files,
    mac_links,
    mac_model,
    mac_release,
    mac_serving,
    only_daemons,
)
from rackserve.operations.require import require
from rackserve.planning.macos import is_mac, mac_releases
from rackserve.planning.model_source import GgufSource
from rackserve.planning.plans import GpuServicePlan
from rackserve.planning.preflight import llamacpp_origin
from rackserve.rendering import host_files
from rackserve.rendering.launchd import account, daemon_digest, home
from rackserve.rendering.units import key_path
from roles.planned import host_catalog, host_plan, node


@deploy("Mac services")
def mac_services() -> None:
    """Exactly the planned services, each answering completions with the plan that is loaded. Nothing on other hosts."""
    plan = host_plan()
    seen = node() if is_mac(plan) else None
    if seen is None:
        # Preflight has refused a Mac that does not tell what it is.
        return
    services, catalog = list(plan.gpu_services), host_catalog()
    releases, missing = mac_releases(plan, catalog, seen, llamacpp_origin(plan, catalog, seen))
    sources = list(dict.fromkeys(service.source for service in services))
    require(name="Releases for macOS there", problems=list(missing))
    only_daemons(name="Services that are not planned gone", names=[service.name for service in services])
    for release in host.loop(list(releases)):
        mac_release(name="Release of the runtime current", release=release)
    for source in host.loop([source for source in sources if isinstance(source, GgufSource)]):
        mac_model(
            name="Model in place",
            source=source,
            hub=plan.host.model_hub or catalog.hub.url,
            token_file=plan.host.hf_token_file,
        )
    for service in host.loop(services):
        mac_account(name="Service user present", account=account(service.name), home=home(service.name))
    for service, path in host.loop(_keyed(services)):
        mac_api_key(
            name="API key in place", path=path, group=account(service.name), source=service.service.api_key_file
        )
    mac_files(name="Daemons and helpers as planned", files=host_files(plan))
    mac_links(
        name="Links beside them as planned", links=[link for service in services for link in service.launch.links]
    )
    for service in host.loop(services):
        mac_serving(
            name="Service serving its plan",
            service=service.name,
            digest=daemon_digest(service),
            files=_read_once(service, [release.link for release in releases]),
            seconds=service.launch.stop_s,
        )


def _keyed(services: list[GpuServicePlan]) -> list[tuple[GpuServicePlan, str]]:
    """Services whose server knows keys, with the place of the key."""
    places = ((service, key_path(service)) for service in services)
    return [(service, path) for service, path in places if path is not None]


def _read_once(service: GpuServicePlan, links: list[str]) -> list[str]:
    """What the process reads at its start and never again: the release that it runs, and its key."""
    path = key_path(service)
    own = [link for link in links if service.launch.program.startswith(f"{link}/")]
    return [*own, *([path] if path is not None else [])]
