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
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TABLE = tomllib.loads((ROOT / "tests/mutations.toml").read_text(encoding="utf-8"))
MUTATIONS = [
    pytest.param(file, *row, id=f"{Path(file).stem}: {row[1]}") for file, rows in TABLE["files"].items() for row in rows
]
_TREE = ("rackserve", "roles", "deploys", "inventories", "templates", "tests", "docs", "bench", "tools")
_KILLED = 1
# Where numbers decide: all that runs on the operator's machine or on a host, but for the lab, which serves tests.
RULED = [
    path
    for folder in ("rackserve", "roles", "templates/libexec")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.is_file() and path.relative_to(ROOT).parts[1] != "lab" and "__pycache__" not in path.parts
    if path.suffix == ".py" or folder == "templates/libexec"
]


def numbers(text: str) -> dict[str, str]:
    """A module's constants that have numbers in them, each with its definition."""
    return {
        name: ast.dump(value)
        for node in ast.parse(text).body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for name, value in _assigned(node)
        if name.isupper() and any(_is_number(part) for part in _parts(value))
    }


def _assigned(node: ast.Assign | ast.AnnAssign) -> Iterator[tuple[str, ast.expr]]:
    """Names and their values, those of a tuple one by one."""
    target = node.targets[0] if isinstance(node, ast.Assign) else node.target
    if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
        pairs = list(zip(target.elts, node.value.elts, strict=True))
    else:
        pairs = [(target, node.value)] if node.value is not None else []
    yield from ((name.id, value) for name, value in pairs if isinstance(name, ast.Name))


def _parts(node: ast.AST) -> Iterator[ast.AST]:
    """What a value is made of; which entry is taken from something is no number of its own."""
    yield node
    for name, child in ast.iter_fields(node):
        if not (isinstance(node, ast.Subscript) and name == "slice"):
            for entry in child if isinstance(child, list) else [child]:
                if isinstance(entry, ast.AST):
                    yield from _parts(entry)


def _is_number(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) in {int, float}


def held(file: str) -> set[str]:
    """Constants with numbers that a row changes."""
    text = (ROOT / file).read_text(encoding="utf-8")
    found = numbers(text)
    changed = (numbers(text.replace(old, new, 1)) for old, new, _ in TABLE["files"].get(file, []))
    return {name for other in changed for name in found if other.get(name) != found[name]}


def test_every_rule_number_is_in_the_table():
    """A number stands there with what it is where no test could tell one step up or down, else with a row."""
    found = {f"{path.relative_to(ROOT)}: {name}" for path in RULED for name in numbers(path.read_text("utf-8"))}
    rows = {f"{file}: {name}" for file in TABLE["files"] if ROOT / file in RULED for name in held(file)}
    no_rules = {name for names in TABLE["no_rules"].values() for name in names}
    assert found - rows - no_rules == set()
    assert no_rules - found == set()
    assert no_rules & rows == set()


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
