"""image.sh and images-gone.sh, with the real podman and a registry on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.facts.podman import OWN_IMAGES, Podman, PodmanState
from tests import needs
from tests.lab.registry import Image, layer, registry
from tests.operations.private_root import PrivateRoot, needs_private_root

pytestmark = [
    needs_private_root,
    needs.programs("podman"),
]
STORAGE = '[storage]\ndriver="vfs"\nrunroot="/run/containers/storage"\ngraphroot="/var/lib/containers/storage"\n'
BUILDS = [Image([layer({"/usr/bin/build": bytes([number]) * 100})], ["/usr/bin/build"]) for number in range(5)]


# podman asks how processes are grouped.
_GROUPS = 'mount -t sysfs sysfs /sys; mount -t cgroup2 cgroup2 /sys/fs/cgroup; exec "$@"'


class Host(PrivateRoot):
    """A host whose podman knows one registry; `images` are the names of the builds there."""

    images: list[str]

    def start(self, *words: object, stdin: str = "", beside: int | None = None) -> subprocess.Popen[str]:
        return super().start("sh", "-c", _GROUPS, "sh", *words, stdin=stdin, beside=beside)

    def pull(self, image: str, *wanted: str, gib: int = 0, keep: int = 3) -> subprocess.CompletedProcess[str]:
        return self.script("image.sh", OWN_IMAGES, image, gib, keep, "/var/cache/rackserve", *(wanted or (image,)))

    def pulled(self, *images: str) -> None:
        for image in images:
            done = self.pull(image)
            assert done.returncode == 0, done.stderr

    def fact(self) -> PodmanState:
        return Podman().process(self.shell(Podman().command([], self.images)).splitlines())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path / "root")
    with registry("127.0.0.1", BUILDS) as name:
        made.images = [f"{name}/lab/engine@{build.digest}" for build in BUILDS]
        for path, text in (
            ("/etc/containers/storage.conf", STORAGE),
            ("/etc/containers/registries.conf.d/lab.conf", f'[[registry]]\nlocation="{name}"\ninsecure=true\n'),
        ):
            made.path(path).parent.mkdir(parents=True, exist_ok=True)
            made.path(path).write_text(text)
        yield made


def test_an_image_is_pulled_by_its_digest_and_known_to_be_ours(host):
    host.pulled(host.images[0])
    assert host.fact() == PodmanState(frozenset(), frozenset({host.images[0]}), (host.images[0],))


def test_the_newest_three_stay_and_those_that_are_wanted(host):
    first, second, third, fourth, fifth = host.images
    host.pulled(first, second, third)
    assert host.fact().own == (first, second, third)
    done = host.pull(fourth, fourth, first)
    assert done.returncode == 0, done.stderr
    # The oldest is still wanted, and counts.
    assert host.fact().own == (first, second, third, fourth)
    done = host.pull(fifth)
    assert done.stdout.splitlines() == [f"removed: {first}", f"removed: {second}"]
    state = host.fact()
    assert state.own == (third, fourth, fifth)
    assert state.images == {third, fourth, fifth}


def test_what_was_compiled_with_an_image_goes_with_it(host):
    folders = {image: host.path(f"/var/cache/rackserve/chat/images/{digits(image)}") for image in host.images}
    for folder in folders.values():
        (folder / "triton").mkdir(parents=True)
    host.pulled(*host.images[:4])
    assert [image for image, folder in folders.items() if not folder.exists()] == [host.images[0]]


def digits(image: str) -> str:
    return image.rpartition(":")[2][:12]


def test_an_image_is_ours_also_where_the_run_died_that_pulled_it(host):
    podman = host.shell("command -v podman").strip()
    dies = '[ "$1" != pull ] || kill -KILL "$PPID" $(pgrep -P "$PPID")'
    host.program("podman", f'#!/bin/sh\n{podman} "$@" || exit\n{dies}\n')
    assert host.pull(host.images[0]).returncode != 0
    host.program("podman", f'#!/bin/sh\nexec {podman} "$@"\n')
    assert host.fact() == PodmanState(frozenset(), frozenset({host.images[0]}), (host.images[0],))


def test_images_of_others_are_left_alone(host):
    host.shell(f"podman pull -q {host.images[0]}")
    host.pulled(*host.images[1:])
    assert host.images[0] in host.fact().images
    assert host.script("images-gone.sh", OWN_IMAGES).returncode == 0
    assert host.fact() == PodmanState(frozenset(), frozenset({host.images[0]}), ())


def test_an_image_that_somebody_runs_is_told_and_stays(host):
    host.pulled(host.images[0])
    host.shell(f"podman create --name theirs {host.images[0]}")
    done = host.script("images-gone.sh", OWN_IMAGES)
    assert (done.returncode, done.stdout) == (0, f"in use, left there: {host.images[0]}\n")


def test_an_image_that_is_not_there_is_told_in_podmans_words(host):
    missing = host.images[0][:-4] + "0000"
    done = host.pull(missing)
    assert done.returncode == 1
    assert done.stderr.startswith(f"not pulled: {missing}: ")
    assert "manifest" in done.stderr
    assert host.fact().own == ()


def test_a_registry_that_does_not_answer_is_told(host):
    nowhere = f"127.0.0.1:1/lab/engine@{BUILDS[0].digest}"
    done = host.pull(nowhere)
    assert done.returncode == 1
    assert "connection refused" in done.stderr


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(host):
    done = host.pull(host.images[0], gib=10**6)
    assert done.returncode == 1
    assert "GiB free, 1000000 GiB are needed" in done.stderr
    assert host.fact().images == frozenset()
