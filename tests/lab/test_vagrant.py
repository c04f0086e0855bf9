"""Virtual machines: a box of our own, `vagrant up`, the main job, a completion, and no change the second time."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rackserve.cache import builds_folder
from rackserve.lab import vagrant
from tests import needs
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Site
from tests.lab.virtual import BOX_S, BUILD_S, DESTROY_S, PROGRAMS, RUN_S, UP_S, added_box, call, isolated, libvirt

pytestmark = [pytest.mark.vagrant, needs.root("vagrant", *PROGRAMS)]

MACHINES = ("g1", "g2")
ASK = (
    'curl -sS http://127.0.0.1:8001/v1/chat/completions -H "Content-Type: application/json" '
    '-H "Authorization: Bearer $(sudo cat /etc/rackserve/credentials/chat/api-key)" '
    """-d '{"model": "chat", "messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 8}'"""
)


class Machines:
    """The machines of the Vagrantfile, up, with the tiny model on offer."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.environment = environment
        self.log = log

    def vagrant(self, *arguments: str, timeout: float = 120) -> str:
        done = call("vagrant", *arguments, environment=self.environment, timeout=timeout)
        # Vagrant prints a Ruby backtrace below what it has to say.
        assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines() if "/gems/" not in line)
        return done.stdout

    def deploy(self, *options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pyinfra", *options, "--data", "llamacpp_install=build"]
        done = call(*command, "inventories/vagrant.py", "deploys/serve.py", environment=self.environment, timeout=RUN_S)
        (self.log / f"deploy{''.join(options)}.log").write_text(done.stdout)
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def machines(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("vagrant")
    # The patch ends last: what is cleaned up is found by it.
    with pytest.MonkeyPatch.context() as patch, ExitStack() as cleanup:
        environment = isolated(folder, build)
        box, file, key = _box()
        environment |= {"RACKSERVE_BOX": box, "RACKSERVE_BOX_KEY": key}
        machines = Machines(environment, folder)
        cleanup.enter_context(libvirt(folder))
        cleanup.enter_context(added_box(box, file, environment))
        cleanup.callback(machines.vagrant, "destroy", "--force", timeout=DESTROY_S)
        (folder / "up.log").write_text(machines.vagrant("up", "--provider=libvirt", timeout=UP_S))
        patch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
        cleanup.callback(vagrant.withdraw)
        vagrant.offer(lambda _: None)
        yield machines


def _box() -> tuple[str, str, str]:
    """Name, file and key of our own box with Debian 12, as the command line tells them."""
    done = call(sys.executable, "-m", "rackserve", "lab", "box", "--suite", "bookworm", timeout=BOX_S)
    assert done.returncode == 0, done.stdout
    _, add, export = done.stdout.splitlines()[-3:]
    *_, name, file = add.split()
    return name, file, export.rpartition("=")[2]


@pytest.fixture(scope="module")
def build(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """llama-server for Debian 12 in the cache of builds: one that is kept, else built on a lab host now.

    A machine that is emulated would compile for hours.
    """
    if not _builds():
        _build(lab_factory, tmp_path_factory.mktemp("build"))
    return _builds()[0].parent


def _builds() -> list[Path]:
    return list(builds_folder().glob("*-bookworm-x86_64.tar.gz"))


def _build(lab_factory: LabFactory, folder: Path) -> None:
    lab = lab_factory("vagrant-build")
    lab.up(1, "bookworm")
    site = Site(lab, folder)
    site.hosts["h1"]["llamacpp_install"] = "build"
    command = (sys.executable, "-m", "pyinfra", "-y", str(site.write()), "deploys/serve.py")
    done = call(*command, environment=site.environment, timeout=BUILD_S)
    assert done.returncode == 0, done.stdout
    assert _builds()


@pytest.fixture(scope="module")
def predicted(machines: Machines) -> str:
    code, text = machines.deploy("--dry")
    assert code == 0, text
    return text


@pytest.fixture(scope="module")
def first(machines: Machines, predicted: str) -> str:
    assert predicted
    code, text = machines.deploy("-y")
    assert code == 0, text
    return text


def test_a_dry_run_predicts_the_service_on_both_machines(predicted):
    assert re.search(r"Service serving its plan +2 \(@vagrant/g1, @vagrant/g2\)", predicted)


def test_the_main_job_makes_both_machines_serve(machines, first):
    assert "] Error" not in first
    for name in MACHINES:
        assert f"@vagrant/{name}: chat serves tiny-random" in first
        answer = json.loads(machines.vagrant("ssh", name, "-c", ASK).splitlines()[-1])
        assert answer["usage"]["completion_tokens"] == 8
        assert answer["choices"][0]["message"]["content"].strip()


def test_the_kernel_holds_the_service_to_its_memory(machines, first):
    assert first
    limit = machines.vagrant("ssh", "g1", "-c", "cat /sys/fs/cgroup/system.slice/*rackserve*/*/memory.max")
    assert int(limit.split()[-1]) < 512 << 20


def test_a_second_run_changes_nothing(machines, first):
    assert first
    code, text = machines.deploy("-y", "-v")
    assert code == 0, text
    assert "] Success" not in text
    assert text.count("] No changes") == first.count("] No changes") + first.count("] Success")


def test_a_machine_that_is_not_up_is_left_out(machines):
    machines.vagrant("destroy", "--force", "g2")
    listed = call(sys.executable, "-m", "pyinfra", "inventories/vagrant.py", "debug-inventory", "--json",
                  environment=machines.environment)  # fmt: skip
    assert "@vagrant/g1" in listed.stdout
    assert "@vagrant/g2" not in listed.stdout
