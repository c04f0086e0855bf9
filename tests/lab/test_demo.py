"""`rackserve lab demo`, as `make demo` runs it: ends in an answered completion and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.deploying import ROOT

pytestmark = pytest.mark.lab
# The demo in a lab of this test: another checkout's test, or an operator with KEEP=1, has the one that it is made in.
PROGRAM = """
import sys
from rackserve.cli.main import main
from rackserve.lab import demo
demo.NAME = sys.argv.pop(1)
main()
"""


@pytest.fixture(scope="module")
def demo_lab(lab_factory: LabFactory) -> Lab:
    return lab_factory("demo")


@pytest.fixture(scope="module")
def shown(demo_lab: Lab) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, demo_lab.names.lab, "lab", "demo"],
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


def test_demo_leaves_no_host_behind(shown: str, demo_lab: Lab) -> None:
    assert shown
    assert not demo_lab.exists()
