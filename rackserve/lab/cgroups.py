"""One control group per host.

systemd in a container takes its whole cgroup for itself: two hosts in one would stop each other's services. The group
is also what makes a power cut possible: killing nspawn alone leaves the container's first process running.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from rackserve.domain.errors import LabError

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS = ("memory", "pids", "cpu", "io")
# Two groups, because cgroup 2 allows no process beside child groups: `sup` holds the restart loop, `box` the host.
PARTS = ("sup", "box")
KILL_SECONDS = 10.0
FREEZE_SECONDS = 10.0


def hierarchies(root: Path = ROOT) -> list[Path]:
    """Every hierarchy a host needs a group in, the cgroup 2 one first.

    A machine is either all cgroup 2, or hybrid: cgroup 2 at `unified`, systemd's own and the controllers beside it.
    """
    if (root / "cgroup.controllers").exists():
        return [root]
    beside = [root / "systemd", root / "memory"]
    if not (root / "unified/cgroup.controllers").exists():
        raise LabError(f"no cgroup 2 hierarchy at {root} or {root}/unified: the lab needs one to contain its hosts")
    return [root / "unified", *(folder for folder in beside if folder.is_dir())]


def create(name: str) -> list[Path]:
    """Make the host's groups; the folders of its `sup` part and its `box` part can be had with `part`."""
    groups = [hierarchy / name for hierarchy in hierarchies()]
    for group in groups:
        for part in PARTS:
            (group / part).mkdir(parents=True, exist_ok=True)
    for folder in (groups[0].parent, groups[0]):
        for controller in CONTROLLERS:
            # On a hybrid machine the controllers live elsewhere, and limits inside hosts are accepted but not enforced.
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")
    return groups


def running(name: str) -> bool:
    """Whether any process lives in the host's group."""
    return _happened(name, "populated")


def _happened(name: str, event: str) -> bool:
    try:
        events = (hierarchies()[0] / name / "cgroup.events").read_text()
    except FileNotFoundError:
        return False
    return f"{event} 1" in events


@contextlib.contextmanager
def frozen(name: str) -> Iterator[None]:
    """Have every process of the host stand still meanwhile; nothing to do where none runs."""
    if not running(name):
        yield
        return
    switch, deadline = hierarchies()[0] / name / "cgroup.freeze", time.monotonic() + FREEZE_SECONDS
    switch.write_text("1")
    try:
        while not _happened(name, "frozen"):
            if time.monotonic() > deadline:
                raise LabError(f"processes in the control group {name} do not stand still: look at {switch.parent}")
            time.sleep(0.01)
        yield
    finally:
        switch.write_text("0")


def kill(name: str) -> None:
    """Kill every process of the host at once, as a power cut does, and remove its groups."""
    with contextlib.suppress(FileNotFoundError):
        (hierarchies()[0] / name / "cgroup.kill").write_text("1")
    deadline = time.monotonic() + KILL_SECONDS
    while running(name) or not _removed(name):
        if time.monotonic() > deadline:
            raise LabError(f"processes in the control group {name} do not end: look at {hierarchies()[0] / name}")
        time.sleep(0.02)


def _removed(name: str) -> bool:
    """Remove the host's groups from the leaves up; False while the kernel still holds one."""
    for hierarchy in hierarchies():
        group = hierarchy / name
        folders = [path for path in group.rglob("*") if path.is_dir()] if group.is_dir() else []
        for folder in [*sorted(folders, key=lambda path: len(path.parts), reverse=True), group]:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                return False
    return True


def with_prefix(prefix: str) -> list[str]:
    """The groups of a lab, found by name, whether or not anything is recorded about them."""
    return sorted({group.name for hierarchy in hierarchies() for group in hierarchy.glob(f"{prefix}*")})
