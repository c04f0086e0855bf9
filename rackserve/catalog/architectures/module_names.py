"""Which modules of a checkpoint a quantization's lists mean: names, parts of names, wildcards and expressions."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator

# Names of the language model inside a checkpoint, which lists may or may not write.
PREFIXES = ("model.language_model.", "language_model.model.", "language_model.", "model.", "backbone.")
_EXPERTS = ".experts"
# Expressions are matched by backtracking: these limits keep one from taking longer than a plan may take.
_LONGEST, _MOST_REPEATS = 300, 4
_NESTED = re.compile(r"\)\s*[*+{?]")
_REPEATS = re.compile(r"[*+{]")


def plain(name: str) -> str:
    """A module's name without what stands before its layer."""
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


def experts_of(name: str) -> str:
    """The block of experts that a module belongs to, or empty: a.experts for a.experts.7.up_proj."""
    position = f"{name}.".find(f"{_EXPERTS}.")
    return name[: position + len(_EXPERTS)] if position >= 0 else ""


def acceptable(expression: str) -> bool:
    """Whether an expression is valid and cheap enough to be matched."""
    if len(expression) > _LONGEST or _NESTED.search(expression) or len(_REPEATS.findall(expression)) > _MOST_REPEATS:
        return False
    try:
        re.compile(expression)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


class Patterns:
    """A list of modules, asked for one name after another."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._names: set[str] = set()
        self._experts: set[str] = set()
        self._towers: set[str] = set()
        self._matchers: list[re.Pattern[str]] = []
        for entry in entries:
            if entry.startswith("re:"):
                self._matchers.append(re.compile(entry[3:]))
                continue
            name = plain(entry)
            self._towers.add(re.split(r"[.*]", name, maxsplit=1)[0])
            if "*" in name or "?" in name:
                self._matchers += [re.compile(fnmatch.translate(spelled)) for spelled in {entry, name}]
            else:
                self._names.add(name)
                self._experts.add(experts_of(name))

    def __contains__(self, name: object) -> bool:
        """Whether the list means the module: itself, something around it, or its last parts."""
        if not isinstance(name, str):
            return False
        if self._names and (
            any(part in self._names for part in _around(name))
            or ((block := experts_of(name)) and block in self._experts)
        ):
            return True
        return any(matcher.match(f"{prefix}{name}") for matcher in self._matchers for prefix in ("", *PREFIXES))

    def reaches(self, tower: str) -> bool:
        """Whether the list names anything in a tower: such lists leave out all of it."""
        return tower in self._towers or f"{tower}.0" in self


def _around(name: str) -> Iterator[str]:
    """The module itself, each module around it, and each ending of its name."""
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        yield ".".join(parts[:count])
        yield ".".join(parts[-count:])
