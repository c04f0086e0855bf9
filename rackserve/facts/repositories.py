"""Package repositories as a host defines them: our own files, the keys they trust, and who else defines the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from pyinfra.api import FactBase

_ONE_LINE = re.compile(r"^deb(?:-src)?\s+(?:\[[^\]]*\]\s*)?(?P<url>\S+)\s+(?P<suite>\S+)")
_SECTION = re.compile(r"^\[[^\]]+\]\s*$")
_OFF = {"no", "false", "0", "off", "without", "disable"}
# Runs where gpg may be missing; --no-keyring leaves alone whatever root's own keyring is.
_FINGERPRINTS = (
    'gpg --homedir "$h" --no-keyring --batch --show-keys --with-colons "$p" 2>/dev/null | '
    'awk -F: -v p="$p" \'$1 == "pub" {n = 1} $1 == "fpr" && n {print "fingerprint=" $10 " " p; n = 0}\''
)


@dataclass(frozen=True, slots=True)
class Definition:
    """One entry of a file that tells a package manager where packages are.

    urls: all base URLs; for a repository without a pool also those with the suite behind them. where: the line of a
    .list file or that of a section in a .repo file, empty in a .sources file. alone: nothing else stands in the file.
    """

    file: str
    urls: tuple[str, ...]
    where: str
    alone: bool


@dataclass(frozen=True, slots=True)
class RepositoryState:
    """sha256: of files by path. stripped: of key files without their Version line, as NVIDIA publishes a checksum.

    fingerprints: of the primary keys in a keyring, by its path. missing: programs that are needed and not there.
    """

    sha256: Mapping[str, str]
    stripped: Mapping[str, str]
    fingerprints: Mapping[str, tuple[str, ...]]
    definitions: tuple[Definition, ...]
    missing: tuple[str, ...]


def comparable(url: str, architecture: str = "", release: str = "") -> str:
    """A base URL in the one spelling that tells whether two are the same place."""
    for word, value in (("$(ARCH)", architecture), ("$basearch", architecture), ("$releasever", release)):
        url = url.replace(word, value)
    try:
        parts = urlsplit(url)
    except ValueError:
        # No URL, so no place that a plan could name.
        return url
    scheme = "http" if parts.scheme == "https" else parts.scheme
    path = re.sub(r"/(?:\.?/)+", "/", parts.path).rstrip("/").removesuffix("/.")
    return f"{scheme}://{parts.netloc.rpartition('@')[2].lower()}{path}"


def parse_repositories(lines: Iterable[str]) -> RepositoryState:
    """Parse `key=value` lines, and files as `file=PATH` with their own lines behind a bar."""
    values: dict[str, dict[str, str]] = {"sha256": {}, "stripped": {}}
    fingerprints: dict[str, list[str]] = {}
    files: dict[str, list[str]] = {}
    told: dict[str, list[str]] = {"missing": [], "architecture": [""], "release": [""]}
    for line in lines:
        if line.startswith("|"):
            if files:
                list(files.values())[-1].append(line[1:])
            continue
        key, _, value = line.partition("=")
        first, _, path = value.partition(" ")
        if key in values:
            values[key][path] = first
        elif key == "fingerprint":
            fingerprints.setdefault(path, []).append(first)
        elif key == "file":
            files[value] = []
        elif key in told:
            told[key].append(value)
    architecture, release = told["architecture"][-1], told["release"][-1].partition(".")[0]
    return RepositoryState(
        values["sha256"],
        values["stripped"],
        {path: tuple(sorted(found)) for path, found in fingerprints.items()},
        tuple(entry for path, text in files.items() for entry in _definitions(path, text, architecture, release)),
        tuple(told["missing"]),
    )


def _definitions(path: str, lines: list[str], architecture: str, release: str) -> Iterator[Definition]:
    if path.endswith(".sources"):
        found = [("", urls) for urls in _deb822(lines)]
    elif path.endswith(".repo"):
        found = list(_sections(lines))
    else:
        matches = [(line, _ONE_LINE.match(line.split("#", 1)[0].strip())) for line in lines]
        found = [(line, _with_suite([match["url"]], [match["suite"]])) for line, match in matches if match]
    for where, urls in found:
        spelled = tuple(dict.fromkeys(comparable(url, architecture, release) for url in urls))
        yield Definition(path, spelled, where, alone=len(found) == 1)


def _with_suite(urls: list[str], suites: list[str]) -> list[str]:
    # `https://host/repos/ ubuntu2404/x86_64/` is the same place as `https://host/repos/ubuntu2404/x86_64/ /`.
    flat = [f"{url}/{suite}" for url in urls for suite in suites if suite.endswith("/") and suite != "/"]
    return [*urls, *flat]


def _deb822(lines: list[str]) -> Iterator[list[str]]:
    uncommented = "\n".join(line for line in lines if not line.startswith("#"))
    for paragraph in re.split(r"\n\s*\n", uncommented):
        # A field goes on in lines that begin with a blank.
        joined = re.sub(r"\n[ \t]+", " ", paragraph)
        pairs = (line.partition(":") for line in joined.splitlines())
        fields = {name.strip().lower(): value.split() for name, _, value in pairs}
        if fields.get("uris") and not {word.lower() for word in fields.get("enabled", [])} & _OFF:
            yield _with_suite(fields["uris"], fields.get("suites", []))


def _sections(lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    where, option, urls, enabled = "", "", "", True
    for line in [*lines, "[]"]:
        if _SECTION.match(line) or line == "[]":
            if where and enabled and urls.split():
                yield where, urls.split()
            where, option, urls, enabled = line, "", "", True
            continue
        # A value goes on in lines that begin with a blank; several URLs may have commas between them.
        goes_on = line[:1].isspace()
        name, _, value = ("", "", line) if goes_on else line.partition("=")
        option = option if goes_on else name.strip()
        if option == "baseurl":
            urls = f"{urls if goes_on else ''} {value.replace(',', ' ')}"
        elif option == "enabled" and not goes_on:
            enabled = value.strip().lower() not in _OFF
    # dnf's main section has no base URL; mirror lists are the distribution's own and name no vendor.


class RepositoryFiles(FactBase[RepositoryState]):
    """RepositoryState of a host. files, keyrings, originals: paths of ours; programs: that we cannot do without."""

    def command(self, files: list[str], keyrings: list[str], originals: list[str], programs: list[str]) -> str:
        """Shell that prints all of it."""
        ours, keys, kept, needed = (
            " ".join(map(shlex.quote, words)) for words in (files, keyrings, originals, programs)
        )
        return (
            f'for p in {ours}; do [ -f "$p" ] && echo "sha256=$(sha256sum <"$p" | cut -d" " -f1) $p"; done; '
            f'for p in {kept}; do [ -f "$p" ] && '
            'echo "stripped=$(sed "/^Version/d" "$p" | sha256sum | cut -d" " -f1) $p"; done; '
            f'h=$(mktemp -d) && for p in {keys}; do [ -f "$p" ] && {_FINGERPRINTS}; done; rm -rf "$h"; '
            f'for p in {needed}; do command -v "$p" >/dev/null || echo "missing=$p"; done; '
            'echo "architecture=$(dpkg --print-architecture 2>/dev/null || uname -m)"; '
            'echo "release=$(. /etc/os-release 2>/dev/null; echo "${VERSION_ID:-}")"; '
            "for p in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources "
            # Unlike sed, awk ends each line: a file without a newline at its end would run into the next one.
            """/etc/yum.repos.d/*.repo; do [ -f "$p" ] && echo "file=$p" && awk '{print "|" $0}' "$p"; done; true"""
        )

    @staticmethod
    def default() -> RepositoryState:
        """Nothing known."""
        return RepositoryState({}, {}, {}, (), ())

    def process(self, output: list[str]) -> RepositoryState:
        """Parse."""
        return parse_repositories(output)
