"""Requirements files with hashes, as pip and uv read them: every package pinned to the bytes of its wheels."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from rackserve.domain.errors import InputError, Problem

_COMMENT = re.compile(r"(^|\s)#.*$")
_HASH = re.compile(r"\s--hash=sha256:[0-9a-f]{64}(?=\s|$)")
# Where packages come from may be named: whatever an index has, the hashes decide what is installed.
_INDEX = re.compile(r"(-i|-f|--index-url|--extra-index-url|--find-links)[ =]\S+")


@dataclass(frozen=True, slots=True)
class Pin:
    """A package at one version; marker: on which hosts, None for all."""

    name: str
    version: str
    marker: Marker | None = None


@dataclass(frozen=True, slots=True)
class RequirementsFile:
    """A requirements file that was read and has nothing wrong.

    path: for sentences. pins: each requirement; a name may have several for different hosts. without: names of
    those that no host gets.
    """

    path: str
    text: str = field(repr=False)
    pins: tuple[Pin, ...] = field(repr=False)
    without: Collection[str] = ()

    def pinned(self, name: str, version: str) -> str | None:
        """The version that a package is pinned to, local part (+rocm723) included; None unless it is this one alone."""
        found = {pin.version for pin in self.pins if pin.name == canonicalize_name(name)}
        return found.pop() if len(found) == 1 and {Version(pin).public for pin in found} == {version} else None

    def installed(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Versions by name of what such a host gets. environment: values of the markers' variables."""
        values = {"extra": "", **environment}
        wanted = (pin for pin in self.pins if pin.name not in self.without)
        return {pin.name: pin.version for pin in wanted if pin.marker is None or pin.marker.evaluate(values)}


def linux_environment(python: str, architecture: str) -> dict[str, str]:
    """Values of the markers' variables for CPython ("3.11") on Linux."""
    return {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "platform_python_implementation": "CPython",
        "os_name": "posix",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": architecture,
    }


def read_requirements(path: Path, without: Collection[str] = ()) -> RequirementsFile:
    """Read a requirements file. Raises InputError that names every line which does not pin a wheel by its hash.

    without: names of what is left out of it.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError([Problem(f"cannot be read: {error}", where=str(path))]) from error
    pins, problems = [], []
    for number, line in _logical_lines(text):
        if not _INDEX.fullmatch(line):
            try:
                pins.append(_pin(line))
            except ValueError as error:
                problems.append(Problem(str(error), where=f"{path}:{number}"))
    if not pins and not problems:
        problems.append(Problem("has no requirements", where=str(path)))
    if problems:
        raise InputError(problems)
    return RequirementsFile(str(path), text, tuple(pins), without)


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, continued ones joined, each with the number of its first line."""
    number = 1
    for line in text.replace("\\\n", "\0").split("\n"):
        stated = _COMMENT.sub("", line).replace("\0", " ").strip()
        if stated:
            yield number, stated
        number += 1 + line.count("\0")


def _pin(line: str) -> Pin:
    """One requirement. Raises ValueError that says what keeps it from being one wheel's bytes."""
    stated = _HASH.sub("", line).strip()
    shown = stated[:60]
    if stated.startswith("-"):
        msg = f"{shown}: is no requirement and no index; a pinned file has all of its packages in itself"
        raise ValueError(msg)
    try:
        requirement = Requirement(stated)
    except InvalidRequirement as error:
        msg = f"{shown}: is not a requirement: {str(error).splitlines()[0]}"
        raise ValueError(msg) from error
    if stated == line:
        msg = f"{shown}: has no --hash=sha256:...; `uv pip compile --generate-hashes` writes them"
        raise ValueError(msg)
    return Pin(canonicalize_name(requirement.name), _version(requirement, shown), requirement.marker)


def _version(requirement: Requirement, shown: str) -> str:
    if requirement.url is not None:
        try:
            return str(parse_wheel_filename(unquote(urlsplit(requirement.url).path.rpartition("/")[2]))[1])
        except InvalidWheelFilename as error:
            msg = f"{shown}: is not the URL of a wheel"
            raise ValueError(msg) from error
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or specifiers[0].version.endswith("*"):
        msg = f"{shown}: is not pinned to one version with =="
        raise ValueError(msg)
    return specifiers[0].version
