"""Runs jobs beside each other, says what became of each, and ends all of them where it is ended itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tools.suite.environment import clean
from tools.suite.jobs import PREPARATIONS, Job
from tools.suite.process import Process
from tools.suite.results import Result
from tools.suite.schedule import Room, next_job

LOOK = 0.1
REMOVE_S = 300.0
_ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass
class Run:
    """One run. kind: as in CHOSEN. folder: for logs. kept: called with each result."""

    root: Path
    kind: str
    folder: Path
    room: Room
    kept: Callable[[Job, Result], None] = lambda _job, _result: None
    interrupted: bool = False
    results: list[Result] = field(default_factory=list)
    _processes: list[Process] = field(default_factory=list)

    def do(self, jobs: Sequence[Job]) -> list[Result]:
        """Run the jobs, those first that come first; all results. Once interrupted, no other job begins."""
        # What `nohup` has ignored stays so.
        ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        endings = [number for number in _ENDINGS if number is not signal.SIGHUP or not ignored]
        before = {number: signal.signal(number, self._interrupt) for number in endings}
        self._begun = time.monotonic()
        waiting = list(jobs)
        try:
            while (waiting and not self.interrupted) or self._processes:
                self._begin(waiting)
                self._collect()
                time.sleep(LOOK)
        finally:
            self._end()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self.results

    def _end(self) -> None:
        """End what goes on still, because the runner itself failed: nobody is told and nothing kept."""
        while self._processes:
            for process in list(self._processes):
                process.end()
                if process.over():
                    self._processes.remove(process)
                    process.clean()
                    if process.killed:
                        remove_labs(self.root)
            time.sleep(LOOK)

    def _interrupt(self, *_: object) -> None:
        self.interrupted = True

    def _begin(self, waiting: list[Job]) -> None:
        while not self.interrupted:
            prepared = {result.name: result.good for result in self.results}
            job = next_job(waiting, [process.job for process in self._processes], prepared, self.room)
            if job is None:
                return
            waiting.remove(job)
            failed = [need for need in sorted(job.needs) if not prepared[PREPARATIONS[need].name]]
            if failed:
                self._tell(job, Result(job.name, 0.0, problem=f"not run: prepare/{failed[0]} failed"))
            else:
                self._processes.append(Process(job, self.root, self.kind, self.folder))

    def _collect(self) -> None:
        for process in list(self._processes):
            if self.interrupted:
                process.end()
            result = process.poll()
            if result is not None:
                self._processes.remove(process)
                self._tell(process.job, result)
                if process.killed:
                    remove_labs(self.root)

    def _tell(self, job: Job, result: Result) -> None:
        self.results.append(result)
        self.kept(job, result)
        minutes, seconds = divmod(round(time.monotonic() - self._begun), 60)
        mark = "  " if result.good else "! "
        if not result.idle:
            print(
                f"{mark}{minutes:3}:{seconds:02}  {result.name:36} {result.seconds:5.0f} s  {result.words}", flush=True
            )


def remove_labs(root: Path) -> None:
    """Take down labs of tests that were killed."""
    command = [sys.executable, "-m", "tests.lab.left_over"]
    try:
        # In a group of its own: Ctrl-C is for the tests.
        subprocess.run(command, cwd=root, env=clean(os.environ), check=False, timeout=REMOVE_S, process_group=0)
    except subprocess.TimeoutExpired:
        print(f"labs of killed tests are not down after {REMOVE_S:.0f} s: RACKSERVE_LAB=... rackserve lab down")


def show_failures(results: Sequence[Result], folder: Path) -> None:
    """All output of what failed."""
    for result in results:
        log = folder / f"{result.name}.log"
        if not result.good and log.exists():
            print(f"\n===== {result.name}: {result.words} ({log})\n{log.read_text(errors='replace')}", flush=True)
