"""Container images of runtimes, and the podman that systems come with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from rackserve.domain.base import Frozen
from rackserve.domain.gpu import Version
from rackserve.domain.stack import Backend, ReleaseVersion, SystemId

# A registry's full name, a repository and a digest: a tag would be another image one day, and a short name means
# whichever registry a host is set up with. One harmless word wherever it is rendered.
ImageByDigest = Annotated[
    str,
    StringConstraints(
        pattern=r"^((localhost|[a-z0-9-]+(\.[a-z0-9-]+)+)(:[0-9]{1,5})?|[a-z0-9-]+:[0-9]{1,5})"
        r"(/[a-z0-9]+([._-]+[a-z0-9]+)*)+@sha256:[0-9a-f]{64}$",
        max_length=400,
    ),
]
# Runtimes that are run from images.
ImageRuntime = Literal["tensorrt-llm", "vllm", "sglang"]


class RuntimeImage(Frozen):
    """The image of one version of a runtime, for one backend.

    tag: what the registry called it when the digest was read, for people. download_gib, unpacked_gib: its size on the
    way and on disk, rounded up; 0 where nobody has told.
    """

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$", max_length=60)]
    runtime: ImageRuntime
    version: ReleaseVersion
    backend: Backend
    image: ImageByDigest
    tag: str
    download_gib: int = Field(default=0, ge=0)
    unpacked_gib: int = Field(default=0, ge=0)
    note: str = ""
    source: str
    date: str


class PodmanFacts(Frozen):
    """The podman of one system, as it ships it."""

    system: SystemId
    version: Version
    source: str
    date: str
