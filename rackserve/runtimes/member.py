"""A host's part in an instance that is spread over several hosts. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Distributed = Literal["native", "ray"]


@dataclass(frozen=True, slots=True)
class Member:
    """One host of an instance. All of its hosts are in rank order, the head first.

    rank: which of them this is. addresses: where each is reached by the others. cards: the GPUs that each gives, by
    their numbers in PCI order. interface: the network interface of this host's address, None where nobody stated it.
    port: where the processes meet on the head.
    """

    distributed: Distributed
    rank: int
    hosts: tuple[str, ...]
    addresses: tuple[str, ...]
    cards: tuple[tuple[int, ...], ...]
    interface: str | None
    port: int

    @property
    def size(self) -> int:
        """Hosts of the instance."""
        return len(self.hosts)

    @property
    def is_head(self) -> bool:
        """Whether this host answers for the instance."""
        return self.rank == 0

    @property
    def head(self) -> str:
        """The host that answers."""
        return self.hosts[0]

    @property
    def head_address(self) -> str:
        """Where the others find the head."""
        return self.addresses[0]

    @property
    def address(self) -> str:
        """Where the others find this host."""
        return self.addresses[self.rank]

    @property
    def peers(self) -> tuple[str, ...]:
        """Addresses of the others."""
        return (*self.addresses[: self.rank], *self.addresses[self.rank + 1 :])

    @property
    def meeting_point(self) -> str:
        """Where the processes of all hosts meet."""
        return f"{self.head_address}:{self.port}"

    def as_dict(self) -> dict[str, Any]:
        """For `plan --json`."""
        return {
            "distributed": self.distributed,
            "rank": self.rank,
            "hosts": list(self.hosts),
            "addresses": list(self.addresses),
            "gpus": [list(cards) for cards in self.cards],
            "interface": self.interface,
            "port": self.port,
        }
