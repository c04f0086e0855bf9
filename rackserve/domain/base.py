"""What all nouns share: they are frozen, they refuse unknown keys, and their words are safe to render."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints


class Frozen(BaseModel):
    """A value that never changes after validation and knows all of its keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")


# A systemd instance name that needs no escaping, and with the prefix `rackserve-` a Unix user name of at most 32
# characters (useradd's limit).
ServiceName = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]{0,20}[a-z0-9])?$")]
Tag = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Sha512 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{128}$")]
# One path component, never hidden, never `..`: it becomes part of paths and URLs.
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", max_length=200)]
Url = Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9._~:/?#@!&()*+,=\[\]%-]+$", max_length=2000)]
# No component is hidden or `..`.
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^(/[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*)+$", max_length=1000)]
