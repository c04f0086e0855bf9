"""Command builders: plain functions to StringCommands. What runs on a host is in `scripts/`, one file per job."""

from __future__ import annotations

import hashlib
import posixpath
import shlex
from importlib import resources

from pyinfra.api import QuoteString, StringCommand

# Scripts that install packages, and what they have run in a transient unit: it travels with them, as a variable.
_UNITS = {
    "packages.sh": "unit-deb.sh",
    "refresh-deb.sh": "unit-deb.sh",
    "driver-deb.sh": "unit-deb.sh",
    "uninstall-deb.sh": "unit-deb.sh",
    "refresh-rpm.sh": "unit-rpm.sh",
    "driver-rpm.sh": "unit-rpm.sh",
    "uninstall-rpm.sh": "unit-rpm.sh",
}
_WITH_INITRAMFS = {"load-driver.sh", "uninstall.sh"}
_WITH_BACKEND = {"release.sh", "build.sh"}
_WITH_STAGING = {"release.sh", "archive.sh", "environment.sh", "uv.sh"}
_WITH_TOOLKIT = {"environment.sh"}
_WITH_OLDER = {"activate.sh", "environment.sh", "uv-cache.sh"}
_WITH_TRANSFER = {"fetch.sh", "fetch-mac.sh"}
# `$1` path, `$2` mode, `$3` SHA-256 of what must arrive. The checksum catches a transfer that was cut off; the rename
# makes a reader see the old file or the new one. umask comes after mkdir: folders stay readable, the content never is
# before it has its mode.
_WRITE = (
    'f=$(dirname "$1"); mkdir -p "$f"; umask 077; rm -f "$f"/.rackserve.*; t=$(mktemp "$f/.rackserve.XXXXXX"); '
    'cat >"$t"; [ "$(sha256sum <"$t" | cut -d" " -f1)" = "$3" ] || { rm -f "$t"; echo "$1: transfer cut off" >&2; '
    'exit 1; }; chown root:root "$t"; chmod "$2" "$t"; sync "$t"; mv -fT "$t" "$1"'
)

# `$1` path, `$2` target. The rename makes a reader see the old link or the new one.
_LINK = 'mkdir -p "$(dirname "$1")"; ln -sfn -- "$2" "$1.rackserve"; mv -fT "$1.rackserve" "$1"'


def script(name: str, *arguments: str, token: str | None = None) -> StringCommand:
    """Run a file of `scripts/` on the host. It travels on standard input: nothing is left behind, nothing is quoted.

    token: of the model hub, for scripts that fetch from it. It travels likewise, and is in no argv and no file.
    """
    text = script_text(name) if token is None else f"rackserve_hub_token={shlex.quote(token)}\n{script_text(name)}"
    return StringCommand("sh", "-s", "--", *(QuoteString(argument) for argument in arguments), _stdin=[text])


def script_text(name: str) -> str:
    """What runs on the host: the parts that scripts share, then the script itself."""
    shared = _part("heartbeat.sh")
    if name in _UNITS:
        unit = _part("unit.sh") + _part(_UNITS[name])
        shared += f"unit_script={shlex.quote(unit)}\n{_part('transaction.sh')}"
    if name.startswith("repository-"):
        shared += _part("repository.sh")
    if name in _WITH_INITRAMFS:
        shared += _part("initramfs.sh")
    if name in _WITH_TRANSFER:
        shared += _part("transfer.sh")
    if name in _WITH_STAGING:
        shared += _part("staging.sh")
    if name in _WITH_TOOLKIT:
        shared += _part("toolkit.sh")
    if name in _WITH_OLDER:
        shared += _part("older.sh")
    if name in _WITH_BACKEND:
        shared += _part("backend.sh")
    if name.endswith("-mac.sh"):
        shared += _part("mac.sh")
    return shared + _part(name)


def _part(name: str) -> str:
    return (resources.files("rackserve.operations") / "scripts" / name).read_text(encoding="utf-8")


def write_file(path: str, text: str, mode: str) -> StringCommand:
    """Write a root-owned text file in one step. The text travels on standard input: it is in no argv, log or diff."""
    if not text.endswith("\n"):
        msg = f"{path}: a text file ends with a newline"
        raise ValueError(msg)
    digest = hashlib.sha256(text.encode()).hexdigest()
    words = (QuoteString(word) for word in ("-c", _WRITE, "sh", path, mode, digest))
    return StringCommand("sh", *words, _stdin=[text])


def link(path: str, target: str) -> StringCommand:
    """Have a symbolic link, moved in one step where it is there."""
    return StringCommand("sh", *(QuoteString(word) for word in ("-c", _LINK, "sh", path, target)))


def refuse(message: str) -> StringCommand:
    """A command that fails with this message: how one host is refused without ending the run for the others."""
    return StringCommand("sh", "-c", QuoteString('echo "$1" >&2; exit 1'), "sh", QuoteString(message))


def parent(path: str) -> str:
    """The folder of a path on a host."""
    return posixpath.dirname(path)


def check_sha256(path: str, sha256: str) -> StringCommand:
    """Fail unless the file has this checksum."""
    check = '[ "$(sha256sum <"$1" | cut -d" " -f1)" = "$2" ] || { echo "$1 arrived damaged" >&2; exit 1; }'
    return StringCommand("sh", *(QuoteString(word) for word in ("-c", check, "sh", path, sha256)))
