"""snapshot.py HUB REPO REVISION DESTINATION: have a model's repository on this host, complete and verified.

REVISION is a commit and DESTINATION its folder; or REVISION is `main` and DESTINATION a link that is made once, to the
folder of the commit that `main` was then. hub.py is sent before it, and after it the call of `main` with a token.
"""  # noqa: INP001 (no package: it travels as text)

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # On a host they stand above, in the same text.
    from rackserve.operations.scripts.hub import File, Hub, Refused, size_of

MAIN = "main"
MANIFEST = ".rackserve-manifest.json"
INDEX = "model.safetensors.index.json"
MIB = 2**20
# A file system filled to the last block takes the host down with it.
MARGIN = 16 * MIB
CHUNK = 4 * MIB
HEARTBEAT_S = 15
LONGEST_WAIT_S = 7200


def main(arguments: Sequence[str], token: str) -> int:
    """Exit code: 0 in place, 1 not, with a sentence that says why."""
    # An exception ends a transfer with us; a signal would leave it running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    os.umask(0o022)
    url, repo, revision, destination = arguments
    try:
        snapshot(url, repo, revision, Path(destination), token)
    except (Refused, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201 (what a program says)
        return 1
    return 0


def snapshot(url: str, repo: str, revision: str, destination: Path, token: str) -> None:
    """Have the repository at `destination`."""
    models, name = destination.parent, destination.name.rpartition("@")[0]
    staging = models / ".staging"
    staging.mkdir(parents=True, exist_ok=True)
    with locked(staging / f"{name}.lock", repo) as lock:
        if intact(destination):
            return
        hub = Hub(url, repo, token, lock)
        commit = (linked(destination, name) or hub.commit(MAIN)) if revision == MAIN else revision
        folder = models / f"{name}@{commit}"
        if not intact(folder):
            for other in staging.glob(f"{name}@*"):
                if other.name != folder.name:
                    shutil.rmtree(other)
            fetch(hub, commit, folder, staging / folder.name)
        if revision == MAIN:
            link(destination, folder.name, staging)


@contextlib.contextmanager
def locked(path: Path, repo: str) -> Iterator[int]:
    """Be the only one that fetches this repository; whoever else does is waited for."""
    # Never removed: who waits for a removed file would not see who locks its successor.
    with path.open("w") as lock:
        deadline = time.monotonic() + LONGEST_WAIT_S
        with heartbeat(lambda: f"another run fetches {repo}: waiting for it"):
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Refused(f"not fetched: {repo}: another run has been fetching it for two hours") from None
                    time.sleep(0.5)
        yield lock.fileno()


@contextlib.contextmanager
def heartbeat(tell: Callable[[], str]) -> Iterator[None]:
    """Say how far it is, every now and then: firewalls drop connections on which nothing is said for minutes."""
    over = threading.Event()

    def beat() -> None:
        # A connection that is gone has nobody to tell; what is fetched is there for the next run.
        with contextlib.suppress(OSError):
            while not over.wait(HEARTBEAT_S):
                print(tell(), flush=True)  # noqa: T201 (what a program says)

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def intact(folder: Path) -> bool:
    """Whether all that the manifest lists is there, by size: it was verified before it had this name."""
    try:
        files = json.loads((folder / MANIFEST).read_bytes())["files"]
        return all((folder / file["file"]).stat().st_size == file["size"] for file in files)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def linked(destination: Path, name: str) -> str:
    """The commit that an earlier run took for `main`, empty if there was none: a model does not change by itself."""
    if not os.path.lexists(destination):
        return ""
    target = str(destination.readlink()) if destination.is_symlink() else "no link"
    commit = target.rpartition("@")[2]
    if target != f"{name}@{commit}" or not re.fullmatch("[0-9a-f]{40}", commit):
        raise Refused(f"not fetched: {destination} leads to no commit's folder beside it ({target}): move it away")
    return commit


def link(destination: Path, folder: str, staging: Path) -> None:
    """Have `destination` lead to the folder beside it, in one step."""
    # Not named like the folders there, which are parts of other commits.
    fresh = staging / f"link-{destination.name}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(folder)
    fresh.replace(destination)


def fetch(hub: "Hub", revision: str, folder: Path, part: Path) -> None:
    """Fetch and verify everything in `part`, then give it its name."""
    files = hub.files(revision)
    take_back(folder, part)
    part.mkdir(exist_ok=True)
    clear(part, {file.path for file in files})
    total = sum(file.size for file in files)
    require_space(hub.repo, part, total - held(part, files))
    manifest: list[dict[str, Any]] = []
    with heartbeat(lambda: f"{held(part, files) // MIB} of {total // MIB} MiB of {hub.repo}"):
        for file in files:
            sha256 = verified(hub, revision, file, part / file.path)
            manifest.append({"file": file.path, "size": file.size, "sha256": sha256})
            if file.path == INDEX:
                require_shards(hub.repo, part / INDEX, {file.path for file in files})
    told = {"hub": hub.url, "repo": hub.repo, "revision": revision, "files": manifest}
    (part / MANIFEST).write_text(json.dumps(told, indent=1) + "\n")
    for path in (part / MANIFEST, *(path for path in part.rglob("*") if path.is_dir()), part):
        on_disk(path)
    part.rename(folder)
    on_disk(folder.parent)


def take_back(folder: Path, part: Path) -> None:
    """A folder that has lost something is unfinished again: what is left of it is verified like any other part."""
    if not folder.exists():
        return
    if not (folder / MANIFEST).exists():
        raise Refused(f"not fetched: {folder} is there, but not complete and not ours: move it away")
    shutil.rmtree(part, ignore_errors=True)
    folder.rename(part)


def clear(part: Path, wanted: set[str]) -> None:
    """Take out what is left from elsewhere: only what is verified gets the folder's name."""
    for path in part.rglob("*"):
        if path.is_symlink() or (path.is_file() and str(path.relative_to(part)) not in wanted):
            path.unlink()


def held(part: Path, files: "Sequence[File]") -> int:
    """Bytes that are there already."""
    return sum(min(size_of(part / file.path), file.size) for file in files)


def require_space(repo: str, part: Path, missing: int) -> None:
    """Refuse what the file system cannot hold, before anything is fetched."""
    free = shutil.disk_usage(part).free
    if missing + MARGIN > free:
        raise Refused(
            f"not fetched: {part.parent.parent} has {free // MIB} MiB free, "
            f"{(missing + MARGIN) // MIB + 1} MiB are needed for {repo}"
        )


def require_shards(repo: str, index: Path, there: set[str]) -> None:
    """Refuse a repository that lacks weights which its own index names: it was uploaded in part."""
    try:
        missing = set(json.loads(index.read_bytes())["weight_map"].values()) - there
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Refused(f"not used: {repo}: {INDEX} is no index of weights") from None
    if missing:
        raise Refused(f"not used: {repo} lacks {len(missing)} files that its {INDEX} names, {min(missing)} first")


def verified(hub: "Hub", revision: str, file: "File", part: Path) -> str:
    """Have the file at `part` with the content that the hub lists; its SHA-256."""
    part.parent.mkdir(exist_ok=True)
    while True:
        if size_of(part) > file.size:
            part.unlink()
        continued = size_of(part) > 0
        # Not every curl writes an empty file.
        part.touch()
        if size_of(part) < file.size:
            hub.fetch(revision, file, part)
        sha256, found = digests(part, file.algorithm)
        if found == file.digest:
            part.chmod(0o644)
            on_disk(part)
            return sha256
        part.unlink()
        if not continued:
            kind = {"sha256": "SHA-256", "sha1": "git's SHA-1"}[file.algorithm]
            raise Refused(f"not used: {hub.repo} {file.path}: {kind} is {found}, expected {file.digest}")
        # What an earlier run had left may be what is wrong: once more, from the beginning.


def digests(path: Path, algorithm: str) -> tuple[str, str]:
    """SHA-256 of a file, and what the hub's digest of it would be."""
    sha256 = hashlib.sha256()
    # Git's name for content, no signature: said so, because hosts in FIPS mode would not compute it otherwise.
    blob = hashlib.sha1(b"blob %d\0" % size_of(path), usedforsecurity=False)
    with path.open("rb") as content:
        while chunk := content.read(CHUNK):
            sha256.update(chunk)
            if algorithm == "sha1":
                blob.update(chunk)
    return sha256.hexdigest(), (blob if algorithm == "sha1" else sha256).hexdigest()


def on_disk(path: Path) -> None:
    """Have a file's or a folder's content survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
