"""Put model files in place, verified."""

from __future__ import annotations

from pyinfra import host
from pyinfra.api import deploy

from rackserve.operations.fetch import verified_file
from roles.planned import host_plan


@deploy("Models")
def models() -> None:
    """Fetch what the planned services serve; a file that several services share is fetched once."""
    wanted = {service.model_path: service for service in host_plan().services}
    for service in host.loop(list(wanted.values())):
        verified_file(
            name="Model in place",
            url=service.model_url,
            sha256=service.gguf.sha256,
            size_bytes=service.gguf.size_bytes,
            destination=service.model_path,
        )
