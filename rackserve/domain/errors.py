"""The one exception tree, and the problem an operator is shown.

RackserveError
├── InputError        what the operator wrote cannot be used; nothing was touched (exit 2)
├── HostError         a host could not be reached or said no (exit 1)
├── LabError          a throwaway host could not be made, booted or removed (exit 1)
└── LockedError       somebody else is at work (exit 75)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong, where it stands and what would work instead."""

    message: str
    where: str = ""
    host: str = ""
    service: str = ""
    key: str = ""
    hint: str = ""

    def __str__(self) -> str:
        """One line: where, what, and in brackets what would work."""
        labels = (
            self.where,
            f"host {self.host}" if self.host else "",
            f"service {self.service}" if self.service else "",
            self.key,
        )
        place = ": ".join(label for label in labels if label)
        text = f"{place}: {self.message}" if place else self.message
        return f"{text} ({self.hint})" if self.hint else text

    def as_dict(self) -> dict[str, str]:
        """The fields that are set, for `--json`."""
        fields = {
            "message": self.message,
            "where": self.where,
            "host": self.host,
            "service": self.service,
            "key": self.key,
            "hint": self.hint,
        }
        return {name: value for name, value in fields.items() if value}


def suggestion(name: str, known: Iterable[str]) -> str:
    """What was probably meant, or all that there is: a hint for a name that is not known."""
    names = sorted(known)
    words = set(name.lower().split("-"))
    close = [other for other in names if words <= set(other.split("-"))]
    close = close or difflib.get_close_matches(name, names, n=4, cutoff=0.6)
    return f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(names)}"


class RackserveError(Exception):
    """Base of everything rackserve raises on purpose; its text is for the operator."""

    exit_code = 1


class InputError(RackserveError):
    """Inventory, catalogue or command line cannot be used. Carries every problem found, not the first."""

    exit_code = 2

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class HostError(RackserveError):
    """A host could not be reached, or something on it was not as wanted."""


class LabError(RackserveError):
    """A throwaway host could not be made, booted, reached or removed."""


class LockedError(RackserveError):
    """Another run holds what this one needs."""

    exit_code = 75
