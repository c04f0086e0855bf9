"""What runs on hosts is plain POSIX shell, and shellcheck has nothing against it."""

from __future__ import annotations

import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

import pytest

SCRIPTS = sorted(Path(str(resources.files("rackserve.operations") / "scripts")).glob("*.sh"))
by_name = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


def test_there_are_scripts():
    assert {"activate.sh", "fetch.sh", "packages.sh", "release.sh", "start.sh"} <= {script.name for script in SCRIPTS}


@by_name
@pytest.mark.parametrize("shell", ["sh", "dash", "bash"])
def test_a_script_is_shell(script, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@by_name
@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(script):
    done = subprocess.run(
        ["shellcheck", "--shell=sh", "--format=gcc", str(script)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@by_name
def test_a_script_is_read_whole_before_anything_can_eat_its_standard_input(script):
    # It travels on standard input: a command that reads from there would swallow the rest of the script.
    lines = script.read_text().splitlines()
    if script.name == "unit.sh":
        # Part of what a unit runs, from a file.
        return
    if script.name in (
        "backend.sh",
        "heartbeat.sh",
        "initramfs.sh",
        "mac.sh",
        "repository.sh",
        "staging.sh",
        "toolkit.sh",
        "transaction.sh",
        "transfer.sh",
    ):
        # They come before others and define functions only.
        assert [line for line in lines if not re.fullmatch(r"(#.*|\w+\(\) \{|\}| .*)?", line)] == []
        return
    assert lines[-1] == 'main "$@" </dev/null'
