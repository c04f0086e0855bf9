"""Virtual machines end with the test that made them, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.lab.virtual import PROGRAMS, virsh

pytestmark = [pytest.mark.vagrant, needs.root(*PROGRAMS)]

ENDS_S = 120
NAME = "rackserve-test-ends"
ADDRESS = "192.168.223.1"
# A machine without a disk, and a network with libvirt's own dnsmasq.
DOMAIN = f"""<domain type='qemu'><name>{NAME}</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64'>hvm</type></os>
<devices><interface type='network'><source network='{NAME}'/></interface></devices></domain>"""
NETWORK = f"""<network><name>{NAME}</name><forward mode='nat'/><bridge name='virbr223'/>
<ip address='{ADDRESS}' netmask='255.255.255.0'><dhcp>
<range start='192.168.223.10' end='192.168.223.20'/></dhcp></ip></network>"""
# A test as those in test_vagrant.py, with a machine that boots nothing.
TEST = """
import os, time
from pathlib import Path
from tests.lab.virtual import libvirt, virsh

def test_machines(tmp_path):
    folder = Path(os.environ["ENDS_FOLDER"])
    with libvirt(tmp_path):
        for verb, name in (("net-create", "network"), ("create", "domain")):
            done = virsh(verb, str(folder / f"{name}.xml"))
            assert done.returncode == 0, done.stdout
        (folder / "up").touch()
        time.sleep(3600)
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A pytest process in whose test the machine and the network are up."""
    if virsh("list").returncode == 0:
        pytest.skip(f"{needs.DOES_NOT_ARISE}libvirt runs by itself")
    (tmp_path / "network.xml").write_text(NETWORK)
    (tmp_path / "domain.xml").write_text(DOMAIN)
    (tmp_path / "test_ends.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.conftest"]
    with (
        (tmp_path / "log").open("w") as log,
        subprocess.Popen(
            [*command, "-c", "pyproject.toml", str(tmp_path / "test_ends.py")],
            env={**os.environ, "ENDS_FOLDER": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        try:
            _until(lambda: (tmp_path / "up").exists() or process.poll() is not None)
            assert process.poll() is None, (tmp_path / "log").read_text()
            yield process
        finally:
            process.kill()


def _until(came: Callable[[], bool]) -> None:
    deadline = time.monotonic() + ENDS_S
    while not came():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def _machines() -> set[str]:
    """What runs now of the machine, its network and libvirt: command lines with the names above."""
    found = set()
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if words.startswith(("libvirtd", "virtlogd")) or (NAME in words and "pytest" not in words):
            found.add(words)
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_of_a_run_that_is_ended(running, number):
    assert len(_machines()) >= 4
    running.send_signal(number)
    running.wait(ENDS_S)
    _until(lambda: not _machines())
