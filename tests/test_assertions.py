"""Every test asserts something, whatever it is given: read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(HERE.rglob("*.py"))}
_STATES = {"pytest.raises", "pytest.warns", "pytest.fail"}
_MANY = 300


def called(node: ast.AST) -> set[str]:
    """Last names of what is called within."""
    names = {ast.unparse(call.func).rpartition(".")[2] for call in ast.walk(node) if isinstance(call, ast.Call)}
    return names - {""}


def states(node: ast.AST) -> bool:
    """Whether it asserts by itself."""
    return any(
        isinstance(part, ast.Assert) or (isinstance(part, ast.Call) and ast.unparse(part.func) in _STATES)
        for part in ast.walk(node)
    )


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def checking(trees: Iterable[ast.AST]) -> set[str]:
    """Names of helpers that assert: a call of one is an assertion."""
    return {function.name for tree in trees for function in functions(tree) if states(function)}


def holds(body: list[ast.stmt], helpers: set[str]) -> bool:
    """Whether an assertion is met before the body may have ended."""
    for statement in body:
        if asserts(statement, helpers):
            return True
        ends = isinstance(statement, ast.If) and any(isinstance(node, ast.Return) for node in ast.walk(statement))
        if ends and not holds(statement.body, helpers):
            return False
    return False


def asserts(statement: ast.stmt, helpers: set[str]) -> bool:
    """Whether the statement asserts, on every way through its conditions; a loop is taken to have something to do."""
    if isinstance(statement, ast.FunctionDef):
        return False
    inner = list(getattr(statement, "body", []))
    heads = [node for node in ast.iter_child_nodes(statement) if not isinstance(node, ast.stmt | ast.ExceptHandler)]
    if any(states(node) or called(node) & helpers for node in (heads if inner else [statement])):
        return True
    if isinstance(statement, ast.If):
        return holds(inner, helpers) and holds(statement.orelse, helpers)
    if isinstance(statement, ast.Try):
        return holds([*inner, *statement.orelse], helpers) or holds(statement.finalbody, helpers)
    return holds(inner, helpers)


def asserting_nothing(tree: ast.AST, helpers: set[str]) -> list[str]:
    tests = [function for function in functions(tree) if function.name.startswith("test_")]
    return [test.name for test in tests if not holds(test.body, helpers)]


def test_every_test_asserts_something_on_every_way_through_it():
    helpers = checking(TREES.values())
    found = {path: asserting_nothing(tree, helpers) for path, tree in TREES.items()}
    assert sum(1 for tree in TREES.values() for _ in functions(tree)) > _MANY
    assert {str(path.relative_to(HERE)): names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "body",
    [
        "work()",
        "if plan:\n  assert plan.installs",
        "if not plan:\n  return\nassert plan.installs",
        "for plan in plans:\n  if plan:\n    assert plan.installs",
        "try:\n  parse()\nexcept ValueError:\n  pass",
        "def inner():\n  assert plan.installs\nwork(inner)",
    ],
)
def test_a_test_that_may_pass_without_an_assertion_is_found(body):
    assert asserting_nothing(ast.parse(f"def test_x():\n  {body.replace(chr(10), chr(10) + '  ')}"), {"check"}) != []


@pytest.mark.parametrize(
    "body",
    [
        "assert work()",
        "check(work())",
        "box.check()",
        "with pytest.raises(ValueError):\n  work()",
        "if plan:\n  assert plan.installs\nelse:\n  check(plan)",
        "for plan in plans:\n  assert plan",
        "try:\n  assert work()\nfinally:\n  end()",
    ],
)
def test_a_test_that_asserts_is_left_alone(body):
    assert asserting_nothing(ast.parse(f"def test_x():\n  {body.replace(chr(10), chr(10) + '  ')}"), {"check"}) == []
