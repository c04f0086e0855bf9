"""What a version of a runtime calls its settings, from the catalogue's tables."""

from __future__ import annotations

import json
import re

from packaging.version import InvalidVersion, Version

from rackserve.catalog.loader import Catalog
from rackserve.catalog.options import reaches, release
from rackserve.domain.option import OptionTable, Spelling


class Options:
    """The settings of one version of one runtime.

    A version that the table does not reach is told everything as its nearest neighbour in the table is. Raises KeyError
    for a runtime without a table.
    """

    def __init__(self, catalog: Catalog, runtime: str, version: str) -> None:
        self.runtime, self.version = runtime, version
        self._table = catalog.options[runtime]
        self._release = _release(self._table, version)
        self._known = {setting for table in catalog.options.values() for setting in table.settings}
        self._missing: dict[str, str] = {}

    @property
    def missing(self) -> tuple[str, ...]:
        """A sentence for each setting that was asked for and that this version has no option for."""
        return tuple(self._missing.values())

    def has(self, setting: str) -> bool:
        """Whether this version can be told the setting, or does so anyway."""
        return self._find(setting) is not None

    def words(self, setting: str, value: str | None = None) -> tuple[str, ...]:
        """The setting on a command line, one word per element. Empty where it is no option of this version.

        Raises ValueError where the option needs a value and none is given.
        """
        spelling = self._wanted(setting)
        if spelling is None or spelling.kind not in {"value", "flag", "json", "positional"}:
            return ()
        if spelling.kind == "flag":
            return (spelling.name,)
        said = value if spelling.value is None else spelling.value
        if said is None:
            msg = f"{self.runtime}: {setting} needs a value"
            raise ValueError(msg)
        if spelling.kind == "json":
            said = json.dumps({spelling.key: said}, separators=(",", ":"))
        return (said,) if spelling.kind == "positional" else (spelling.name, said)

    def variable(self, setting: str, value: str) -> tuple[str, str] | None:
        """The setting as an environment variable. None where it is no variable of this version."""
        spelling = self._wanted(setting)
        if spelling is None or spelling.kind != "environment":
            return None
        return spelling.name, value if spelling.value is None else spelling.value

    def key(self, setting: str) -> str | None:
        """Its dotted key in the configuration file, or its name as a Modelfile's parameter. None: it has neither."""
        spelling = self._wanted(setting)
        return spelling.name if spelling is not None and spelling.kind in {"yaml", "parameter"} else None

    def _wanted(self, setting: str) -> Spelling | None:
        spelling = self._find(setting)
        if spelling is None:
            self._missing[setting] = f"{self.runtime} {self.version} cannot be told {setting}: {self._reason(setting)}"
        return spelling

    def _find(self, setting: str) -> Spelling | None:
        if setting not in self._known:
            # A typo must not become a setting that is silently left out.
            msg = f"no runtime has a setting {setting}"
            raise KeyError(msg)
        spellings = self._table.settings.get(setting, ())
        return next((spelling for spelling in spellings if reaches(spelling, self._release)), None)

    def _reason(self, setting: str) -> str:
        spellings = self._table.settings.get(setting, ())
        came = [s for s in spellings if s.since and release(s.since) > self._release]
        gone = [s for s in spellings if s.before and release(s.before) <= self._release]
        if came:
            first = min(came, key=lambda spelling: release(spelling.since or "0"))
            return f"{first.name or 'it'} came with {first.since}"
        if gone:
            last = max(gone, key=lambda spelling: release(spelling.before or "0"))
            return f"{last.name or 'it'} is gone since {last.before}"
        return "it has no such option"


def choices(catalog: Catalog, runtime: str, setting: str) -> tuple[str, ...]:
    """Every value that some version of the runtime takes for the setting; empty where it takes any, or has no table."""
    table = catalog.options.get(runtime)
    spellings = table.settings.get(setting, ()) if table is not None else ()
    return tuple(dict.fromkeys(choice for spelling in spellings for choice in spelling.choices))


def version_problem(catalog: Catalog, runtime: str, version: str) -> str | None:
    """Why nobody knows what this version calls its settings; None where the table was checked with it."""
    table = catalog.options.get(runtime)
    if table is None:
        return f"{runtime} has no option table"
    span = _span(table)
    if version.startswith("b") and table.tags:
        return _tag_problem(table, version, span)
    try:
        wanted = release(version)
    except InvalidVersion:
        return f"{runtime} {version} is no version that can be compared with the option table's ({span})"
    if wanted > release(table.newest):
        return f"{runtime} {version} is not in the option table ({span}): its options may have been renamed"
    if wanted < release(table.oldest):
        return f"{runtime} {version} is not in the option table ({span}): it may lack options"
    return None


def version_advice(catalog: Catalog, runtime: str) -> str:
    """What an operator can do about a version with a problem."""
    table = catalog.options.get(runtime)
    if table is None:
        return f"add [options.{runtime}] in a catalogue file of your own"
    return f"set allow_unknown_versions, or take one of {_span(table)}"


def _span(table: OptionTable) -> str:
    return f"{table.oldest} to {table.newest}"


def _tag_problem(table: OptionTable, version: str, span: str) -> str | None:
    number, builds = _build(version), _builds(table)
    oldest, newest = min(builds), max(builds)
    if number is None:
        return f"{table.runtime} {version} is neither a version nor a release tag such as b{newest}"
    if number > newest:
        return f"{table.runtime} {version} is newer than the option table ({span}, which is b{newest})"
    if number < oldest:
        return f"{table.runtime} {version} is older than any tag of the option table (b{oldest})"
    return None


def _release(table: OptionTable, version: str) -> Version:
    number, builds = _build(version), _builds(table)
    if number is not None and builds:
        known = max((build for build in builds if build <= number), default=None)
        return release(table.oldest if known is None else builds[known])
    try:
        return release(version)
    except InvalidVersion:
        return release(table.newest)


def _builds(table: OptionTable) -> dict[int, str]:
    return {int(tag.removeprefix("b")): version for tag, version in table.tags.items()}


def _build(tag: str) -> int | None:
    return int(tag[1:]) if re.fullmatch("b[0-9]{1,7}", tag) else None
