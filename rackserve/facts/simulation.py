"""What a package manager would do, asked before it does it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from pyinfra.api import FactBase

from rackserve.planning.transaction import SimulatedTransaction

# Inst NAME [OLD] (NEW ORIGIN [ARCH]) ...; an architecture that is not the host's stands behind the name.
_INST = re.compile(r"^Inst (?P<name>\S+) (?:\[(?P<old>[^\]]+)\] )?\((?P<new>\S+)")
_REMV = re.compile(r"^(?:Remv|Purg) (?P<name>\S+)")
# Reasons are set in deeper than lists of names, by three blanks or more.
_UNMET = re.compile(r"^ +\S+ : |^ {3,}\S|^E: ")
_HELD = "The following held packages will be changed:"
_SIZE = re.compile(r"(?P<number>[\d,.]+) ?(?P<unit>[kKMGT]?)i?B?\b")
_APT_UNITS = {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3, "T": 1000**4}
_DNF_UNITS = {"": 1, "k": 1024, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_DNF_SECTIONS = {
    "Installing": "installs",
    "Installing dependencies": "installs",
    "Installing weak dependencies": "installs",
    "Installing group/module packages": "installs",
    "Upgrading": "upgrades",
    "Downgrading": "upgrades",
    "Reinstalling": "",
    "Removing": "removals",
    "Removing dependent packages": "removals",
    "Removing unused dependencies": "removals",
}
# NAME ARCH VERSION REPOSITORY NUMBER, and a unit from a kilobyte on.
_DNF_FIELDS = 5
_OBSOLETED = re.compile(r"^ +replacing +(?P<name>\S+)\.\S+ ")
_ERROR_LINES = 12
_ERROR_CHARACTERS = 1500


def parse_apt(lines: Iterable[str]) -> SimulatedTransaction:
    """Parse what `apt-get -s`, `--print-uris`, madison and dpkg-query said, each part behind its heading."""
    parts = _parts(lines)
    upgrades, replaced, installs, removals = {}, {}, {}, []
    for line in parts["simulation"]:
        if match := _INST.match(line):
            if match["old"]:
                upgrades[match["name"]], replaced[match["name"]] = match["new"], match["old"]
            else:
                installs[match["name"]] = match["new"]
        elif match := _REMV.match(line):
            removals.append(match["name"])
    candidates: dict[str, tuple[str, ...]] = {}
    for line in parts["candidates"]:
        name, _, version = (word.strip() for word in line.partition("|"))
        version = version.partition("|")[0].strip()
        if version:
            candidates[name] = tuple(dict.fromkeys((*candidates.get(name, ()), version)))
    return SimulatedTransaction(
        installs,
        upgrades,
        replaced,
        tuple(removals),
        _versions(parts["installed"]),
        candidates,
        _apt_error(parts["simulation"]) if parts["code"] != ["0"] else "",
        _bytes_behind("Need to get ", parts["sizes"], _APT_UNITS),
        _bytes_behind("After this operation, ", parts["sizes"], _APT_UNITS),
    )


def parse_dnf(lines: Iterable[str]) -> SimulatedTransaction:
    """Parse what `dnf --assumeno`, repoquery and rpm said, each part behind its heading."""
    parts = _parts(lines)
    said, installed = parts["simulation"], _versions(parts["installed"])
    found = _dnf_table(said)
    candidates: dict[str, tuple[str, ...]] = {}
    for name, version in (line.split("|", 1) for line in parts["candidates"] if "|" in line):
        candidates[name] = tuple(dict.fromkeys((*candidates.get(name, ()), version)))
    # --assumeno ends in 1 where there is something to do.
    solved = parts["code"] == ["0"] or any(line.startswith("Operation aborted") for line in said)
    return SimulatedTransaction(
        found["installs"],
        found["upgrades"],
        {name: installed[name] for name in found["upgrades"] if name in installed},
        tuple(found["removals"]),
        installed,
        candidates,
        "" if solved else _dnf_error(said),
        _bytes_behind("Total download size: ", said, _DNF_UNITS),
        _bytes_behind("Installed size: ", said, _DNF_UNITS),
    )


def _parts(lines: Iterable[str]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {key: [] for key in ("simulation", "code", "sizes", "candidates", "installed")}
    current = "simulation"
    for line in lines:
        if line.startswith("@") and line[1:] in parts:
            current = line[1:]
        else:
            parts[current].append(line)
    return parts


def _versions(lines: Iterable[str]) -> dict[str, str]:
    return dict(line.split("|", 1) for line in lines if "|" in line)


def _apt_error(lines: list[str]) -> str:
    said, held = [], False
    for line in lines:
        # The names stand in the lines below, and nowhere in the error.
        held = line == _HELD or (held and line.startswith("  "))
        if held or _UNMET.match(line):
            said.append(line)
    return _sentence(said or lines[-3:])


def _dnf_error(lines: list[str]) -> str:
    start = next((number for number, line in enumerate(lines) if line.startswith("Error:")), None)
    said = [line for line in lines if line.startswith("No match for argument")]
    said += lines[start:] if start is not None else lines[-3:]
    # Advice to install what does not fit, or something else.
    return _sentence([line for line in said if not line.startswith("(try to add")])


def _sentence(lines: Sequence[str]) -> str:
    kept = [" ".join(line.split()) for line in lines if line.strip()]
    return "; ".join(kept[:_ERROR_LINES])[:_ERROR_CHARACTERS] or "no solution, and no word on why"


def _bytes_behind(words: str, lines: Iterable[str], units: dict[str, int]) -> int | None:
    line = next((line for line in lines if line.startswith(words)), "")
    # `Need to get 3 MB/9 MB of archives`: the rest is there already.
    match = _SIZE.search(line.removeprefix(words).partition("/")[0])
    if not match:
        return None
    try:
        number = int(float(match["number"].replace(",", "")) * units[match["unit"]])
    except (ValueError, OverflowError):
        return None
    return -number if "will be freed" in line else number


def _dnf_table(lines: Iterable[str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {"installs": {}, "upgrades": {}, "removals": {}}
    section = ""
    words: list[str] = []
    for line in lines:
        heading = line.removesuffix(":")
        if line.startswith("Transaction Summary"):
            break
        if line and not line.startswith(" "):
            section, words = _DNF_SECTIONS.get(heading, "") if line.endswith(":") else "", []
            continue
        if match := _OBSOLETED.match(line):
            # An obsoleted package goes, although no section lists it.
            found["removals"][match["name"]] = ""
            continue
        # A name that is too long for its column stands on a line of its own.
        words = [*words, *line.split()]
        if section and len(words) >= _DNF_FIELDS:
            found[section][words[0]] = words[2]
            words = []
    return found


class Simulation(FactBase[SimulatedTransaction]):
    """SimulatedTransaction of installing `names`.

    globs: of the driver's packages. pinned: exact versions by name; apt has them from its preferences. downgrade: also
    to an older version, which dnf does whenever it is stated.
    """

    def command(
        self,
        manager: str,
        names: list[str],
        globs: list[str],
        pinned: dict[str, str] | None = None,
        downgrade: bool = False,
    ) -> str:
        """Shell that asks the package manager; nothing is changed and no lock is taken."""
        if manager == "apt":
            return _apt_command(_words(names), _words(globs), downgrade)
        return _dnf_command(_words(names), _words(globs), _words(exact(names, pinned or {})))

    @staticmethod
    def default() -> SimulatedTransaction:
        """Nobody answered, so nothing may be installed."""
        return SimulatedTransaction(error="the package manager did not answer")

    def process(self, output: list[str]) -> SimulatedTransaction:
        """Parse; the first line names the package manager."""
        parse = parse_apt if output[:1] == ["apt"] else parse_dnf
        return parse(output[1:])


def exact(names: Iterable[str], pinned: Mapping[str, str]) -> list[str]:
    """Names as dnf takes them, with the version behind those that are to have one."""
    return [f"{name}-{pinned[name]}" if name in pinned else name for name in names]


def _words(words: Iterable[str]) -> str:
    return " ".join(map(shlex.quote, words))


def _apt_command(names: str, globs: str, downgrade: bool) -> str:
    # -y, because apt-get then refuses here what it would refuse later: to touch a package on hold.
    options = f"-q -y --no-install-recommends{' --allow-downgrades' if downgrade else ''}"
    return (
        "export LC_ALL=C DEBIAN_FRONTEND=noninteractive; echo apt; "
        f"said=$(apt-get -s {options} install {names} </dev/null 2>&1); code=$?; "
        'printf "%s\\n" "$said"; echo @code; echo $code; '
        # The simulation itself tells no sizes.
        f"echo @sizes; apt-get --print-uris {options} install {names} </dev/null 2>/dev/null | "
        "grep -E '^(Need to get|After this operation)'; "
        f"echo @candidates; apt-cache madison {names} "
        '$(printf "%s\\n" "$said" | sed -n "s/^Inst \\([^ ]*\\) .*/\\1/p") 2>/dev/null; '
        "echo @installed; dpkg-query -W -f '${db:Status-Abbrev}|${Package}|${Version}\\n' "
        f"{globs} 2>/dev/null | sed -n 's/^.i |//p'; true"
    )


def _dnf_command(names: str, globs: str, wanted: str) -> str:
    # Version locks are ours, and hold the very version that is to go.
    options = "--disableplugin=versionlock"
    return (
        f"export LC_ALL=C; echo dnf; dnf --assumeno {options} install {wanted} </dev/null 2>&1; code=$?; "
        "echo @code; echo $code; echo @candidates; "
        f"dnf -q {options} repoquery --qf '%{{name}}|%{{version}}-%{{release}}' {names} 2>/dev/null; "
        f"echo @installed; rpm -qa --qf '%{{NAME}}|%{{VERSION}}-%{{RELEASE}}\\n' {globs} 2>/dev/null; true"
    )
