"""Which Debian mirror to build from, read from the machine's own apt configuration.

No mirror is written down anywhere in rackserve: a laptop, a CI runner and a closed network each already know theirs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rackserve.domain.errors import InputError, LabError, Problem

SUITES = ("bookworm", "trixie", "forky")
MIRROR_VARIABLE = "RACKSERVE_LAB_MIRROR"

# forky is not released: it has neither -updates nor a security archive worth the name yet.
_ROLLING = {"forky"}
_DEBIAN_NAMES = {"bullseye", "bookworm", "trixie", "forky", "sid", "oldstable", "stable", "testing", "unstable"}
_ONE_LINE = re.compile(r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)\s*(?P<components>.*)$")


@dataclass(frozen=True, slots=True)
class Source:
    """One binary package source: an archive, one suite of it, its components and the key it is signed with."""

    uri: str
    suite: str
    components: tuple[str, ...]
    signed_by: str = ""


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where this machine gets Debian from; `security` is empty if it has no security archive."""

    archive: str
    security: str
    components: tuple[str, ...]


def parse_one_line(text: str) -> list[Source]:
    """The `deb` lines of a sources.list file; deb-src and comments are left out."""
    found = []
    for line in text.splitlines():
        match = _ONE_LINE.match(line.split("#", 1)[0].strip())
        if match:
            options = dict(option.split("=", 1) for option in (match["options"] or "").split() if "=" in option)
            components = tuple(match["components"].split())
            found.append(Source(match["uri"], match["suite"], components, options.get("signed-by", "")))
    return found


def parse_deb822(text: str) -> list[Source]:
    """The enabled `deb` sources of a .sources file, one per URI and suite."""
    found = []
    for fields in _paragraphs(text):
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        components = tuple(fields.get("components", "").split())
        found += [
            Source(uri, suite, components, fields.get("signed-by", ""))
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """RFC 822 paragraphs with lower-case field names; continuation lines are joined, comments dropped."""
    uncommented = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for paragraph in re.split(r"\n\s*\n", uncommented):
        fields: dict[str, str] = {}
        name = ""
        for line in paragraph.splitlines():
            if line[:1].isspace() and name:
                fields[name] = f"{fields[name]} {line.strip()}".strip()
            elif ":" in line:
                name, _, value = line.partition(":")
                name = name.strip().lower()
                fields[name] = value.strip()
        if fields:
            yield fields


def find_mirror(sources: Iterable[Source]) -> Mirror | None:
    """The Debian archive among the machine's sources, or None.

    Third-party repositories often use a Debian code name as their suite too, so Debian's own is told by `main`, a
    Debian key (or none named) and, best of all, by having `-updates` beside it.
    """
    debian = [source for source in sources if "main" in source.components and _has_debian_key(source)]
    with_updates = {source.uri for source in debian if source.suite.endswith("-updates")}
    archives = [source for source in debian if source.suite in _DEBIAN_NAMES]
    archives.sort(key=lambda source: source.uri not in with_updates)
    if not archives:
        return None
    security = next((s.uri for s in debian if s.suite.endswith(("-security", "/updates"))), "")
    return Mirror(archives[0].uri, security, archives[0].components)


def _has_debian_key(source: Source) -> bool:
    key = source.signed_by
    return not key or "BEGIN PGP" in key or Path(key.split()[0]).name.startswith("debian-archive-")


def apt_lines(mirror: Mirror, suite: str) -> list[str]:
    """One-line apt sources for `suite` from `mirror`."""
    if suite not in SUITES:
        problem = Problem(
            f"there is no lab base for Debian {suite!r}", key="--suite", hint=f"one of {', '.join(SUITES)}"
        )
        raise InputError([problem])
    components = " ".join(mirror.components)
    lines = [f"deb {mirror.archive} {suite} {components}"]
    if suite not in _ROLLING:
        lines.append(f"deb {mirror.archive} {suite}-updates {components}")
        if mirror.security:
            lines.append(f"deb {mirror.security} {suite}-security {components}")
    return lines


def machine_mirror(etc_apt: Path = Path("/etc/apt"), environ: Mapping[str, str] = os.environ) -> Mirror:
    """The mirror named in RACKSERVE_LAB_MIRROR ("ARCHIVE [SECURITY]"), else the one this machine installs from."""
    named = environ.get(MIRROR_VARIABLE, "").split()
    if named:
        return Mirror(named[0], named[1] if len(named) > 1 else "", ("main",))
    mirror = find_mirror(_resolve(source) for source in _configured(etc_apt))
    if mirror is None:
        raise LabError(
            f"no Debian archive in {etc_apt}/sources.list or sources.list.d: "
            f'set {MIRROR_VARIABLE}="URL of a Debian archive [URL of its security archive]"'
        )
    return mirror


def _configured(etc_apt: Path) -> Iterator[Source]:
    folder = etc_apt / "sources.list.d"
    for file in (etc_apt / "sources.list", *sorted(folder.glob("*.sources")), *sorted(folder.glob("*.list"))):
        if file.is_file():
            parse = parse_deb822 if file.suffix == ".sources" else parse_one_line
            yield from parse(file.read_text(errors="replace"))


def _resolve(source: Source) -> Source:
    """Cloud images name a file of mirrors (`mirror+file:`) in place of a URL: take the first one in it."""
    if not source.uri.startswith("mirror+file:"):
        return source
    listed = Path(source.uri.removeprefix("mirror+file:")).read_text().split()
    return Source(listed[0], source.suite, source.components, source.signed_by) if listed else source
