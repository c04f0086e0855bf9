"""What runs on hosts is plain POSIX shell, and shellcheck has nothing against it."""

from __future__ import annotations

import re
import subprocess
from importlib import resources
from pathlib import Path

import pytest

from tests import needs

SCRIPTS = sorted(Path(str(resources.files("rackserve.operations") / "scripts")).glob("*.sh"))
# They come before others and define functions only.
PARTS = {
    "backend.sh",
    "heartbeat.sh",
    "initramfs.sh",
    "mac.sh",
    "older.sh",
    "repository.sh",
    "staging.sh",
    "toolkit.sh",
    "transaction.sh",
    "transfer.sh",
}
by_name = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)


def test_there_are_scripts():
    assert {"activate.sh", "fetch.sh", "packages.sh", "release.sh", "start.sh"} <= {script.name for script in SCRIPTS}


@by_name
@pytest.mark.parametrize("shell", needs.each_of("sh", "dash", "bash"))
def test_a_script_is_shell(script, shell):
    done = subprocess.run([shell, "-n", str(script)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@by_name
@needs.programs("shellcheck")
def test_shellcheck_has_nothing_to_say(script):
    done = subprocess.run(
        ["shellcheck", "--shell=sh", "--format=gcc", str(script)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize(
    # A unit runs unit.sh from a file.
    "script",
    [script for script in SCRIPTS if script.name != "unit.sh"],
    ids=lambda script: script.name,
)
def test_a_script_is_read_whole_before_anything_can_eat_its_standard_input(script):
    # It travels on standard input: a command that reads from there would swallow the rest of the script.
    lines = script.read_text().splitlines()
    if script.name in PARTS:
        assert [line for line in lines if not re.fullmatch(r"(#.*|\w+\(\) \{|\}| .*)?", line)] == []
    else:
        assert lines[-1] == 'main "$@" </dev/null'
