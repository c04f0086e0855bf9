"""`rackserve lab demo`, as `make demo` runs it: ends in an answered completion and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from rackserve.lab.demo import NAME
from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.deploying import ROOT

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def shown(lab_factory: LabFactory) -> str:
    assert lab_factory  # skips where no lab can be made
    if Lab(NAME).exists():
        pytest.skip("somebody keeps a demo host (make demo KEEP=1)")
    done = subprocess.run(
        [sys.executable, "-m", "rackserve", "lab", "demo"],
        cwd=ROOT,
        env={**os.environ, "NO_COLOR": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_demo_shows_a_completion_the_unit_and_its_score(shown: str) -> None:
    assert re.search(r"^> \S.{20,}", shown, re.MULTILINE)
    assert "24 tokens from chat" in shown
    assert "ExecStart=/opt/rackserve/current/llama.cpp/bin/llama-server" in shown
    score = re.search(r"exposure level for rackserve@chat\.service: ([\d.]+)", shown)
    assert score is not None
    assert float(score[1]) <= 2.0


def test_demo_says_how_long_it_took_and_that_random_weights_are_random(shown: str) -> None:
    assert re.search(r"\d+ s in all", shown)
    assert "tiny-random" not in shown or "random weights" in shown


def test_demo_leaves_no_host_behind(shown: str) -> None:
    assert shown
    assert not Lab(NAME).exists()
