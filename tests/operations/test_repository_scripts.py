"""repository-deb.sh with real apt and gpg: a repository that is not as pinned changes nothing of a host."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rackserve.rendering.repositories import key_original_path, keyring_path, repository_file
from tests.operations.private_root import needs_private_root
from tests.operations.repository_bench import Bench, closed_address, working_bench

pytestmark = needs_private_root


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with working_bench(tmp_path) as made:
        yield made


# good


def test_a_repository_that_is_as_pinned_is_there_for_apt(bench):
    assert bench.add() == (0, "", "")
    planned = bench.planned()
    file, keyring = repository_file(planned), keyring_path(planned)
    found = bench.everything()
    assert found[file.path] == (0o644, file.text.encode())
    assert found[keyring][0] == 0o644
    shown = bench.root.shell(f"gpg --homedir /run --no-keyring --show-keys --with-colons {keyring} 2>/dev/null")
    assert [line.split(":")[9] for line in shown.splitlines() if line.startswith("fpr:")] == [bench.key.fingerprint]
    # Binary: older versions of apt read no other under this name.
    assert b"BEGIN" not in found[keyring][1]
    bench.root.shell("apt-get -o APT::Update::Error-Mode=any update")
    assert "nv-driver | 580.95.05-1" in bench.root.shell("apt-cache madison nv-driver")


def test_nothing_but_the_repository_and_its_key_is_written(bench):
    before = set(bench.everything())
    bench.add()
    planned = bench.planned()
    assert set(bench.everything()) - before == {repository_file(planned).path, keyring_path(planned)}


def test_a_second_run_ends_in_the_same_files(bench):
    bench.add()
    first = bench.everything()
    assert bench.add() == (0, "", "")
    assert bench.everything() == first


def test_a_binary_key_is_taken_as_it_is(bench):
    bench.add()
    binary = bench.root.path(keyring_path(bench.planned())).read_bytes()
    bench.key_file.write_bytes(binary)
    assert bench.add() == (0, "", "")
    assert bench.root.path(keyring_path(bench.planned())).read_bytes() == binary


def test_a_key_that_is_pinned_by_its_file_is_kept_as_published(bench):
    text = bench.key.armored.replace("BLOCK-----\n", "BLOCK-----\nVersion: GnuPG v2\n", 1)
    bench.key_file.write_text(text)
    # As the vendor publishes checksums: without the line that only says who exported it.
    digest = hashlib.sha256(text.replace("Version: GnuPG v2\n", "").encode()).hexdigest()
    assert bench.add(key_sha256=digest, fingerprints=()) == (0, "", "")
    assert bench.root.path(key_original_path(bench.planned(key_sha256=digest))).read_text() == text
    bench.root.shell("apt-get -o APT::Update::Error-Mode=any update")


# bad keys


def test_another_key_than_the_pinned_one_is_named_beside_it(bench):
    pinned = "0123456789ABCDEF" * 2 + "01234567"
    said = bench.refused(fingerprints=(pinned,))
    assert f"holds the keys {bench.key.fingerprint} and has to hold {pinned}" in said


@pytest.mark.parametrize("order", [1, -1], ids=["behind", "before"])
def test_a_key_more_than_pinned_is_refused(bench, order):
    bench.key_file.write_text("".join([bench.key.armored, bench.other.armored][::order]))
    said = bench.refused()
    both = " ".join(sorted((bench.key.fingerprint, bench.other.fingerprint)))
    assert f"holds the keys {both} and has to hold {bench.key.fingerprint}" in said


def test_a_key_less_than_pinned_is_refused_and_all_of_them_are_not(bench):
    both = (bench.key.fingerprint, bench.other.fingerprint)
    assert f"holds the keys {bench.key.fingerprint} and has to hold {' '.join(sorted(both))}" in bench.refused(
        fingerprints=both
    )
    bench.key_file.write_text(bench.key.armored + bench.other.armored)
    assert bench.add(fingerprints=both)[0] == 0


def test_a_key_hidden_in_another_encoding_is_refused(bench):
    # What reads binary finds the one, what undoes the armor would find the other.
    bench.add()
    binary = bench.root.path(keyring_path(bench.planned())).read_bytes()
    bench.forge()
    bench.key_file.write_bytes(binary + bench.other.armored.encode())
    assert f"and has to hold {bench.key.fingerprint}" in bench.refused()


def test_a_page_instead_of_a_key_is_refused(bench):
    bench.key_file.write_text("<html>log in first</html>")
    assert f"holds the keys none and has to hold {bench.key.fingerprint}" in bench.refused()


def test_another_key_file_than_the_pinned_one_is_named_beside_it(bench):
    digest = hashlib.sha256(bench.key_file.read_bytes()).hexdigest()
    said = bench.refused(key_sha256="0" * 64)
    assert f"has SHA-256 {digest} without its Version line, and has to have {'0' * 64}" in said


@pytest.mark.parametrize(
    ("name", "found"), [("absent", "404"), ("", "Failed to connect")], ids=["no file", "no server"]
)
def test_a_key_that_cannot_be_fetched_is_told_with_its_address(bench, name, found):
    url = bench.mirror.url + name if name else closed_address()
    said = bench.refused(key_url=url)
    assert said.startswith(f"its key was not fetched from {url}: curl: ")
    assert found in said


# bad repositories


def test_a_signature_by_another_key_is_told_with_both(bench):
    bench.forge()
    said = bench.refused()
    assert said.startswith(f"bad signature: expected it by {bench.key.fingerprint}\n")
    # apt knows the key that signed by the end of its fingerprint.
    assert f"NO_PUBKEY {bench.other.fingerprint[-16:]}" in said


def test_a_signature_that_does_not_fit_is_told(bench):
    inline = bench.mirror.folder / "InRelease"
    inline.write_text(inline.read_text().replace("Label: rackserve lab", "Label: rackserve bal"))
    said = bench.refused()
    assert f"expected it by {bench.key.fingerprint}\napt found: " in said
    assert f"BADSIG {bench.key.fingerprint[-16:]}" in said


def test_a_repository_without_a_signature_is_refused(bench):
    for name in ("InRelease", "Release.gpg"):
        (bench.mirror.folder / name).unlink()
    said = bench.refused()
    assert f"expected it by {bench.key.fingerprint}\napt found: " in said
    assert "is not signed" in said


def test_a_repository_that_is_past_its_end_is_a_stale_mirror(bench):
    now = datetime.now(UTC)
    bench.repository.publish(valid_until=now - timedelta(days=3), date=now - timedelta(days=9))
    said = bench.refused()
    assert "is expired (invalid since 3d" in said
    assert "the clocks of this host and the server agree, so it is the mirror" in said


def test_a_clock_that_is_off_is_told_instead(bench):
    now = datetime.now(UTC)
    bench.repository.publish(valid_until=now - timedelta(days=3), date=now - timedelta(days=9))
    bench.mirror.ahead_s = -5 * 86400 - 60
    said = bench.refused()
    assert "is expired (invalid since 3d" in said
    assert "this host's clock is 5 days ahead of the server's" in said
    bench.repository.publish(date=now + timedelta(days=2))
    bench.mirror.ahead_s = 2 * 86400 + 60
    said = bench.refused()
    assert "is not valid yet" in said
    assert "this host's clock is 2 days behind the server's" in said


def test_a_mirror_that_is_down_is_tried_again_and_told_with_its_address(bench):
    url = closed_address()
    said = bench.refused(url=url)
    assert said.startswith("unreachable: Could not connect to ")
    assert url.removeprefix("http://").rstrip("/") in said
    assert bench.pauses() == ["2", "6"]


def test_a_mirror_that_is_overloaded_is_tried_again_and_told(bench):
    bench.mirror.status = 503
    said = bench.refused()
    assert said.startswith("unreachable: ")
    assert "503  Service Unavailable" in said
    assert bench.pauses() == ["2", "6"]


def test_a_mirror_without_the_repository_is_told_with_its_answer(bench):
    bench.mirror.status = 404
    said = bench.refused()
    assert "404  Not Found" in said
    assert f"The repository '{bench.mirror.url.rstrip('/')}  Release' does not have a Release file." in said
    assert bench.pauses() == []


def test_a_package_list_of_another_size_is_told_with_both_sizes(bench):
    signed = (bench.mirror.folder / "Packages.gz").stat().st_size
    bench.tamper(longer=True)
    said = bench.refused()
    assert said.startswith("hash mismatch: its package list is not the one that was signed")
    assert f"({signed + 2} != {signed})" in said
    # It may be a mirror in the middle of its update.
    assert bench.pauses() == ["2", "6"]


def test_a_package_list_of_another_content_is_told_with_both_checksums(bench):
    bench.tamper(longer=False)
    said = bench.refused()
    assert said.startswith("hash mismatch: its package list is not the one that was signed")
    signed = dict(line.split()[::2] for line in (bench.mirror.folder / "Release").read_text().splitlines()[-2:])
    expected = {digest for digest in signed if digest in said}
    assert len(expected) == 1
    served = hashlib.sha256((bench.mirror.folder / signed[expected.pop()]).read_bytes()).hexdigest()
    assert f"SHA256:{served}" in said


def test_a_mirror_that_was_in_the_middle_of_its_update_is_taken_a_moment_later(bench):
    bench.mirror.once = dict.fromkeys(("/Packages", "/Packages.gz"), b"of another day")
    assert bench.add() == (0, "", "")
    assert bench.pauses() == ["2"]
