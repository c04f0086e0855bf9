"""Numbers that what a host prints is read with."""

from __future__ import annotations

import pytest

from rackserve.facts.simulation import _APT_UNITS, _DNF_UNITS, _bytes_behind, _dnf_table, _sentence


@pytest.mark.parametrize(
    ("told", "size"),
    [("512 B", 512), ("1 kB", 1000), ("1 KB", 1000), ("1 MB", 1000**2), ("1 GB", 1000**3), ("1 TB", 1000**4)],
)
def test_apt_counts_in_thousands(told, size):
    assert _bytes_behind("Need to get ", [f"Need to get {told} of archives."], _APT_UNITS) == size


@pytest.mark.parametrize(
    ("told", "size"), [("512", 512), ("1 k", 1024), ("1 K", 1024), ("1 M", 1024**2), ("1 G", 1024**3), ("1 T", 1024**4)]
)
def test_dnf_counts_in_1024(told, size):
    assert _bytes_behind("Installed size: ", [f"Installed size: {told}"], _DNF_UNITS) == size


def test_a_line_of_dnfs_table_has_five_words_and_a_unit_may_follow():
    lines = ["Installing:", " name  x86_64  1-1  a-repository", "      999", " other  x86_64  2-1  base  76 M"]
    assert _dnf_table(lines)["installs"] == {"name": "1-1", "other": "2-1"}


@pytest.mark.parametrize(("lines", "told"), [(12, 12), (13, 12)])
def test_twelve_lines_of_an_error_are_told(lines, told):
    assert _sentence([f"line {number}" for number in range(lines)]).count("line") == told


@pytest.mark.parametrize("length", [1499, 1500, 1501])
def test_1500_characters_of_an_error_are_told(length):
    assert len(_sentence(["x" * length])) == min(length, 1500)
