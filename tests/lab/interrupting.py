"""Runs that are killed, and hosts that lose their power, at a moment that a test names."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping

from rackserve.lab.lab import Lab
from tests.lab.deploying import RUN_TIMEOUT_S, Run, Site, parse_run

Act = Callable[[subprocess.Popen[str]], None]
# A host has to come to the point that is waited for within this.
COMES_WITHIN_S = 120


def starting(operation: str) -> str:
    """What a run says when an operation of this name begins."""
    return f"--> Starting operation: {operation}"


def deploy_broken(site: Site, acts: Mapping[str, Act], script: str = "deploys/serve.py") -> Run:
    """Deploy, and act where the run says a text. All of them have to come, in this order."""
    command = [site.python, "-m", "pyinfra", "-y", str(site.write()), script]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    lines, left = [], list(acts)
    with subprocess.Popen(
        command, cwd=site.tree, env=site.environment, stderr=subprocess.PIPE, text=True, **quiet
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            lines.append(line)
            if left and left[0] in line:
                acts[left.pop(0)](process)
        run = parse_run(process.wait(RUN_TIMEOUT_S), "".join(lines))
    assert not left, f"the run never said {left[0]!r}:\n{run.text}"
    return run


def kill(after_s: float = 0.25) -> Act:
    """Let the operation get going, then kill the run with SIGKILL."""

    def act(process: subprocess.Popen[str]) -> None:
        time.sleep(after_s)
        process.kill()

    return act


def power_cut(lab: Lab, host: str, after_s: float = 0.15) -> Act:
    """Let the operation get going, then cut the power of the host."""

    def act(_: subprocess.Popen[str]) -> None:
        time.sleep(after_s)
        lab.kill(host)

    return act


def when(condition: str, lab: Lab, hosts: list[str], act: Act) -> Act:
    """Act as soon as this shell condition holds on all of these hosts."""

    def waiting(process: subprocess.Popen[str]) -> None:
        for host in hosts:
            lab.ssh(host, f"until {condition}; do sleep 0.05; done", timeout=COMES_WITHIN_S)
        act(process)

    return waiting


def all_at_once(lab: Lab, host: str, after_s: float = 0.1) -> Act:
    """Let the operation get going, cut the power of this host, and kill the run for all others."""

    def act(process: subprocess.Popen[str]) -> None:
        time.sleep(after_s)
        lab.kill(host)
        process.kill()

    return act
