"""What a hub lists is a stranger's word: what is taken of it stays in its folder, all else is left or refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackserve.operations.scripts.hub import File, Refused, needed, next_query
from tests.operations.hub_bench import NAME, REPO, REVISION, SHARD, HubServer, entry, refusal, serving


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serving(HubServer()) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / f"{NAME}@{REVISION}"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/cron.d/model.safetensors",
        "../model.safetensors",
        "a/../../model.safetensors",
        "./config.json",
        "a//b.json",
        "",
        "..",
        "evil\n.json",
        "evil\x1b[2J.json",
        "evil\x00.json",
        "gnp\u202etxt.json",
        "\ud800.json",
        None,
        7,
        ["config.json"],
    ],
)
def test_names_that_would_leave_the_folder_or_lie_on_a_terminal_are_refused(hub, folder, path):
    hub.listing = [{"type": "file", "path": path, "size": 1, "oid": "0" * 40}]
    told = refusal(hub, folder)
    assert told.startswith(f"not fetched: {REPO} at {REVISION}: the hub lists a file under a name that is none: ")
    assert told.isprintable()
    assert told.isascii()
    assert hub.fetched() == []
    assert not [path for path in folder.parent.parent.rglob("*") if path.is_file() and path.suffix != ".lock"]


@pytest.mark.parametrize(
    "told",
    [
        {"type": "symlink"},
        {"type": "unknown"},
        {"type": None},
        {"size": -1},
        {"size": "1"},
        {"size": True},
        {"oid": "main"},
        {"oid": "0" * 64},
        {"oid": None},
        {"lfs": {"oid": "0" * 40, "size": 1}},
        {"lfs": {"oid": "0" * 64}},
    ],
)
def test_entries_that_are_no_files_with_size_and_checksum_are_refused(told):
    listing = [entry("config.json", b"{}", **told), entry("model.safetensors", b"x")]
    with pytest.raises(Refused, match=r"config\.json"):
        needed(listing)


@pytest.mark.parametrize("kept", [["config.json"], [SHARD], ["README.md", "pytorch_model.bin", "x.gguf"], []])
def test_a_repository_without_what_servers_load_is_told(kept):
    with pytest.raises(Refused, match=r"no config\.json and \*\.safetensors in it"):
        needed([entry(path, b"x") for path in kept])


_names = st.text(st.sampled_from("ab./\\~ \n\x7f\u202e"), max_size=12) | st.text(max_size=20)
_entries = st.fixed_dictionaries(
    {},
    optional={
        "path": _names | st.builds(lambda name: f"{name}.safetensors", _names) | st.none() | st.integers(),
        "type": st.sampled_from(["file", "directory", "link"]) | st.none(),
        "size": st.integers() | st.booleans() | st.none(),
        "oid": st.sampled_from(["0" * 40, "0" * 64, "x"]) | st.none(),
        "lfs": st.none() | st.dictionaries(st.sampled_from(["oid", "size"]), st.integers() | st.just("0" * 64)),
    },
)


@given(st.lists(_entries | st.none() | st.integers() | st.text(max_size=3), max_size=6))
def test_whatever_a_hub_lists_what_is_taken_stays_in_the_folder(listed):
    base: list[Any] = [entry("config.json", b"{}"), entry("model.safetensors", b"x")]
    for file in _taken(base + listed):
        assert isinstance(file, File)
        assert file.size >= 0
        assert Path("/srv/models/m", file.path).resolve().is_relative_to("/srv/models/m")
        assert file.path.isprintable()
        assert not Path(file.path).name.startswith(".")


def _taken(listed: list[Any]) -> list[File]:
    try:
        return needed(listed)
    except Refused:
        return []


@pytest.mark.parametrize(
    ("link", "query"),
    [
        ("", None),
        (
            '<https://h/api/models/a/b/tree/c?recursive=true&cursor=Z%3D%3D>; rel="next"',
            "recursive=true&cursor=Z%3D%3D",
        ),
        ("<https://h/x?cursor=1>; rel=next", "cursor=1"),
        ('<https://h/x?cursor=0>; rel="prev", <https://h/x?cursor=2>; rel="next"', "cursor=2"),
        ('<https://h/x?cursor=0>; rel="prev"', None),
    ],
)
def test_the_next_page_is_read_from_the_link_header(link, query):
    assert next_query(link) == query


def test_a_listing_without_an_end_is_given_up(folder):
    class Endless(HubServer):
        def _list(self, handler: Any, query: dict[str, list[str]]) -> None:
            super()._list(handler, query | {"cursor": ["0"]})

    with serving(Endless(page=1)) as hub:
        assert "has more than 20 pages" in refusal(hub, folder)
    assert len(hub.asked) == 20
