"""Put model files in place, verified."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from rackserve.operations.fetch import verified_file
from rackserve.operations.snapshot import snapshot
from rackserve.planning.macos import is_mac
from rackserve.planning.model_source import GgufSource, SnapshotSource
from roles.planned import host_catalog, host_plan


@deploy("Models")
def models() -> None:
    """Fetch what the planned services serve; what several services share is fetched once."""
    plan = host_plan()
    if is_mac(plan):
        return
    wanted = list(dict.fromkeys(service.source for service in plan.all_services))
    for source in host.loop([source for source in wanted if isinstance(source, GgufSource)]):
        verified_file(
            name="Model in place",
            url=source.url,
            sha256=source.sha256,
            size_bytes=source.size_bytes,
            destination=source.path,
            hub=plan.host.model_hub or host_catalog().hub.url,
            token_file=plan.host.hf_token_file,
        )
    for source in host.loop([source for source in wanted if isinstance(source, SnapshotSource)]):
        snapshot(
            name="Model's files in place",
            hub=source.hub,
            repo=source.repo,
            revision=source.revision,
            path=source.path,
            token_file=plan.host.hf_token_file,
        )
