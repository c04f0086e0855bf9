"""What there is to run: one job for each module that waits, one for each folder that computes."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

# Everything but what needs another machine, and what `make test-all` alone has time for.
CHOSEN = {"test": "not full and not vagrant and not gpu", "all": "not gpu"}
# tests/examples.py says what this is for.
OPTIONS = {"test": (), "all": ("--hypothesis-profile=many",)}
# A job that takes longer hangs. Virtual machines have steps with deadlines of their own: tests/lab/virtual.py.
LIMIT = {"test": 20 * 60.0, "all": 45 * 60.0}
LIMIT_OF_MACHINES = 90 * 60.0
# What a job gets to take its labs or machines down after it was told to end.
GRACE = 120.0
GRACE_OF_MACHINES = 360.0
# Each module of these is a job: it takes minutes, and has labs of its own.
APART = ("lab",)
# What a module that asks real runtimes, or reads real models' configs, waits for.
NEEDS = {"tests.contract.harness": "contract", "bench.accuracy": "model-configs", "pytest.mark.vagrant": "vagrant"}


class Lane(enum.Enum):
    """What a job mostly does, which decides how many of its kind run at once."""

    PREPARE = "prepare"
    LAB = "lab"
    CPU = "cpu"


@dataclass(frozen=True, slots=True)
class Job:
    """One process of the run. name: unique, and a path below the folder of results.

    command: of a job that is no tests. tests: files and folders for pytest. needs: names of preparations.
    """

    name: str
    lane: Lane
    tests: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    needs: frozenset[str] = frozenset()

    @property
    def folder(self) -> str:
        """The folder of tests that its seconds count for."""
        return self.name.partition("/")[0]

    @property
    def machines(self) -> bool:
        """Whether it boots virtual machines, by daemons of which a machine has one."""
        return "vagrant" in self.needs

    def limit(self, kind: str) -> float:
        """Seconds after which it hangs. kind: of the run, as in CHOSEN."""
        return LIMIT_OF_MACHINES if self.machines else LIMIT[kind]

    @property
    def grace(self) -> float:
        """Seconds after which it is killed, once it was told to end."""
        return GRACE_OF_MACHINES if self.machines else GRACE


PREPARATIONS = {
    name: Job(f"prepare/{name}", Lane.PREPARE, command=command)
    for name, command in {
        "contract": ("make", "--no-print-directory", "build/contract"),
        "model-configs": ("make", "--no-print-directory", "build/model-configs"),
        "vagrant": ("make", "--no-print-directory", "vagrant-packages"),
    }.items()
}
LINT = Job("lint", Lane.CPU, command=("make", "--no-print-directory", "lint-only"))


def jobs_of(root: Path, kind: str) -> list[Job]:
    """Every test module below `tests`, each in one job, by name. kind: of the run, as in CHOSEN."""
    modules = sorted((root / "tests").rglob("test_*.py"))
    named = itertools.groupby(sorted(modules, key=lambda path: _name(path, root)), key=lambda path: _name(path, root))
    return [_job(name, list(paths), root, kind) for name, paths in named]


def _name(path: Path, root: Path) -> str:
    parts = path.relative_to(root / "tests").with_suffix("").parts
    if len(parts) == 1:
        return "top"
    return "/".join(parts) if parts[0] in APART else parts[0]


def _job(name: str, paths: list[Path], root: Path, kind: str) -> Job:
    texts = [path.read_text(encoding="utf-8") for path in paths]
    needs = frozenset(need for word, need in NEEDS.items() if any(word in text for text in texts))
    if kind == "test":
        # No test of it runs in a virtual machine.
        needs -= {"vagrant"}
    lane = Lane.LAB if name.startswith("lab/") else Lane.CPU
    return Job(name, lane, tests=tuple(str(path.relative_to(root)) for path in paths), needs=needs)


def with_preparations(jobs: Iterable[Job]) -> list[Job]:
    """The jobs, and before them what they wait for."""
    chosen = list(jobs)
    return [*(PREPARATIONS[name] for name in sorted({need for job in chosen for need in job.needs})), *chosen]


def longest_first(jobs: Iterable[Job], seconds: Mapping[str, float]) -> list[Job]:
    """The order in which they begin: what others wait for, lint, and what nobody has timed yet, which may be long."""
    never = float("inf")
    return sorted(jobs, key=lambda job: (bool(job.tests), -seconds.get(job.name, never), job.name))
