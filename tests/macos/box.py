"""A virgin Mac that is a function of the command, and becomes one with services by what it is sent."""

from __future__ import annotations

import hashlib
import plistlib
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rackserve.operations import commands as built
from tests.macos.recorded import DIGEST, RUNNING, WATCH
from tests.roles.fakes import Command, FailedError

_SCRIPTS = Path(built.__file__).parent / "scripts"
_BY_TEXT = {built.script_text(file.name): file.name for file in _SCRIPTS.glob("*.sh")}
_CHIP = "Apple M4 Max"


def sent(command: Command) -> tuple[str, ...]:
    """What a command does, in a few words: a script with its arguments, or what a short command is for."""
    words = shlex.split(command)
    if words[:3] == ["sh", "-s", "--"]:
        # What comes from the hub has the hub's token before it, or an empty one.
        return (_BY_TEXT[command.stdin.removeprefix("rackserve_hub_token=''\n")], *words[3:])
    for verb, mark in (
        ("write", "transfer cut off"),
        ("key", "/dev/urandom"),
        ("link", "ln -sfn"),
        ("refuse", 'echo "$1"'),
    ):
        if words[:2] == ["sh", "-c"] and mark in words[2]:
            return (verb, *words[4:])
    return tuple(words)


@dataclass
class MacBox:
    """files: text, mode and owner by path. loaded: digest by service, of daemon and watch. fails: what breaks off."""

    chip: str = _CHIP
    files: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    releases: dict[str, list[str]] = field(default_factory=dict)
    accounts: set[str] = field(default_factory=set)
    loaded: dict[str, str] = field(default_factory=dict)
    key_changed: int = 0
    fails: str = ""

    def __call__(self, command: Command) -> str | None:
        if command.fact:
            return self.answer(command)
        verb, *words = sent(command)
        if verb == self.fails:
            raise FailedError(f"{verb} was cut off")
        doing: Callable[..., None] | None = getattr(self, f"do_{verb.removesuffix('.sh').replace('-', '_')}", None)
        if verb == "write":
            self.write(command, *words)
        elif doing is not None:
            doing(*words)
        else:
            assert verb in {"install", "rm", "refuse"}, verb
        return None

    # what is asked

    def answer(self, command: Command) -> str:
        text = shlex.split(command)[-1] if command.startswith("sh -c") else str(command)
        return getattr(self, f"tell_{command.fact}")(text)

    def tell_NodeFact(self, _: str) -> str:  # noqa: N802
        return f"id=macos\nversion=15.6\narch=arm64\nmem_kib={131072 * 1024}\nchip={self.chip}"

    def tell_InstalledDaemons(self, _: str) -> str:  # noqa: N802
        return "\n".join(path for path in self.files if path.startswith("/Library/LaunchDaemons/"))

    def tell_Releases(self, text: str) -> str:  # noqa: N802
        link = re.search(r"readlink (\S+)\)", text)
        assert link
        current = self.links.get(link[1], "").rpartition("/")[2]
        program = shlex.split(text)[shlex.split(text).index("-x") + 1].removeprefix("$r")
        complete = [name for name, programs in self.releases.items() if program in programs]
        return "".join(f"complete={name}\n" for name in complete) + (f"current={current}" if current else "")

    def tell_MacPaths(self, text: str) -> str:  # noqa: N802
        lines = []
        for path in _listed(text):
            if path in self.files:
                content, mode, owner = self.files[path]
                digest = hashlib.sha256(content.encode()).hexdigest()
                lines.append(f"{mode} {owner.replace(':', ' ')} {len(content)} {digest} {path}")
            elif path in self.sizes:
                lines.append(f"644 root wheel {self.sizes[path]} - {path}")
        return "\n".join(lines)

    def tell_Account(self, text: str) -> str:  # noqa: N802
        (account,) = set(re.findall(r"/Users/([\w-]+)", text))
        if account not in self.accounts:
            return "Group: \nHome: "
        user = "UniqueID: 499\nPrimaryGroupID: 499\nUserShell: /usr/bin/false\ndsAttrTypeNative:IsHidden: 1"
        return f"{user}\nGroup: 499\nHome: 700 {account} {account}"

    def tell_Links(self, text: str) -> str:  # noqa: N802
        return "\n".join(f"{path}\n{self.links[path]}" for path in _listed(text) if path in self.links)

    def tell_Daemon(self, text: str) -> str:  # noqa: N802
        (name,) = set(re.findall(r"system/io\.rackserve\.([a-z0-9-]+)\.health", text))
        job, watch = "", ""
        if name in self.loaded:
            job, watch = (part.replace(DIGEST, self.loaded[name]) for part in (RUNNING, WATCH))
        changed = f"changed={self.key_changed}\nnow=1000\nelapsed=05:00"
        return f"== daemon\n{job}== watch\n{watch}== overrides\n== times\n{changed}"

    def tell_Existing(self, text: str) -> str:  # noqa: N802
        there = [*self.files, *self.sizes, *self.links, *(f"/opt/rackserve/releases/{name}" for name in self.releases)]
        return "\n".join(path for path in _listed(text) if any(f"{name}/".startswith(f"{path}/") for name in there))

    # what is done

    def write(self, command: Command, path: str, mode: str, owner: str, digest: str) -> None:
        assert hashlib.sha256(command.stdin.encode()).hexdigest() == digest
        self.files[path] = (command.stdin, mode, owner)

    def do_key(self, path: str, owner: str) -> None:
        self.files[path] = ("sk-made\n", "440", owner)

    def do_link(self, path: str, target: str) -> None:
        self.links[path] = target

    def do_fetch_mac(self, _url: str, _sha256: str, size: str, path: str) -> None:
        self.sizes[path] = int(size)

    def do_release_mac(self, folder: str, archive: str, program: str) -> None:
        assert archive in self.sizes
        self.releases[folder.rpartition("/")[2]] = [program]

    def do_activate_mac(self, folder: str, link: str, _keep: str) -> None:
        assert folder.rpartition("/")[2] in self.releases
        self.links[link] = folder

    def do_user_mac(self, account: str, _home: str) -> None:
        self.accounts.add(account)

    def do_load_mac(self, root: str, name: str, _seconds: str) -> None:
        assert root == ""
        job = plistlib.loads(self.files[f"/Library/LaunchDaemons/io.rackserve.{name}.plist"][0].encode())
        # What it could not run without.
        assert job["UserName"] in self.accounts
        program = job["ProgramArguments"][0]
        (link,) = [link for link in self.links if program.startswith(f"{link}/")]
        assert program.removeprefix(f"{link}/") in self.releases[self.links[link].rpartition("/")[2]]
        self.loaded[name] = job["EnvironmentVariables"]["RACKSERVE_DIGEST"]
        self.key_changed = 0

    def do_remove_mac(self, _root: str, name: str, _seconds: str) -> None:
        mine = {path for path in self.files if f".{name}." in path or f"/{name}/" in path or f"/{name}." in path}
        self.files = {path: file for path, file in self.files.items() if path not in mine}
        self.accounts.discard(f"_rackserve-{name}")
        self.loaded.pop(name, None)

    def do_uninstall_mac(self, *paths: str) -> None:
        def stays(name: str) -> bool:
            return not any(f"{name}/".startswith(f"{path}/") for path in paths)

        self.files = {path: file for path, file in self.files.items() if stays(path)}
        self.sizes = {path: size for path, size in self.sizes.items() if stays(path)}
        self.links = {path: target for path, target in self.links.items() if stays(path)}
        self.releases = {name: made for name, made in self.releases.items() if stays(f"/opt/rackserve/releases/{name}")}


def _listed(text: str) -> list[str]:
    """The paths of a loop `for p in PATHS; do`."""
    found = re.search(r"for p in (.*?); do", text)
    assert found, text
    return shlex.split(found[1])
