"""The import rule of docs/design.md, read from the source itself."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Callable, Container
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted(path for folder in ("rackserve", "roles", "deploys") for path in (ROOT / folder).rglob("*.py"))
MAX_LINES = 300

# What a room may import of ours, beside itself. Transitive: what stands further in may be imported as well.
ALLOWED = {
    "domain": set(),
    "catalog": {"domain"},
    "planning": {"domain", "catalog", "runtimes"},
    "runtimes": {"domain", "catalog", "planning"},
    "rendering": {"domain", "catalog", "planning", "runtimes"},
    "settings": {"domain"},
    "cache": {"domain"},
    "keys": {"domain"},
    "fleet": {"domain", "catalog", "planning", "runtimes", "settings", "keys"},
    "facts": {"domain", "catalog", "planning", "runtimes", "rendering"},
    "operations": {"domain", "catalog", "planning", "runtimes", "rendering", "facts", "cache", "keys"},
    "checks": {"domain", "catalog", "planning", "runtimes", "rendering"},
    "rollout": {"domain"},
    "lab": {"domain", "catalog", "planning", "runtimes", "rendering", "cache"},
    "report": {"domain", "catalog", "planning", "runtimes", "rendering"},
    "deploys": {"roles"},
}
ALLOWED["roles"] = ALLOWED["operations"] | ALLOWED["fleet"] | {"operations", "fleet"}
# The command line stands outside all of them but these: what is run on hosts is pyinfra's to call.
NOT_FOR_CLI = {"facts", "operations", "roles", "deploys"}
PYINFRA_ROOMS = {"facts", "operations", "roles", "deploys"}


def room(path: Path) -> str:
    """`rackserve/domain/x.py` is in domain, `rackserve/settings.py` in settings, `roles/x.py` in roles."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "rackserve" else parts[0]


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, wherever in it; relative imports are not used here."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            # `from rackserve import cache` imports a module too.
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def top_levels(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imports(path)}


def our_rooms(path: Path) -> set[str]:
    ours = {name.split(".")[1] for name in imports(path) if name.startswith("rackserve.")}
    return (ours | (top_levels(path) & {"roles", "deploys"})) - {"__version__"}


def violations(found: Callable[[Path], set[str]], besides: Container[str] = ()) -> dict[str, list[str]]:
    """What was found, by file, in all files whose room is none of `besides`."""
    every = {str(path.relative_to(ROOT)): sorted(found(path)) for path in SOURCES if room(path) not in besides}
    return {path: names for path, names in every.items() if names}


def test_the_source_is_there():
    assert len(SOURCES) > 40
    assert {"domain", "catalog", "planning", "facts", "operations", "roles", "deploys", "cli"} <= set(
        map(room, SOURCES)
    )


def test_every_file_is_in_a_room():
    assert {room(path) for path in SOURCES} <= {*ALLOWED, "cli", "__main__", "__init__"}


def test_a_room_imports_only_what_stands_further_in():
    known = {room(path) for path in SOURCES}
    allowed = {here: known - NOT_FOR_CLI if here == "cli" else ALLOWED.get(here, known) | {here} for here in known}
    assert violations(lambda path: our_rooms(path) - allowed[room(path)]) == {}


def test_deploys_are_imported_by_nothing():
    assert violations(lambda path: top_levels(path) & {"deploys"}) == {}


def test_roles_are_imported_by_roles_and_deploys_only():
    assert violations(lambda path: top_levels(path) & {"roles"}, besides={"roles", "deploys"}) == {}


def test_pyinfra_stays_in_the_outer_ring():
    def used(path: Path) -> set[str]:
        return {name for name in top_levels(path) if name.startswith("pyinfra")}

    assert violations(used, besides=PYINFRA_ROOMS) == {}


def test_only_checks_import_testinfra():
    assert violations(lambda path: top_levels(path) & {"testinfra"}, besides={"checks"}) == {}


def test_the_domain_needs_nothing_but_pydantic():
    foreign = violations(lambda path: top_levels(path) - set(sys.stdlib_module_names) - {"pydantic", "rackserve"})
    assert [path for path in foreign if path.startswith("rackserve/domain/")] == []


def test_every_package_that_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    known = packages_distributions()
    undeclared = {
        (str(path.relative_to(ROOT)), name)
        for path in SOURCES
        for name in top_levels(path) - set(sys.stdlib_module_names) - {"rackserve", "roles"}
        if not {canonicalize_name(entry) for entry in known.get(name, [name])} & declared
    }
    assert undeclared == set()


# rules that pyinfra forces on us


def test_no_module_is_called_like_pyinfra():
    assert not [path for path in SOURCES if any(part.startswith("pyinfra") for part in path.relative_to(ROOT).parts)]


def operations_of(tree: ast.Module) -> set[str]:
    """Names under which a role knows operations: ours by import, pyinfra's by module."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rackserve.operations"):
            names |= {alias.asname or alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module == "pyinfra.operations":
            names |= {f"{alias.asname or alias.name}." for alias in node.names}
    return names


def operation_calls(path: Path) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    known = operations_of(tree)
    calls = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        written = ast.unparse(node.func)
        if written in known or any(entry.endswith(".") and written.startswith(entry) for entry in known):
            calls.append(node)
    return calls


ROLES = [path for path in SOURCES if room(path) in {"roles", "deploys"}]


def test_roles_call_operations():
    assert sum(len(operation_calls(path)) for path in ROLES) >= 8


def test_every_operation_call_has_a_name_and_a_line_of_its_own():
    calls = {(path.name, call.lineno): call for path in ROLES for call in operation_calls(path)}
    assert len(calls) == sum(len(operation_calls(path)) for path in ROLES)
    unnamed = [place for place, call in calls.items() if "name" not in {keyword.arg for keyword in call.keywords}]
    assert unnamed == []


FORBIDDEN = {"local.include", "files.download", "server.wait", "apt.update", "files.put"}
FORBIDDEN_ARGUMENTS = {"_retry_until", "_env", "_serial", "_timeout"}


def test_the_traps_of_pyinfra_are_not_used():
    def used(path: Path) -> set[str]:
        calls = [node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call)]
        words = {keyword.arg or "" for call in calls for keyword in call.keywords} & FORBIDDEN_ARGUMENTS
        return words | {ast.unparse(call.func) for call in calls} & FORBIDDEN

    assert violations(used) == {}


def test_a_role_file_has_at_most_one_deploy():
    def deploys(path: Path) -> list[str]:
        return [
            node.name
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.FunctionDef)
            and any(ast.unparse(entry).startswith("deploy(") for entry in node.decorator_list)
        ]

    found = {path.name: deploys(path) for path in SOURCES if room(path) == "roles"}
    assert any(found.values())
    assert {name: names for name, names in found.items() if len(names) > 1} == {}


@pytest.mark.parametrize("path", [path for path in SOURCES if room(path) == "deploys"], ids=lambda path: path.stem)
def test_a_deploy_calls_each_role_on_a_line_of_its_own(path):
    # pyinfra tells operations apart by line numbers: no table, no loop, no condition in one line.
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    assert calls
    assert all(isinstance(node.value.func, ast.Name) for node in calls)
    assert len({node.lineno for node in calls}) == len(calls)
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.For | ast.While | ast.Lambda)]


TEXTS = [path for folder in ("rackserve", "roles", "deploys", "templates") for path in (ROOT / folder).rglob("*")]


def test_no_file_is_too_long_to_be_read_at_once():
    code = [path for path in TEXTS if path.is_file() and path.suffix in {".py", ".sh", ".j2", ""}]
    too_long = {
        str(path.relative_to(ROOT)): lines
        for path in code
        if "__pycache__" not in path.parts and (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert too_long == {}
