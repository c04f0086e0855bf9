"""What verify makes of the words that a host answers with."""

from __future__ import annotations

import json

import pytest

from rackserve.checks.host import checksums, mapped

PROGRAM = "/opt/rackserve/releases/llama.cpp-1/bin/llama-server"
# As the kernel writes them: addresses, rights, offset, device, inode, path.
LINE = "7f1c0a000000-7f1c0a021000 r-xp 00001000 fe:01 1835 {}\n"
OTHER = LINE.format("/usr/lib/x86_64-linux-gnu/libc.so.6")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        ([PROGRAM], PROGRAM),
        ([f"{PROGRAM} (deleted)"], "replaced on disk"),
        ([PROGRAM, f"{PROGRAM} (deleted)"], PROGRAM),
        ([], "nothing of it"),
        ([f"{PROGRAM}-old"], "nothing of it"),
    ],
)
def test_a_process_is_told_by_what_it_has_mapped_of_a_program(paths, expected):
    assert mapped(PROGRAM, OTHER + "".join(map(LINE.format, paths))) == expected


@pytest.mark.parametrize(("mark", "expected"), [("", "/r/lib"), (" (deleted)", "replaced on disk")])
def test_a_folder_of_libraries_is_told_by_any_of_them(mark, expected):
    assert mapped("/r/lib", OTHER + LINE.format(f"/r/lib/torch/libtorch.so{mark}")) == expected
    assert mapped("/r/li", OTHER + LINE.format(f"/r/lib/torch/libtorch.so{mark}")) == "nothing of it"


def test_a_manifest_is_read_as_sha256sum_wants_it():
    manifest = {"files": [{"sha256": "a" * 64, "file": "model.safetensors"}, {"sha256": "b" * 64, "file": "c d.json"}]}
    assert checksums(json.dumps(manifest)) == f"{'a' * 64}  model.safetensors\n{'b' * 64}  c d.json\n"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"files": [{}]}', '{"files": 1}', "null"])
def test_a_broken_manifest_is_one_of_three_errors(text):
    with pytest.raises((ValueError, KeyError, TypeError)):
        checksums(text)
