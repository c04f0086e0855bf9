from __future__ import annotations

import pytest

from rackserve.domain.errors import InputError, LabError
from rackserve.lab.sources import (
    Mirror,
    Source,
    apt_lines,
    find_mirror,
    machine_mirror,
    parse_deb822,
    parse_one_line,
)

ONE_LINE = """\
# comment
deb-src http://mirror.test/debian bookworm main
deb [arch=amd64 signed-by=/etc/apt/keyrings/vendor.gpg] https://vendor.test/linux/debian bookworm main # vendor
deb http://mirror.test/debian bookworm main contrib
deb http://mirror.test/debian bookworm-updates main contrib
deb http://security.test/debian-security bookworm-security main
"""

DEB822 = """\
Types: deb deb-src
# http://elsewhere.test
URIs: http://mirror.test/debian
Suites: trixie trixie-updates
Components: main
 non-free-firmware
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Enabled: no
Types: deb
URIs: http://off.test/debian
Suites: trixie
Components: main

Types: deb-src
URIs: http://source.test/debian
Suites: trixie
Components: main

Types: deb
URIs: http://security.test/debian-security
Suites: trixie-security
Components: main
"""


def test_one_line_entries_carry_key_and_components():
    first, second, *_ = parse_one_line(ONE_LINE)
    assert first == Source("https://vendor.test/linux/debian", "bookworm", ("main",), "/etc/apt/keyrings/vendor.gpg")
    assert second == Source("http://mirror.test/debian", "bookworm", ("main", "contrib"))


def test_deb822_joins_continuations_and_leaves_out_disabled_and_source_entries():
    found = parse_deb822(DEB822)
    assert [source.suite for source in found] == ["trixie", "trixie-updates", "trixie-security"]
    assert found[0].components == ("main", "non-free-firmware")


@pytest.mark.parametrize("text", ["", "\n\n\n", "no colon here", "Types: deb", "  leading: space"])
def test_deb822_takes_odd_files(text):
    assert parse_deb822(text) == []


def test_the_debian_archive_is_told_from_a_vendors():
    mirror = find_mirror(parse_one_line(ONE_LINE))
    assert mirror == Mirror("http://mirror.test/debian", "http://security.test/debian-security", ("main", "contrib"))


def test_an_archive_with_updates_beside_it_wins():
    unkeyed = Source("http://vendor.test", "stable", ("main",))
    assert find_mirror([unkeyed, *parse_deb822(DEB822)]).archive == "http://mirror.test/debian"


def test_no_debian_archive_is_found_on_another_distribution():
    assert find_mirror([Source("http://ubuntu.test/ubuntu", "noble", ("main",))]) is None


def test_released_suites_get_updates_and_security():
    mirror = Mirror("http://m.test/debian", "http://s.test/security", ("main",))
    assert apt_lines(mirror, "trixie") == [
        "deb http://m.test/debian trixie main",
        "deb http://m.test/debian trixie-updates main",
        "deb http://s.test/security trixie-security main",
    ]
    assert apt_lines(mirror, "forky") == ["deb http://m.test/debian forky main"]
    assert len(apt_lines(Mirror("http://m.test/debian", "", ("main",)), "bookworm")) == 2


def test_an_unknown_suite_names_the_known_ones():
    with pytest.raises(InputError, match="bookworm, trixie, forky"):
        apt_lines(Mirror("http://m.test/debian", "", ("main",)), "woody")


def test_machine_mirror_reads_both_formats(tmp_path):
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text("deb https://vendor.test/x nodistro main\n")
    (tmp_path / "sources.list.d" / "debian.sources").write_text(DEB822)
    assert machine_mirror(tmp_path, {}).security == "http://security.test/debian-security"


def test_machine_mirror_follows_a_mirror_list(tmp_path):
    listed = tmp_path / "debian.list"
    listed.write_text("http://first.test/debian\nhttp://second.test/debian\n")
    (tmp_path / "sources.list").write_text(f"deb mirror+file:{listed} bookworm main\n")
    assert machine_mirror(tmp_path, {}).archive == "http://first.test/debian"


def test_the_environment_names_a_mirror(tmp_path):
    environ = {"RACKSERVE_LAB_MIRROR": "http://a.test/debian http://b.test/security"}
    assert machine_mirror(tmp_path, environ) == Mirror("http://a.test/debian", "http://b.test/security", ("main",))


def test_without_any_mirror_the_error_says_what_to_set(tmp_path):
    with pytest.raises(LabError, match="set RACKSERVE_LAB_MIRROR"):
        machine_mirror(tmp_path, {})
