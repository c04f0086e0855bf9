"""What a host is sent for the images of its services: podman, what it lacks, and the removal of what was brought."""

from __future__ import annotations

import pytest

from rackserve.facts.podman import OWN_IMAGES, Podman, PodmanState
from rackserve.operations.images import image, images_gone, podman_installed
from tests.operations.sending import commands, script_of

ONE, TWO = (f"nvcr.io/engine@sha256:{digit * 64}" for digit in "12")


def state(commands: str = "", images: tuple[str, ...] = (), own: tuple[str, ...] = ()) -> dict[type, PodmanState]:
    return {Podman: PodmanState(frozenset(commands.split()), frozenset(images), own)}


@pytest.mark.parametrize("manager", ["apt", "dnf"])
def test_a_podman_that_is_there_is_left_alone(manager):
    assert commands(podman_installed, state("crun podman python3"), manager=manager, lock_timeout=9) == []


@pytest.mark.parametrize(("manager", "script"), [("apt", ("packages.sh", "9")), ("dnf", ("refresh-rpm.sh", "9", ""))])
def test_podman_comes_with_what_it_runs_containers_with(manager, script):
    (command,) = commands(podman_installed, state("podman python3"), manager=manager, lock_timeout=9)
    assert script_of(command) == (*script, "ca-certificates", "crun", "podman", "python3")


def test_an_image_that_is_there_is_not_pulled_again():
    assert commands(image, state(images=(ONE,)), image_name=ONE, disk_gib=96, wanted=[ONE]) == []


def test_an_image_that_is_missing_is_pulled_and_what_is_wanted_stays():
    (command,) = commands(image, state(images=(TWO,)), image_name=ONE, disk_gib=96, wanted=[ONE, TWO])
    assert script_of(command) == ("image.sh", OWN_IMAGES, ONE, "96", "3", "/var/cache/rackserve", ONE, TWO)


def test_images_of_ours_go_with_us():
    assert commands(images_gone, state(images=(ONE,))) == []
    (command,) = commands(images_gone, state(images=(ONE, TWO), own=(TWO,)))
    assert script_of(command) == ("images-gone.sh", OWN_IMAGES)
