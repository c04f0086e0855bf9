"""Typed access to the keys of a config.json, with every problem collected instead of raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rackserve.domain.errors import Problem

# Beyond any model, and small enough that a malformed file cannot exhaust the planner's own memory.
LARGEST = 2**40


class Config:
    """The values of one config.json or of a table inside it.

    Every getter returns something of the right type; what was wrong is in `problems`, which tables share.
    """

    def __init__(
        self, values: Mapping[str, Any], where: str, problems: list[Problem] | None = None, prefix: str = ""
    ) -> None:
        self.values = values
        self.where = where
        self.problems: list[Problem] = [] if problems is None else problems
        self.prefix = prefix

    def has(self, name: str) -> bool:
        """Whether the key is there and not null."""
        return self.values.get(name) is not None

    def problem(self, name: str, message: str, hint: str = "") -> None:
        """Note what is wrong with a key."""
        self.problems.append(Problem(message, where=self.where, key=f"{self.prefix}{name}", hint=hint))

    def integer(self, *names: str, default: int | None = None, least: int = 1, most: int = LARGEST) -> int:
        """The first of `names` that is there; without a default one of them has to be."""
        name = next((name for name in names if self.has(name)), None)
        if name is None:
            if default is None:
                self.problem(names[0], "is missing: expected a whole number")
                return least
            return default
        value = self.values[name]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(name, f"expected a whole number, found {_shown(value)}")
            return least
        if not least <= value <= most:
            self.problem(name, f"expected {least} to {most}, found {_shown(value)}")
            return least
        return value

    def number(self, *names: str, default: float, least: float = 0.0, most: float = LARGEST) -> float:
        """As `integer`, for values that may have a fraction."""
        name = next((name for name in names if self.has(name)), None)
        if name is None:
            return default
        value = self.values[name]
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problem(name, f"expected a number, found {_shown(value)}")
            return default
        # Not a number fails every comparison, so it is refused here too.
        if not least <= value <= most:
            self.problem(name, f"expected {least:g} to {most:g}, found {_shown(value)}")
            return default
        return float(value)

    def pair(self, name: str) -> tuple[int, int]:
        """Two whole numbers, which may be written as one where they are equal."""
        if not isinstance(self.values.get(name), list | tuple):
            size = self.integer(name)
            return size, size
        entries = self.integers(name)
        if len(entries) != 2:  # noqa: PLR2004  a pair
            self.problem(name, f"expected two whole numbers, found {len(entries)}")
            return 1, 1
        return entries[0], entries[1]

    def integers(self, name: str) -> list[int]:
        """A list of whole numbers, none of them negative."""
        entries = self.sequence(name)
        if any(isinstance(entry, bool) or not isinstance(entry, int) or not 0 <= entry <= LARGEST for entry in entries):
            self.problem(name, "expected a list of whole numbers, none negative")
            return []
        return entries

    def tables(self, name: str) -> list[Config]:
        """A list of tables."""
        entries = self.sequence(name)
        if any(not isinstance(entry, Mapping) for entry in entries):
            self.problem(name, "expected a list of tables")
            return []
        return [
            Config(entry, self.where, self.problems, f"{self.prefix}{name}[{index}].")
            for index, entry in enumerate(entries)
        ]

    def optional(self, *names: str) -> int | None:
        """A whole number, or None where the key is absent or null."""
        return self.integer(*names, least=0) if any(self.has(name) for name in names) else None

    def flag(self, name: str, *, default: bool) -> bool:
        """True or false."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(name, f"expected true or false, found {_shown(value)}")
            return default
        return value

    def text(self, name: str, default: str = "") -> str:
        """A string."""
        value = self.values.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            self.problem(name, f"expected a string, found {_shown(value)}")
            return default
        return value

    def sequence(self, name: str) -> list[Any]:
        """A list, empty where the key is absent."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list | tuple):
            self.problem(name, f"expected a list, found {_shown(value)}")
            return []
        return list(value)

    def texts(self, name: str) -> list[str]:
        """A list of strings."""
        entries = self.sequence(name)
        if any(not isinstance(entry, str) for entry in entries):
            self.problem(name, "expected a list of strings")
            return []
        return entries

    def table(self, name: str) -> Config:
        """An inner table, empty where the key is absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, Mapping):
            self.problem(name, f"expected a table, found {_shown(value)}")
            value = None
        return Config(value or {}, self.where, self.problems, f"{self.prefix}{name}.")

    def with_defaults(self, defaults: Mapping[str, Any]) -> Config:
        """The same table with values for keys that are absent."""
        present = {key: value for key, value in self.values.items() if value is not None}
        return Config({**self.values, **defaults, **present}, self.where, self.problems, self.prefix)


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        # Nested deeper, or with more digits, than Python writes out.
        return f"a {type(value).__name__} that cannot be shown"
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004  one line is what an operator reads
