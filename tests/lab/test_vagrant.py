"""Virtual machines: a box of our own, `vagrant up`, the main job, a completion, and no change the second time."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from rackserve.cache import builds_folder
from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import LabError
from rackserve.lab import vagrant
from rackserve.lab.box import ensure_box
from rackserve.lab.model import hub_answers
from rackserve.lab.shell import require_machine
from tests.lab.virtual import added_box, call, isolated, libvirt

pytestmark = pytest.mark.vagrant

MACHINES = ("g1", "g2")
UP_S = 900
RUN_S = 900
ASK = (
    'curl -sS http://127.0.0.1:8001/v1/chat/completions -H "Content-Type: application/json" '
    '-H "Authorization: Bearer $(sudo cat /etc/rackserve/credentials/chat/api-key)" '
    """-d '{"model": "chat", "messages": [{"role": "user", "content": "Say hello"}], "max_tokens": 8}'"""
)


class Machines:
    """The machines of the Vagrantfile, up, with the tiny model on offer."""

    def __init__(self, environment: dict[str, str], log: Path, install: str) -> None:
        self.environment = environment
        self.log = log
        self.install = install

    def vagrant(self, *arguments: str, timeout: float = 120) -> str:
        done = call("vagrant", *arguments, environment=self.environment, timeout=timeout)
        # Vagrant prints a Ruby backtrace below what it has to say.
        assert done.returncode == 0, "\n".join(line for line in done.stdout.splitlines() if "/gems/" not in line)
        return done.stdout

    def deploy(self, *options: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "pyinfra", *options, "--data", f"llamacpp_install={self.install}"]
        done = call(*command, "inventories/vagrant.py", "deploys/serve.py", environment=self.environment, timeout=RUN_S)
        (self.log / f"deploy{''.join(options)}.log").write_text(done.stdout)
        return done.returncode, done.stdout


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    install = _installable()
    folder = tmp_path_factory.mktemp("vagrant")
    # The patch ends last: what is cleaned up is found by it.
    with pytest.MonkeyPatch.context() as patch, ExitStack() as cleanup:
        environment = isolated(folder, builds_folder())
        box = ensure_box("bookworm", lambda _: None)
        environment |= {"RACKSERVE_BOX": box.name, "RACKSERVE_BOX_KEY": str(box.private_key)}
        machines = Machines(environment, folder, install)
        cleanup.enter_context(libvirt(folder))
        cleanup.enter_context(added_box(box.name, box.file, environment))
        cleanup.callback(machines.vagrant, "destroy", "--force")
        (folder / "up.log").write_text(machines.vagrant("up", "--provider=libvirt", timeout=UP_S))
        patch.setenv("XDG_CACHE_HOME", environment["XDG_CACHE_HOME"])
        cleanup.callback(vagrant.withdraw)
        vagrant.offer(lambda _: None)
        yield machines


def _installable() -> str:
    """How llama-server gets onto Debian 12 here; skips where nothing can, or Vagrant is missing."""
    try:
        require_machine()
    except LabError as error:
        pytest.skip(str(error))
    if shutil.which("vagrant") is None or shutil.which("libvirtd") is None:
        pytest.skip("needs Vagrant and libvirt: `make test-vagrant` installs them")
    if list(builds_folder().glob("*-bookworm-x86_64.tar.gz")):
        return "build"
    if hub_answers(next(entry.url for entry in load_catalog().llamacpp.archives if entry.architecture == "x86_64")):
        return "archive"
    pytest.skip("no llama-server for Debian 12: no kept build (the tests marked `build` leave one), no release archive")


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
