"""Every promise of the README has the test file that holds it, and no file holds a promise that nobody made."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def promised() -> list[int]:
    chapter = re.search(r"^## Promises\n(.+?)^## ", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert chapter is not None
    return [int(number) for number in re.findall(r"^(\d+)\. ", chapter[1], re.MULTILINE)]


def test_each_promise_has_one_file() -> None:
    names = [path.stem for path in (ROOT / "tests" / "lab").glob("test_promise_*.py")]
    held = sorted(int(name.split("_")[2]) for name in names)
    assert promised() == list(range(1, len(promised()) + 1))
    assert held == promised(), names


def test_each_file_has_tests_that_make_test_runs() -> None:
    for path in (ROOT / "tests" / "lab").glob("test_promise_*.py"):
        text = path.read_text()
        assert re.search(r"^def test_", text, re.MULTILINE), path
        assert "pytest.mark.lab" in text, path
