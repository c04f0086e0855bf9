"""The demo's host in a podman container: boots, answers, and is gone without a trace."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rackserve.domain.errors import LabError
from rackserve.lab import base, podman
from rackserve.lab.lab import Lab
from rackserve.lab.podman_image import ensure_image
from rackserve.lab.shell import require_machine
from rackserve.lab.state import PODMAN

pytestmark = pytest.mark.lab

CGROUP_2 = Path("/sys/fs/cgroup/cgroup.controllers")


def _have_image(suite: str) -> None:
    """An image to start from, or a skip that says why there is none."""
    if podman.missing():
        pytest.skip(podman.missing())
    # Where nspawn works too, its base is imported; elsewhere a registry has to be in reach.
    with suppress(LabError):
        require_machine()
        base.ensure_base(suite, print)
    try:
        ensure_image(suite, print)
    except LabError as error:
        pytest.skip(str(error))


def _up(lab: Lab, suite: str) -> None:
    podman.up(lab.names, lab.login, suite, print)
    lab.wait("h1")


@pytest.fixture(scope="module")
def contained() -> Iterator[Lab]:
    _have_image("bookworm")
    lab = Lab(f"test-podman-{os.getpid()}")
    try:
        _up(lab, "bookworm")
        yield lab
    finally:
        lab.down()


def test_systemd_runs_and_ssh_answers_on_loopback(contained):
    assert contained.state().backend == PODMAN
    assert contained.address("h1") == "127.0.0.1"
    assert contained.condition("h1") == "up"
    assert contained.ssh("h1", "hostname; cat /proc/1/comm").stdout.split() == ["h1", "systemd"]
    assert contained.ssh("h1", "systemctl is-system-running", check=False).stdout.strip() in ("running", "degraded")
    assert contained.ssh("h1", "id -un; sudo -n id -un", user="deploy").stdout.split() == ["deploy", "root"]


def test_the_machines_gpus_do_not_show(contained):
    assert contained.ssh("h1", "ls /sys/bus/pci/devices").stdout == ""


def test_the_depot_offers_what_the_lab_puts_there(contained):
    (contained.depot_dir / "note").write_text("weights")
    assert contained.ssh("h1", f"curl -fsS {contained.depot_url}/note").stdout == "weights"
    assert contained.depot_running()


def test_credentials_reach_a_unit(contained):
    contained.ssh("h1", "echo secret > /root/key && chmod 600 /root/key")
    command = (
        "systemd-run --wait --pipe --quiet --property=LoadCredential=k:/root/key sh -c 'cat $CREDENTIALS_DIRECTORY/k'"
    )
    assert contained.ssh("h1", command).stdout == "secret\n"


def test_up_again_and_a_power_cut_keep_the_disk(contained):
    _up(contained, "bookworm")
    contained.ssh("h1", "echo kept > /root/note; sync")
    contained.kill("h1")
    assert contained.condition("h1") == "off"
    contained.boot("h1")
    assert contained.ssh("h1", "cat /root/note").stdout == "kept\n"


def test_down_leaves_nothing(contained):
    names = contained.names
    other = Lab(f"{names.lab}-gone")
    try:
        _up(other, "bookworm")
        assert _traces(other) != []
    finally:
        assert other.down()
    assert _traces(other) == []
    assert not other.names.folder.exists()
    assert not other.down()
    assert contained.condition("h1") == "up"


def _traces(lab: Lab) -> list[str]:
    """Containers and processes that carry the lab's name."""
    listed = subprocess.run(["podman", "ps", "-a", "--format={{.Names}}"], capture_output=True, text=True, check=True)
    found = [name for name in listed.stdout.split() if name.startswith(lab.names.prefix)]
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if lab.names.prefix.encode() in file.read_bytes():
                found.append(str(file))
    return found


@pytest.mark.skipif(CGROUP_2.exists(), reason="this machine has cgroup 2, on which forky's systemd boots")
def test_a_systemd_that_refuses_the_machine_says_so():
    _have_image("forky")
    lab = Lab(f"test-podman-forky-{os.getpid()}")
    try:
        with pytest.raises(
            LabError, match=r"h1 did not come up within .*; its console ends: .*legacy cgroup hierarchy"
        ):
            _up(lab, "forky")
    finally:
        assert lab.down()
    assert _traces(lab) == []
