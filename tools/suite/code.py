"""Which code is tested: named after every file that git does not ignore, committed or not.

Without pages, which `make test` reads itself on each change, and without the durations, which decide nothing.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.suite import shares
from tools.suite.environment import clean


def code_of(root: Path) -> str:
    """A hash of the names, modes and contents of all code."""
    digest = hashlib.sha256()
    for path, name in _files(root):
        content = str(path.readlink()).encode() if path.is_symlink() else path.read_bytes()
        mode = b"link" if path.is_symlink() else b"x" if os.access(path, os.X_OK) else b"-"
        digest.update(b"%s %s %s\n" % (hashlib.sha256(content).hexdigest().encode(), mode, name))
    return digest.hexdigest()[:16]


def touched_since(root: Path, moment: float) -> bool:
    """Whether any code was written since, be it as it was: then nobody knows what was tested. moment: of time()."""
    return any(path.lstat().st_ctime > moment for path, _ in _files(root))


def commit_of(root: Path) -> str:
    """The commit that is checked out."""
    return _git(root, "rev-parse", "--short=12", "HEAD").decode().strip()


def uncommitted(root: Path) -> list[str]:
    """Names of the code that is not as in that commit, or not in it."""
    entries = _git(root, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all").split(b"\0")
    return [os.fsdecode(entry[3:]) for entry in entries if entry and _is_code(entry[3:])]


def _is_code(name: bytes) -> bool:
    return not name.endswith(b".md") and name != shares.FILE.encode()


def _files(root: Path) -> Iterator[tuple[Path, bytes]]:
    listed = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split(b"\0")
    for name in sorted(set(listed) - {b""}):
        path = root / os.fsdecode(name)
        if _is_code(name) and (path.is_symlink() or path.is_file()):
            yield path, name


def _git(root: Path, *words: str) -> bytes:
    done = subprocess.run(["git", *words], cwd=root, env=clean(os.environ), capture_output=True, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        sys.exit(f"the code is named after what git lists, and `git {words[0]}` failed in {root}: {said}")
    return done.stdout
