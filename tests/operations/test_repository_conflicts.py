"""Definitions of the same repository by somebody else: moved aside by repository-deb.sh, and never lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.rendering.repositories import repository_file
from tests.operations.private_root import needs_private_root
from tests.operations.repository_bench import Bench, working_bench

pytestmark = needs_private_root


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with working_bench(tmp_path) as made:
        yield made


def test_a_definition_by_somebody_else_is_moved_aside(bench):
    theirs = bench.define("cuda.list", f"deb {bench.mirror.url} /\n")
    code, out, err = bench.add("/etc/apt/sources.list.d/cuda.list", "")
    assert (code, err) == (0, "")
    aside = theirs.with_name("cuda.list.disabled-by-rackserve")
    assert out == f"moved aside: /etc/apt/sources.list.d/cuda.list to /etc/apt/sources.list.d/{aside.name}\n"
    assert not theirs.exists()
    assert aside.read_text() == f"deb {bench.mirror.url} /\n"
    # apt has nothing to say about the file that stays there.
    updated = bench.root.run("apt-get", "-q", "update")
    assert (updated.returncode, updated.stderr) == (0, "")


def test_what_was_moved_aside_earlier_is_not_overwritten(bench):
    for number in (1, 2):
        bench.define("cuda.list", f"# {number}\ndeb {bench.mirror.url} /\n")
        assert bench.add("/etc/apt/sources.list.d/cuda.list", "")[0] == 0
    folder = bench.root.path("/etc/apt/sources.list.d")
    kept = [path.read_text()[:3] for path in sorted(folder.glob("cuda.list.disabled-by-rackserve*"))]
    assert sorted(kept) == ["# 1", "# 2"]


def test_one_line_among_others_is_disabled_and_the_rest_stays(bench):
    line = f"deb [arch=amd64] {bench.mirror.url} /"
    others = f"# ours\n{line} # twice\ndeb http://127.0.0.1/other stable main\n"
    # With a password in it, nobody else may read it.
    theirs = bench.define("all.list", f"{line}\n{others}{line}\n", mode=0o600)
    words = ["/etc/apt/sources.list.d/all.list", line] * 2
    code, out, _ = bench.add(*words)
    assert code == 0
    off = f"# disabled by rackserve: {line}\n"
    assert theirs.read_text() == f"{off}{others}{off}"
    assert theirs.stat().st_mode & 0o7777 == 0o600
    aside = theirs.with_name("all.list.disabled-by-rackserve")
    assert (aside.read_text(), aside.stat().st_mode & 0o7777) == (f"{line}\n{others}{line}\n", 0o600)
    assert f"(as it was: /etc/apt/sources.list.d/{aside.name})" in out


def test_a_definition_that_changed_meanwhile_is_left_alone(bench):
    theirs = bench.define("all.list", "deb http://127.0.0.1/other stable main\n")
    code, _, err = bench.add("/etc/apt/sources.list.d/all.list", f"deb {bench.mirror.url} /")
    assert code == 1
    assert "/etc/apt/sources.list.d/all.list has changed meanwhile: run again" in err
    assert theirs.read_text() == "deb http://127.0.0.1/other stable main\n"
    assert not bench.root.path(repository_file(bench.planned()).path).exists()


def test_a_definition_by_somebody_else_stays_where_the_repository_is_bad(bench):
    bench.define("cuda.list", f"deb {bench.mirror.url} /\n")
    bench.forge()
    assert "bad signature" in bench.refused("/etc/apt/sources.list.d/cuda.list", "")


def test_what_an_earlier_day_fetched_hides_no_bad_signature(bench):
    bench.add()
    bench.root.shell("apt-get -q update")
    bench.forge()
    assert "bad signature" in bench.refused()
