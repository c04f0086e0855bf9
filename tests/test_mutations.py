"""Rules are held: each change of tests/mutations.toml, made to a copy of this tree, has its test fail.

A rule number belongs there with one step up or down, and so does a line that a test of `make test` holds in place of
one that moved to `make test-all`. What a change replaces has to be there word for word: a row is mended with its line.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = tomllib.loads((ROOT / "tests/mutations.toml").read_text(encoding="utf-8"))
MUTATIONS = [
    pytest.param(file, *row, id=f"{Path(file).stem}: {row[1]}") for file, rows in TABLE["files"].items() for row in rows
]
# Rooms whose numbers decide.
RULED = [ROOT / "rackserve/domain/policy.py", *sorted((ROOT / "rackserve/planning").glob("*.py"))]
_TREE = ("rackserve", "roles", "deploys", "inventories", "templates", "tests", "docs", "bench", "tools")
_KILLED = 1


def numbers(path: Path) -> set[str]:
    """Names of a module's constants that are made of numbers alone."""
    found = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id.isupper():
            parts = [part for part in ast.walk(node.value) if isinstance(part, ast.Constant | ast.Name)]
            if any(isinstance(part, ast.Constant) and isinstance(part.value, int | float) for part in parts):
                found.add(node.targets[0].id)
    return found


def test_every_rule_number_is_in_the_table():
    named = {path: " ".join(row[0] for row in TABLE["files"].get(str(path.relative_to(ROOT)), [])) for path in RULED}
    missing = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in RULED
        for name in numbers(path)
        if name not in named[path] and name not in TABLE["no_rules"]
    }
    assert missing == set(TABLE["not_held"])


@pytest.mark.parametrize(("file", "old", "new", "test"), MUTATIONS)
def test_what_is_changed_and_what_is_to_fail_are_there(file, old, new, test):
    assert (ROOT / file).read_text(encoding="utf-8").count(old) >= 1
    assert old != new
    path, _, name = test.partition("::")
    assert f"def {name}(" in (ROOT / path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("mutated") / "tree"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in _TREE:
        shutil.copytree(ROOT / folder, made / folder, ignore=ignored)
    for name in ("pyproject.toml", "Makefile", "README.md", "Vagrantfile"):
        shutil.copy(ROOT / name, made / name)
    return made


@pytest.mark.full
@pytest.mark.parametrize(("file", "old", "new", "test"), MUTATIONS)
def test_a_changed_rule_has_its_test_fail(copy, file, old, new, test):
    path = copy / file
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test],
            cwd=copy,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    finally:
        path.write_text(text, encoding="utf-8")
    assert done.returncode == _KILLED, done.stdout
