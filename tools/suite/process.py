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
from dataclasses import replace
from pathlib import Path

from tools.suite import recorder
from tools.suite.environment import clean
from tools.suite.jobs import CHOSEN, OPTIONS, Job
from tools.suite.results import Result, judge, read_lines

# Where the runner itself is killed, its jobs are told to end by the kernel.
_ENDS_WITH_US = ("setpriv", "--pdeathsig", "INT")


class Process:
    """A job that runs. kind: of the run, as in CHOSEN. folder: where its log and results go."""

    def __init__(self, job: Job, root: Path, kind: str, folder: Path) -> None:
        self.job = job
        self.log = folder / f"{job.name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self._lines = self.log.with_suffix(".jsonl")
        self._lines.unlink(missing_ok=True)
        # Not the numbered folders of pytest, which are kept: a lab's files are large.
        self._temporary = tempfile.mkdtemp(prefix="rackserve-")
        self._begun = time.monotonic()
        self._limit, self._grace = job.limit(kind), job.grace
        self._told = 0.0
        self._late = False
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                (*(_ENDS_WITH_US if shutil.which(_ENDS_WITH_US[0]) else ()), *(job.command or self._pytest(kind))),
                cwd=root,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches this process alone, which passes it on once.
                process_group=0,
                env=clean(os.environ) | {recorder.VARIABLE: str(self._lines)},
            )

    def _pytest(self, kind: str) -> tuple[str, ...]:
        options = ("-p", recorder.__name__, "-p", "no:cacheprovider", f"--basetemp={self._temporary}/t")
        return (sys.executable, "-m", "pytest", *options, *OPTIONS[kind], "-m", CHOSEN[kind], *self.job.tests)

    @property
    def killed(self) -> bool:
        """Whether it had to be, and may have left labs behind."""
        return self._told > 0 and self._process.returncode == -signal.SIGKILL

    def end(self) -> None:
        """As Ctrl-C does: pytest takes down what its fixtures made. What goes on all the same is killed."""
        if not self._told:
            self._told = time.monotonic()
            self._send(signal.SIGINT)
        elif time.monotonic() - self._told > self._grace:
            self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def over(self) -> bool:
        """Whether it is; then nothing that it started goes on."""
        if self._process.poll() is None:
            return False
        self._send(signal.SIGKILL)
        return True

    def poll(self) -> Result | None:
        """The result, once it is over."""
        seconds = time.monotonic() - self._begun
        if not self.over():
            if seconds > self._limit:
                self._late = True
                self.end()
            return None
        removed = not Path(self._temporary).exists()
        self.clean()
        if self._late:
            return Result(self.job.name, seconds, problem=f"not done after {self._limit:.0f} s")
        result = judge(self.job, seconds, self._process.returncode, read_lines(self._lines))
        if removed and not result.good:
            return replace(result, problem=f"its folder {self._temporary} was removed meanwhile, by nothing of ours")
        return result

    def clean(self) -> None:
        """Remove its temporary files."""
        shutil.rmtree(self._temporary, ignore_errors=True)
