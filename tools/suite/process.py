"""A job's process: its group, its files, and its end."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tools.suite import recorder
from tools.suite.jobs import CHOSEN, Job
from tools.suite.results import Result, judge, read_lines

# What a job gets to take its labs down after it was told to end.
GRACE = 120.0


class Process:
    """A job that runs. kind: of the run, as in CHOSEN. folder: where its log and results go. limit: seconds."""

    def __init__(self, job: Job, root: Path, kind: str, folder: Path, limit: float) -> None:
        self.job = job
        self.log = folder / f"{job.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._lines = self.log.with_suffix(".jsonl")
        self._lines.unlink(missing_ok=True)
        # Not the numbered folders of pytest, which are kept: a lab's files are large.
        self._temporary = tempfile.mkdtemp(prefix="rackserve-")
        self._begun = time.monotonic()
        self._limit = limit
        self._told = 0.0
        self._late = False
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                job.command or self._pytest(kind),
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches this process alone, which passes it on once.
                process_group=0,
                env=os.environ | {recorder.VARIABLE: str(self._lines)},
            )

    def _pytest(self, kind: str) -> tuple[str, ...]:
        options = ("-p", recorder.__name__, "-p", "no:cacheprovider", f"--basetemp={self._temporary}/t")
        return (sys.executable, "-m", "pytest", *options, "-m", CHOSEN[kind], *self.job.tests)

    @property
    def killed(self) -> bool:
        """Whether it had to be, and may have left labs behind."""
        return self._told > 0 and self._process.returncode == -signal.SIGKILL

    def end(self) -> None:
        """As Ctrl-C does: pytest takes down what its fixtures made. What goes on all the same is killed."""
        if not self._told:
            self._told = time.monotonic()
            self._send(signal.SIGINT)
        elif time.monotonic() - self._told > GRACE:
            self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def poll(self) -> Result | None:
        """The result, once it is over."""
        code = self._process.poll()
        seconds = time.monotonic() - self._begun
        if code is None:
            if seconds > self._limit:
                self._late = True
                self.end()
            return None
        # Nothing that it started goes on.
        self._send(signal.SIGKILL)
        shutil.rmtree(self._temporary, ignore_errors=True)
        if self._late:
            return Result(self.job.name, seconds, problem=f"not done after {self._limit:.0f} s")
        return judge(self.job, seconds, code, read_lines(self._lines))
