"""What a lab calls the things it makes on the machine.

Every name is derived from the lab's name and folder alone. Two labs can therefore never touch each other's things, and
`down` finds everything of a half-made lab without any record of it.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from rackserve.domain.errors import InputError, Problem

# Every lab's bridge begins so, whichever lab it is.
BRIDGE_PREFIX = "rslab-"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


@dataclass(frozen=True, slots=True)
class LabNames:
    """The names of one lab's bridge, interfaces, namespaces, firewall table and cgroups."""

    lab: str
    folder: Path

    def __post_init__(self) -> None:
        """Refuse a name that would not fit into the others."""
        if not _NAME.fullmatch(self.lab):
            hint = "small letters, digits and dashes, at most 31, no dash first"
            raise InputError([Problem(f"{self.lab!r} cannot name a lab", key="RACKSERVE_LAB", hint=hint)])

    @property
    def digest(self) -> str:
        """Six characters that tell this lab from every other on the machine (interface names are 15 at most)."""
        return hashlib.sha256(str(self.folder).encode()).hexdigest()[:6]

    @property
    def prefix(self) -> str:
        """What every namespace and cgroup of this lab begins with."""
        return f"rackserve-{self.lab}-{self.digest}-"

    @property
    def bridge(self) -> str:
        """The lab's bridge on the machine."""
        return f"{BRIDGE_PREFIX}{self.digest}"

    @property
    def link_prefix(self) -> str:
        """What every host's interface on the machine's side begins with."""
        return f"rsv{self.digest}-"

    @property
    def nft_table(self) -> str:
        """The table with the lab's NAT rule."""
        return f"rackserve_lab_{self.digest}"

    def link(self, index: int) -> str:
        """The machine's end of the wire to a host."""
        return f"{self.link_prefix}{index}"

    def netns(self, host: str) -> str:
        """The network namespace of a host."""
        return f"{self.prefix}{host}"

    def cgroup(self, host: str) -> str:
        """The control group of a host."""
        return f"{self.prefix}{host}"
