"""Put a checkpoint's folder into the depot as a model hub would have it.

What a hub answers for one commit never changes, so here the answers are files: the listing and the commit of `main` lie
where a client asks for them, and any file server that leaves queries aside is the hub.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from rackserve.lab.state import write_atomically

# Hubs keep weights as LFS objects, which are listed by their SHA-256, and all else in git.
_LFS = {".safetensors"}


def publish(depot: Path, repo: str, folder: Path) -> str:
    """Make `folder` the `main` of `repo`; returns its revision, which is made of its content as a commit's is."""
    listing = [_entry(path, folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    text = json.dumps(listing)
    revision = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    shutil.copytree(folder, depot / repo / "resolve" / revision, dirs_exist_ok=True)
    api = depot / "api" / "models" / repo
    for place, answer in ((f"tree/{revision}", text), ("revision/main", json.dumps({"id": repo, "sha": revision}))):
        (api / place).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(api / place, answer)
    return revision


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    """A file as a listing has it."""
    content = path.read_bytes()
    entry: dict[str, Any] = {"type": "file", "path": path.relative_to(folder).as_posix(), "size": len(content)}
    if path.suffix not in _LFS:
        return entry | {"oid": _blob(content)}
    sha256 = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(content)}\n".encode()
    lfs = {"oid": sha256, "size": len(content), "pointerSize": len(pointer)}
    return entry | {"oid": _blob(pointer), "lfs": lfs}


def _blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()
