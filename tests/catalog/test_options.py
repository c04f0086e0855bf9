"""Tables of options that contradict themselves are refused, and an operator's file extends ours."""

from __future__ import annotations

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.runtimes.options import Options, version_problem

TABLE = """
[options.mlx]
oldest = "1.0"
newest = "2.0"
source = "its source"
date = "2026-11-27"

[options.mlx.settings]
"""


def problems(tmp_path, settings: str, table: str = TABLE) -> list[str]:
    path = tmp_path / "mine.toml"
    path.write_text(table + settings)
    with pytest.raises(InputError) as caught:
        load_catalog([str(path)])
    return [str(problem).replace(str(path), "mine.toml") for problem in caught.value.problems]


def test_a_runtime_of_ones_own_can_be_told_its_settings(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(TABLE + 'host = [{ name = "--bind", before = "1.5" }, { name = "--host", since = "1.5" }]')
    catalog = load_catalog([str(path)])
    assert Options(catalog, "mlx", "1.4").words("host", "::1") == ("--bind", "::1")
    assert Options(catalog, "mlx", "1.5").words("host", "::1") == ("--host", "::1")


def test_a_newer_version_needs_only_what_was_renamed(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        '[options.vllm]\noldest = "0.8.5"\nnewest = "0.40.0"\nsource = "mine"\ndate = "2027-01-01"\n'
        "[options.vllm.settings]\n"
        'port = [{ name = "--port", before = "0.40" }, { name = "--tcp-port", since = "0.40" }]'
    )
    catalog = load_catalog([str(path)])
    assert version_problem(catalog, "vllm", "0.40.0") is None
    assert Options(catalog, "vllm", "0.40.0").words("port", "1") == ("--tcp-port", "1")
    assert Options(catalog, "vllm", "0.33.0").words("port", "1") == ("--port", "1")
    assert Options(catalog, "vllm", "0.40.0").words("host", "::1") == ("--host", "::1")


def test_two_names_for_one_setting_in_the_same_version_are_refused(tmp_path):
    found = problems(tmp_path, 'host = [{ name = "--bind", before = "1.6" }, { name = "--host", since = "1.5" }]')
    assert found == [
        "mine.toml: options.mlx.settings.host: --bind and --host are in the same versions: bound one by `before`"
    ]
    assert problems(tmp_path, 'host = [{ name = "--bind" }, { kind = "always", since = "1.5" }]') == [
        "mine.toml: options.mlx.settings.host: --bind and kind always are in the same versions: bound one by `before`"
    ]


def test_bounds_that_hold_no_version_are_refused(tmp_path):
    assert problems(tmp_path, 'host = [{ name = "--bind", since = "1.6", before = "1.6" }]') == [
        "mine.toml: options.mlx.settings.host: --bind is in no version: since 1.6, before 1.6"
    ]
    backwards = TABLE.replace('newest = "2.0"', 'newest = "0.9"')
    assert problems(tmp_path, 'host = [{ name = "--bind" }]', backwards) == [
        "mine.toml: options.mlx: oldest 1.0 is newer than newest 0.9"
    ]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("host = []", "options.mlx.settings.host: Value error, has to name at least one"),
        ('host = [{ kind = "flag" }]', "kind flag has a name, found none"),
        ('host = [{ name = "--x", kind = "always" }]', "kind always has no name, found a name, --x"),
        ('host = [{ name = "--x", kind = "json" }]', "kind json has a key"),
        ('host = [{ name = "--x", key = "y" }]', "kind json has a key"),
        ('host = [{ name = "--x y" }]', "options.mlx.settings.host.0.name"),
        ('host = [{ name = "--x", since = "new" }]', "options.mlx.settings.host.0.since"),
        ('"a host" = [{ name = "--x" }]', "options.mlx.settings.a host"),
    ],
)
def test_entries_without_the_right_shape_are_refused_by_name(tmp_path, settings, told):
    found = problems(tmp_path, settings)
    assert any(told in problem and problem.startswith("mine.toml: options.mlx.settings") for problem in found)
