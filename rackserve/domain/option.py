"""What a runtime calls a setting, by version: the catalogue's `options` tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from rackserve.domain.base import Frozen
from rackserve.domain.stack import ReleaseVersion, Some

SettingName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$", max_length=40)]
# A release tag of llama.cpp: b and the number of the build.
BuildTag = Annotated[str, StringConstraints(pattern=r"^b[0-9]{1,7}$")]


class Spelling(Frozen):
    """How a setting is told from version `since` on, until `before`, which has it no more; None: no such bound.

    kind: `value` is an option and its value, two words; `flag` an option alone; `json` an option that takes an object,
    in which the setting is `key`; `positional` the value alone; `environment` a variable; `yaml` a dotted key of the
    configuration file; `parameter` one of a Modelfile. `always`: the runtime does so without being told.
    value: what is always said, for settings that are off or on. choices: all values that it takes; empty: any.
    """

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]*$", max_length=60)] = ""
    kind: Literal["value", "flag", "json", "positional", "environment", "yaml", "parameter", "always"] = "value"
    key: SettingName | None = None
    value: str | None = None
    choices: tuple[str, ...] = ()
    since: ReleaseVersion | None = None
    before: ReleaseVersion | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if bool(self.name) is (self.kind in {"positional", "always"}):
            found = f"a name, {self.name}" if self.name else "none"
            msg = f"kind {self.kind} has {'no name' if self.name else 'a name'}, found {found}"
            raise ValueError(msg)
        if (self.kind == "json") is not (self.key is not None):
            msg = "kind json has a key, and no other kind has one"
            raise ValueError(msg)
        return self


class OptionTable(Frozen):
    """Everything that one runtime can be told.

    oldest, newest: the versions that it was checked with; what is in between was checked where a name changed.
    tags: release tags that name versions too. A build between two of them has the older one's options.
    """

    runtime: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([.-][a-z0-9]+)*$", max_length=40)]
    oldest: ReleaseVersion
    newest: ReleaseVersion
    tags: Mapping[BuildTag, ReleaseVersion] = Field(default_factory=dict)
    settings: Mapping[SettingName, Some[Spelling]]
    source: str
    date: str
