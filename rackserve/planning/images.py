"""Which container image serves a runtime on a host. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.catalog.loader import Catalog
from rackserve.domain.host import Host
from rackserve.domain.image import RuntimeImage


@dataclass(frozen=True, slots=True)
class PlannedImage:
    """An image by digest; no name where none is known. disk_gib: what pulling it takes, 0 where nobody has told."""

    name: str
    disk_gib: int = 0


def planned_image(host: Host, catalog: Catalog, runtime: str, version: str, backend: str) -> PlannedImage:
    """The host's own image for the runtime, else the catalogue's."""
    wanted = (runtime, version, backend)
    known = next((entry for entry in catalog.images.values() if _what(entry) == wanted), None)
    own = own_image(host, runtime)
    if known is None or (own is not None and digest(own) != digest(known.image)):
        return PlannedImage(own or "")
    return PlannedImage(own or known.image, known.download_gib + known.unpacked_gib)


def own_image(host: Host, runtime: str) -> str | None:
    """What the inventory states for the runtime."""
    return {str(name): image for name, image in host.images.items()}.get(runtime)


def digest(image: str) -> str:
    """The digest of an image's name, which says what it is wherever it is copied to."""
    return image.rpartition("@")[2]


def _what(entry: RuntimeImage) -> tuple[str, str, str]:
    return entry.runtime, entry.version, entry.backend
