"""Read the TOML catalogues: ours, then the operator's own files, which add entries or replace them by name."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from rackserve.catalog.architectures.reader import read_config
from rackserve.catalog.cuda_wheels import nvcc_releases, skewed
from rackserve.catalog.options import joined, table_problems
from rackserve.catalog.requirement_files import read_requirements
from rackserve.domain.archives import RuntimeArchive
from rackserve.domain.base import Frozen, Url
from rackserve.domain.compiler import Compiler
from rackserve.domain.engine import Engine
from rackserve.domain.errors import InputError, Problem
from rackserve.domain.gpu import Gpu
from rackserve.domain.image import PodmanFacts, RuntimeImage
from rackserve.domain.llamacpp import LlamaCppFacts
from rackserve.domain.model import LanguageModel
from rackserve.domain.option import OptionTable
from rackserve.domain.repository import DRIVER_ENTRY_TYPES, DriverFacts
from rackserve.domain.requirement import (
    REQUIREMENT_ENTRY_TYPES,
    CudaWheels,
    Nvcc,
    Requirements,
    SystemGcc,
    SystemPython,
    Uv,
)
from rackserve.domain.stack import ENTRY_TYPES as STACK_ENTRY_TYPES
from rackserve.domain.stack import StackFacts, StackPolicy


class Hub(Frozen):
    """Where model files are fetched from unless the inventory's `model_hub` says otherwise."""

    url: Url
    source: str
    date: str


class Catalog(Frozen):
    """Everything rackserve knows without asking a host."""

    gpus: Mapping[str, Gpu] = Field(default_factory=dict)
    models: Mapping[str, LanguageModel] = Field(default_factory=dict)
    engines: Mapping[str, Engine] = Field(default_factory=dict)
    compilers: Mapping[str, Compiler] = Field(default_factory=dict)
    options: Mapping[str, OptionTable] = Field(default_factory=dict)
    archives: Mapping[str, RuntimeArchive] = Field(default_factory=dict)
    images: Mapping[str, RuntimeImage] = Field(default_factory=dict)
    podman: Mapping[str, PodmanFacts] = Field(default_factory=dict)
    requirements: Mapping[str, Requirements] = Field(default_factory=dict)
    pythons: Mapping[str, SystemPython] = Field(default_factory=dict)
    nvcc: Mapping[str, Nvcc] = Field(default_factory=dict)
    gccs: Mapping[str, SystemGcc] = Field(default_factory=dict)
    llamacpp: LlamaCppFacts
    cuda_wheels: CudaWheels
    uv: Uv
    hub: Hub
    stacks: StackFacts = StackFacts()
    drivers: DriverFacts = DriverFacts()

    def __repr__(self) -> str:
        """Short: it holds hundreds of entries."""
        return f"Catalog({len(self.gpus)} gpus, models {', '.join(self.models)[:80]})"


def load_catalog(extra: Iterable[str] = ()) -> Catalog:
    """Our catalogue plus the operator's files. A folder in `extra` stands for the *.toml files in it.

    Raises InputError naming file and key for everything that is wrong in any of them.
    """
    return _load(tuple(extra))


@functools.cache
def _load(extra: tuple[str, ...]) -> Catalog:
    merged: dict[str, Any] = {section: {} for section in _ENTRY_TYPES}
    problems: list[Problem] = []
    ours = Path(str(resources.files(__package__)))
    for resource in sorted(resources.files(__package__).iterdir(), key=lambda entry: entry.name):
        if resource.name.endswith(".toml"):
            problems.extend(_merge(merged, resource.name, resource.read_text(encoding="utf-8"), ours))
    for path in _files(extra, problems):
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problems.append(Problem(f"cannot be read: {error}", where=str(path)))
            continue
        problems.extend(_merge(merged, str(path), text, path.parent))
    if problems:
        raise InputError(problems)
    stacks = {section: merged.pop(section) for section in StackFacts.model_fields if section in merged}
    drivers = {section: merged.pop(section) for section in DriverFacts.model_fields}
    return Catalog.model_validate({**merged, "stacks": stacks, "drivers": drivers})


def _files(extra: tuple[str, ...], problems: list[Problem]) -> list[Path]:
    files: list[Path] = []
    for entry in extra:
        path = Path(entry)
        try:
            if path.is_dir():
                files.extend(sorted(path.glob("*.toml")))
            elif path.is_file():
                files.append(path)
            else:
                problems.append(Problem("no such file or folder", where=entry, key="catalog"))
        except (OSError, ValueError) as error:
            # A folder that may not be entered, a name that is too long or holds a NUL.
            problems.append(Problem(f"cannot be read: {error}", where=entry, key="catalog"))
    return files


_ENTRY_TYPES: Mapping[str, tuple[type[Frozen], str]] = {
    "gpus": (Gpu, "tag"),
    "models": (LanguageModel, "name"),
    "engines": (Engine, "id"),
    "compilers": (Compiler, "id"),
    "options": (OptionTable, "runtime"),
    "archives": (RuntimeArchive, "id"),
    "images": (RuntimeImage, "id"),
    "podman": (PodmanFacts, "system"),
    **STACK_ENTRY_TYPES,
    **DRIVER_ENTRY_TYPES,
    **REQUIREMENT_ENTRY_TYPES,
}
_SECTION_TYPES: Mapping[str, type[Frozen]] = {
    "llamacpp": LlamaCppFacts,
    "uv": Uv,
    "cuda_wheels": CudaWheels,
    "hub": Hub,
    "stack_policy": StackPolicy,
}


def _merge(merged: dict[str, Any], where: str, text: str, folder: Path) -> Iterable[Problem]:
    """Add the tables of one file. Everything is validated here, so that a problem names the file it stands in.

    folder: where the files that it names are looked for.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        yield Problem(f"is not TOML: {error}", where=where)
        return
    for section, value in document.items():
        if section in _SECTION_TYPES:
            problems = list(_problems(_SECTION_TYPES[section], value, where, (section,)))
            if not problems:
                merged[section] = value
            yield from problems
        elif section not in _ENTRY_TYPES:
            yield Problem("is not a section of the catalogue", where=where, key=section)
        elif not isinstance(value, Mapping):
            yield Problem("has to be a table of entries", where=where, key=section)
        else:
            for name, entry in value.items():
                yield from _merge_entry(merged, where, (section, name), entry, folder)


def _merge_entry(
    merged: dict[str, Any], where: str, key: tuple[str, str], entry: object, folder: Path
) -> Iterable[Problem]:
    section, name = key
    kind, name_key = _ENTRY_TYPES[section]
    if not isinstance(entry, Mapping):
        yield Problem("has to be a table", where=where, key=f"{section}.{name}")
    elif name_key in entry:
        yield Problem("is the name of the table, it cannot be set", where=where, key=f"{section}.{name}.{name_key}")
    else:
        candidate = {name_key: name, **entry}
        problems = list(_problems(kind, candidate, where, (section, name)))
        if section == "models" and not problems:
            problems = _config_problems(candidate["config"], f"{where}: models.{name}.config")
        if section == "options" and not problems:
            problems = list(table_problems(candidate, where))
            candidate = joined(merged[section].get(name), candidate)
        if section == "requirements" and not problems:
            wheels = CudaWheels.model_validate(merged["cuda_wheels"])
            problems = _requirement_problems(candidate, folder, f"{where}: requirements.{name}.file", wheels)
        if not problems:
            merged[section][name] = candidate
        yield from problems


def _config_problems(config: Mapping[str, Any], where: str) -> list[Problem]:
    try:
        read_config(config, where)
    except InputError as error:
        return list(error.problems)
    return []


def _requirement_problems(entry: dict[str, Any], folder: Path, where: str, wheels: CudaWheels) -> list[Problem]:
    """Read the file that an entry names into the entry."""
    try:
        file = read_requirements(folder / entry["file"], entry.get("without", ()))
    except InputError as error:
        return [replace(problem, where=f"{where}: {problem.where}") for problem in error.problems]
    pinned = file.pinned(entry["runtime"], entry["version"])
    if pinned is None:
        return [Problem(f"{file.path} does not pin {entry['runtime']} to {entry['version']}", where=where)]
    hosts = list(Requirements.model_validate(entry).hosts())
    entry["pinned"] = pinned
    entry["text"] = file.text
    entry["nvcc"] = nvcc_releases(file, hosts, wheels)
    hint = "compile the file with constraints on them, as `constraints` in the catalogue's own entries says it"
    return [Problem(f"{file.path} has {told}", where=where, hint=hint) for told in skewed(file, hosts, wheels)]


def _problems(kind: type[Frozen], value: object, where: str, prefix: tuple[str, ...]) -> Iterable[Problem]:
    try:
        kind.model_validate(value)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            yield _problem(where, detail, prefix)


def _problem(where: str, detail: Any, prefix: tuple[str, ...]) -> Problem:
    key = ".".join(str(part) for part in (*prefix, *detail["loc"]))
    return Problem(f"{detail['msg']}, found {repr(detail['input'])[:80]}", where=where, key=key)
