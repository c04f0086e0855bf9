"""tools/venv.sh and the targets that call it leave an environment alone that tests use."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

from tests import needs

ROOT = Path(__file__).resolve().parents[2]


@needs.programs("flock")
def test_an_environment_in_use_is_not_made_anew(tmp_path):
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv/ready").touch()
    (tmp_path / "build").mkdir()
    with (tmp_path / "build/suite.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = subprocess.run(
            [ROOT / "tools/venv.sh", sys.executable, "venv"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
    assert done.returncode == 1
    assert done.stderr == (
        "venv is not up to date, and tests use it in this checkout: wait for them, or use another checkout\n"
    )
    assert (tmp_path / "venv/ready").exists()


@needs.programs("make")
def test_reading_results_makes_no_environment_anew(tmp_path):
    # Older than what it is made from.
    (tmp_path / "ready").touch()
    for target in ("test-all-report", "record-shares"):
        command = ["make", "-n", "-W", "requirements/dev.txt", f"VENV={tmp_path}", target]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert [line for line in done.stdout.splitlines() if "venv.sh" in line and "ready ] ||" not in line] == []
