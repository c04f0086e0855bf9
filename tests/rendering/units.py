"""Unit files as systemd reads them: its own parser where it is installed, and a small independent one."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests import needs

needs_systemd = needs.programs("systemd-analyze")

_ESCAPES = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "s": " "}


def analyze(*arguments: str, cwd: Path, debug: bool = False) -> subprocess.CompletedProcess[str]:
    # Debug output is the one place where systemd shows a unit as it has understood it.
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"} | ({"SYSTEMD_LOG_LEVEL": "debug"} if debug else {})
    command = ["systemd-analyze", "--no-pager", "--man=no", *arguments]
    return subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", check=False, timeout=120
    )


def words_by_systemd(folder: Path, written: list[str]) -> list[list[str]]:
    """Put each text behind a program name and return the arguments that systemd would start it with."""
    lines = "".join(f"ExecStart=/bin/echo {text}\n" for text in written)
    (folder / "words.service").write_text(f"[Service]\nType=oneshot\n{lines}", encoding="utf-8", newline="")
    done = analyze("verify", "./words.service", cwd=folder, debug=True)
    shown = re.findall(r"^\t+Command Line: /bin/echo ?(.*)$", done.stdout, re.MULTILINE)
    assert len(shown) == len(written), done.stderr[-2000:]
    return [[_expanded(word) for word in _shown_words(line)] for line in shown]


def _shown_words(line: str) -> list[str]:
    """systemd shows words apart by one space; those with anything special stand in double quotes, C-escaped."""
    words = []
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"(?: |$)|([^ ]+)(?: |$)', line):
        quoted, bare = match.groups()
        words.append(bare if quoted is None else re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), quoted))
    return words


def _expanded(word: str) -> str:
    """Variables are expanded when the command is run: `$$` is a dollar, and any other one a variable."""
    assert "$" not in word.replace("$$", ""), f"a variable would be expanded in {word!r}"
    return word.replace("$$", "$")


def words_by_manual(line: str) -> list[str]:
    """Split a command line as systemd.syntax(7) and systemd.service(5) describe it."""
    words, word, quote, position = [], None, "", 0
    while position < len(line):
        character = line[position]
        position += 1
        if character == "\\":
            character, position = _unescape(line, position)
            word = (word or "") + character
        elif quote:
            if character == quote:
                quote = ""
            else:
                word = (word or "") + character
        elif character in "\"'":
            quote, word = character, word or ""
        elif character in " \t":
            if word is not None:
                words.append(word)
            word = None
        else:
            word = (word or "") + character
    assert not quote, "a quote is left open"
    return [_expanded(_without_specifiers(entry)) for entry in [*words, *([word] if word is not None else [])]]


def _unescape(line: str, position: int) -> tuple[str, int]:
    kind = line[position]
    if kind in _ESCAPES:
        return _ESCAPES[kind], position + 1
    length = {"x": 2, "u": 4, "U": 8}.get(kind)
    if length:
        return chr(int(line[position + 1 : position + 1 + length], 16)), position + 1 + length
    assert kind in "\\\"'", f"\\{kind} is no escape sequence"
    return kind, position + 1


def _without_specifiers(word: str) -> str:
    assert "%" not in word.replace("%%", ""), f"a specifier would be expanded in {word!r}"
    return word.replace("%%", "%")


def directives(text: str) -> list[tuple[str, str, str]]:
    """(section, key, value) of a unit file in order, continued lines joined, comments left out."""
    found, section, pending = [], "", ""
    for line in text.split("\n"):
        if not pending and (not line.strip() or line.lstrip()[0] in "#;"):
            continue
        if line.endswith("\\"):
            pending += line[:-1] + " "
            continue
        whole, pending = (pending + line).strip(), ""
        if whole.startswith("["):
            section = whole.strip("[]")
        else:
            key, separator, value = whole.partition("=")
            assert separator, f"no directive: {whole!r}"
            found.append((section, key.strip(), value.strip()))
    return found
