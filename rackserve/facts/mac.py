"""Files and accounts of a Mac, read with what macOS brings."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from pyinfra.api import FactBase

from rackserve.facts.paths import PathState, parse_paths


class MacPaths(FactBase[dict[str, PathState]]):
    """PathState of those paths that are regular files, by path. `hash_content=False` leaves the SHA-256 as `-`."""

    def command(self, paths: list[str], hash_content: bool = True) -> str:
        """Shell that prints a line for each path that is a regular file and no link."""
        digest = '"$(shasum -a 256 < "$p" | cut -d" " -f1)"' if hash_content else "-"
        listed = " ".join(shlex.quote(path) for path in paths)
        return (
            f'for p in {listed}; do if [ -f "$p" ] && [ ! -L "$p" ]; then '
            f'echo "$(stat -f "%Lp %Su %Sg %z" "$p")" {digest} "$p"; fi; done'
        )

    @staticmethod
    def default() -> dict[str, PathState]:
        """No path exists."""
        return {}

    def process(self, output: list[str]) -> dict[str, PathState]:
        """Parse."""
        return parse_paths(output)


@dataclass(frozen=True, slots=True)
class AccountState:
    """A user of the system as the directory knows it. home: mode and owner of its folder, empty where there is none."""

    uid: int
    gid: int
    group: int
    hidden: bool
    shell: str
    home: str

    def is_private(self, account: str) -> bool:
        """Whether it is hidden and without a login, in a group and a folder of its own."""
        return (
            0 < self.uid < 500  # noqa: PLR2004 (macOS shows ids from 500 on at login)
            and 0 < self.gid == self.group
            and self.hidden
            and self.shell == "/usr/bin/false"
            and self.home == f"700 {account} {account}"
        )


def parse_account(lines: Iterable[str]) -> AccountState:
    """Parse `Key: value` lines of dscl, those of the group under `Group`."""
    values = {key.rpartition(":")[2]: value.strip() for key, separator, value in map(_parted, lines) if separator}
    return AccountState(
        uid=_number(values.get("UniqueID", "")),
        gid=_number(values.get("PrimaryGroupID", "")),
        group=_number(values.get("Group", "")),
        hidden=values.get("IsHidden") == "1",
        shell=values.get("UserShell", ""),
        home=values.get("Home", ""),
    )


def _parted(line: str) -> tuple[str, str, str]:
    # The directory calls keys that are not its own dsAttrTypeNative:KEY.
    head, separator, value = line.partition(": ")
    return head, separator, value


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


class Account(FactBase[AccountState]):
    """AccountState of a service's user."""

    def command(self, account: str, home: str) -> str:
        """Shell that prints what the directory has of the user and of the group of that name."""
        user, group = shlex.quote(f"/Users/{account}"), shlex.quote(f"/Groups/{account}")
        return (
            f"dscl . -read {user} UniqueID PrimaryGroupID UserShell IsHidden 2>/dev/null; "
            f"echo \"Group: $(dscl . -read {group} PrimaryGroupID 2>/dev/null | awk '{{print $2}}')\"; "
            f'echo "Home: $(stat -f "%Lp %Su %Sg" {shlex.quote(home)} 2>/dev/null)"'
        )

    @staticmethod
    def default() -> AccountState:
        """No such user."""
        return parse_account([])

    def process(self, output: list[str]) -> AccountState:
        """Parse."""
        return parse_account(output)
