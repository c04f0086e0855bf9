"""Text of files as they land on hosts: templates of ours filled in, and systemd's quoting, once."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
UNIT_FOLDER = "/etc/systemd/system"
LIBEXEC = "/usr/libexec/rackserve"
# Nothing in it that systemd would expand, split at or take for a quote.
_HARMLESS = re.compile(r"[A-Za-z0-9._/@:+=,-]+")


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """A text file as it lands on a host, byte for byte; owned by root."""

    path: str
    text: str
    mode: str = "644"


def systemd_word(word: str, *, specifiers: bool = False) -> str:
    r"""Quote one word of a command line or one assignment for a unit file.

    Words of harmless characters stay as they are. `%` and `$` are doubled, because systemd expands both; with
    `specifiers` the word keeps its `%` (our own constants only). Raises ValueError for control characters: a newline
    would start a new directive.
    Source: systemd.syntax(7), "Quoting", and systemd.service(5), "Command lines".
    """
    quoted = _quoted(word, specifiers=specifiers)
    return quoted if quoted == word else quoted.replace("$", "$$")


def systemd_assignment(name: str, value: str) -> str:
    """Quote one assignment of `Environment=`, where `$` stands for itself. Raises ValueError as systemd_word does.

    Source: systemd.exec(5), "Environment=".
    """
    return _quoted(f"{name}={value}")


def _quoted(word: str, *, specifiers: bool = False) -> str:
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in word):  # noqa: PLR2004 (ASCII controls)
        msg = f"a control character cannot stand in a unit file: {word!r}"
        raise ValueError(msg)
    if _HARMLESS.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped if specifiers else escaped.replace("%", "%%")}"'


def template_text(name: str, **values: object) -> str:
    """A template of ours filled in; a value that it lacks is an error."""
    return _environment().get_template(name).render(**values)


def program(name: str) -> RenderedFile:
    """A helper program of ours."""
    return RenderedFile(f"{LIBEXEC}/{name}", (TEMPLATES / "libexec" / name).read_text(encoding="utf-8"), "755")


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 (unit files, not HTML; values are quoted by systemd_word)
    )
