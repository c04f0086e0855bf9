"""Services on a Mac: what launchd runs for them, with the tools that macOS brings."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation
from pyinfra.api.command import PyinfraCommand

from rackserve.facts.existing import Existing
from rackserve.facts.launchd import Daemon, InstalledDaemons
from rackserve.facts.mac import Account, MacPaths
from rackserve.facts.paths import Links, PathState
from rackserve.keys import read_api_key
from rackserve.operations import commands
from rackserve.operations.current import KEEP, current
from rackserve.operations.fetch import hub_token
from rackserve.planning.macos import OTHER_JOBS, MacRelease
from rackserve.planning.model_source import GgufSource
from rackserve.rendering.launchd import label, watch_label
from rackserve.rendering.text import RenderedFile
from rackserve.runtimes.launch import RELEASES

ARCHIVES = "/opt/rackserve/archives"
# Seconds that a daemon may take to stop that nothing is known of any more.
_STOP_S = 60
# The file system that the scripts work in: the host's own.
_ROOT = ""
# `$1` path, `$2` mode, `$3` owner and group, `$4` SHA-256 of what must arrive; otherwise as on Linux.
_WRITE = (
    'f=$(dirname "$1"); mkdir -p "$f"; umask 077; rm -f "$f"/.rackserve.*; t=$(mktemp "$f/.rackserve.XXXXXX"); '
    'cat >"$t"; [ "$(shasum -a 256 <"$t" | cut -d" " -f1)" = "$4" ] || { rm -f "$t"; echo "$1: transfer cut off" >&2; '
    'exit 1; }; chown "$3" "$t"; chmod "$2" "$t"; sync; mv -f "$t" "$1"'
)
# `$1` path, `$2` owner and group. 256 bits from the host's own random source.
_GENERATE = (
    'f=$(dirname "$1"); umask 077; rm -f "$f"/.rackserve.*; t=$(mktemp "$f/.rackserve.XXXXXX"); '
    'printf "sk-%s\\n" "$(head -c 32 /dev/urandom | base64 | tr -d "\\n=" | tr "+/" "-_")" >"$t"; '
    'chown "$2" "$t"; chmod 440 "$t"; sync; mv -f "$t" "$1"'
)

_LINK = 'mkdir -p "$(dirname "$1")"; ln -sfn "$2" "$1"'


@operation()
def only_daemons(names: Sequence[str]) -> Generator[StringCommand, None, None]:
    """Have no service of ours but these. Models stay on disk."""
    surplus = [name for name in host.get_fact(InstalledDaemons) if name not in (*names, *OTHER_JOBS)]
    if not surplus:
        host.noop("no other services")
        return
    for name in surplus:
        yield commands.script("remove-mac.sh", _ROOT, name, str(_STOP_S))


@operation()
def mac_release(release: MacRelease) -> Generator[PyinfraCommand, None, None]:
    """Have the release complete and current."""
    yield from current(release.name, release.link, release.program, _unpacked(release), activate=_activation)


def _activation(name: str, link: str) -> StringCommand:
    return commands.script("activate-mac.sh", f"{RELEASES}/{name}", link, str(KEEP))


def _unpacked(release: MacRelease) -> Iterator[PyinfraCommand]:
    archive = f"{ARCHIVES}/{release.name}.tar.gz"
    yield commands.script("fetch-mac.sh", release.url, release.checksum, str(release.size_bytes), archive)
    yield commands.script("release-mac.sh", f"{RELEASES}/{release.name}", archive, release.program)
    yield StringCommand("rm", "-f", archive)


@operation()
def mac_model(source: GgufSource, hub: str, token_file: str | None = None) -> Generator[StringCommand, None, None]:
    """Have the file in its place. What is there was verified before it got there: its size tells.

    token_file: the operator's, with a token of `hub`.
    """
    state = host.get_fact(MacPaths, paths=[source.path], hash_content=False).get(source.path)
    if state is not None and state.size == source.size_bytes:
        host.noop(f"{source.path} in place")
        return
    words = (source.url, source.sha256, str(source.size_bytes), source.path)
    yield commands.script("fetch-mac.sh", *words, token=hub_token(source.url, hub, token_file))


@operation()
def mac_account(account: str, home: str) -> Generator[StringCommand, None, None]:
    """Have a hidden user of this name without a login, with a group and a private folder of its own."""
    if host.get_fact(Account, account=account, home=home).is_private(account):
        host.noop(f"{account} is there")
        return
    yield commands.script("user-mac.sh", account, home)


@operation()
def mac_api_key(path: str, group: str, source: str | None) -> Generator[StringCommand, None, None]:
    """Have an API key at `path` that root and the service alone can read, and root alone can change.

    It is the content of the operator's local file `source`, or a random one made once.
    """
    state = host.get_fact(MacPaths, paths=[path]).get(path)
    owner = f"root:{group}"
    private = state is not None and (state.mode, state.user, state.group) == ("440", "root", group)
    text = None if source is None else f"{read_api_key(source)}\n"
    if private and (text is None or _holds(state, text)):
        host.noop("key in place")
        return
    folder = commands.parent(path)
    # Passed through by all services, listed by none.
    yield StringCommand("install", "-d", "-m", "711", QuoteString(commands.parent(folder)))
    yield StringCommand("install", "-d", "-m", "750", "-o", "root", "-g", QuoteString(group), QuoteString(folder))
    if text is None:
        yield StringCommand("sh", *(QuoteString(word) for word in ("-c", _GENERATE, "sh", path, owner)))
    else:
        yield write_file(path, text, "440", owner)


@operation()
def mac_files(files: Sequence[RenderedFile]) -> Generator[StringCommand, None, None]:
    """Have these files, byte for byte, owned by root with their mode; launchd ignores daemons that others may write."""
    states = host.get_fact(MacPaths, paths=[file.path for file in files])
    differing = [file for file in files if not _as_wanted(file, states.get(file.path))]
    if not differing:
        host.noop(f"{len(files)} files as planned")
        return
    for file in differing:
        yield write_file(file.path, file.text, file.mode, "root:wheel")


@operation()
def mac_links(links: Sequence[tuple[str, str]]) -> Generator[StringCommand, None, None]:
    """Have these symbolic links, each a path and its target."""
    found = host.get_fact(Links, paths=[path for path, _ in links]) if links else {}
    differing = [(path, target) for path, target in links if found.get(path) != target]
    if not differing:
        host.noop(f"{len(links)} links as planned")
        return
    for path, target in differing:
        yield StringCommand("sh", *(QuoteString(word) for word in ("-c", _LINK, "sh", path, target)))


@operation()
def mac_serving(service: str, digest: str, files: Sequence[str], seconds: int) -> Generator[StringCommand, None, None]:
    """Have launchd serve the plan of this digest, by a process that began after `files` were put there, and watch it.

    Decided by what is loaded and not by what this run changed: a run that died between writing a file and loading it
    leaves nothing that a later run would miss. seconds: that the daemon may take to stop. Returns when a completion was
    answered.
    """
    if host.get_fact(Daemon, label=label(service), watch=watch_label(service), files=files).runs(digest):
        host.noop(f"{label(service)} serves the plan")
        return
    yield commands.script("load-mac.sh", _ROOT, service, str(seconds))


@operation()
def mac_absent(paths: Sequence[str]) -> Generator[StringCommand, None, None]:
    """Have none of our own folders and files."""
    existing = host.get_fact(Existing, paths=list(paths))
    if not existing:
        host.noop("nothing of rackserve here")
        return
    yield commands.script("uninstall-mac.sh", *existing)


def write_file(path: str, text: str, mode: str, owner: str) -> StringCommand:
    """Write a text file in one step. The text travels on standard input: it is in no argv, log or diff."""
    digest = hashlib.sha256(text.encode()).hexdigest()
    words = (QuoteString(word) for word in ("-c", _WRITE, "sh", path, mode, owner, digest))
    return StringCommand("sh", *words, _stdin=[text])


def _as_wanted(file: RenderedFile, state: PathState | None) -> bool:
    if state is None or (state.user, state.group, state.mode) != ("root", "wheel", file.mode):
        return False
    return _holds(state, file.text)


def _holds(state: PathState | None, text: str) -> bool:
    return state is not None and state.sha256 == hashlib.sha256(text.encode()).hexdigest()
