"""A host that the release before set up converges with this one, and this one takes all of it off again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from rackserve.lab.gpu import GpuChoice
from rackserve.lab.lab import Lab
from tests.lab.archive_sites import WAY, ArchiveSite
from tests.lab.checkpoints import MODEL
from tests.lab.conftest import LabFactory
from tests.lab.deploying import ROOT, Run, Site, differences, everything, serves
from tests.lab.previous import check_out, run_by
from tests.lab.sglang_wheel import VERSION
from tests.lab.test_sglang import offer

pytestmark = pytest.mark.lab

SERVICES = ("chat", "second")
# systemd's own mark of a unit that has started.
STARTED = "MESSAGE_ID=39f53479d3a045ac8e11786248231fbf"


@dataclass
class Upgraded:
    """A host that both releases have deployed to, and what it was before either of them."""

    site: Site
    before: dict[str, list[str]]
    run: Run


@pytest.fixture(scope="module")
def upgraded(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Upgraded:
    folder = tmp_path_factory.mktemp("previous")
    lab = lab_factory("previous")
    lab.up(1, "forky")
    site = Site(lab, folder)
    chat = site.hosts["h1"]["services"][0]
    site.hosts["h1"]["services"] = [chat, {**chat, "name": "second", "max_model_len": 512, "port": 8002}]
    before = everything(lab, "h1")
    set_up_by_the_release_before(site, folder)
    run_by(site, ROOT)
    return Upgraded(site, before, site.deploy())


def set_up_by_the_release_before(site: Site, folder: Path) -> None:
    """Deploy with its code, and see that what is on the host is what its code renders."""
    tree = check_out(folder)
    run_by(site, tree)
    run = site.deploy()
    assert run.code == 0, run.text
    rendered = site.rackserve("render", str(site.file), "--out", str(folder / "rendered"))
    assert rendered.returncode == 0, rendered.stderr
    files = [path for path in (folder / "rendered" / "h1").rglob("*") if path.is_file()]
    assert len(files) > len(SERVICES)
    for path in files:
        installed = site.lab.ssh("h1", f"cat /{path.relative_to(folder / 'rendered' / 'h1')}").stdout
        assert installed == path.read_text(encoding="utf-8")
    assert {starts(site.lab, service) for service in SERVICES} == {1}


def starts(lab: Lab, service: str) -> int:
    """How often a service has been started on this host."""
    return len(lab.ssh("h1", f"journalctl -q --no-pager -o cat -u rackserve@{service} {STARTED}").stdout.splitlines())


def test_its_host_converges_with_one_restart_at_most_and_answers(upgraded: Upgraded) -> None:
    site = upgraded.site
    assert upgraded.run.code == 0, upgraded.run.text
    for service in SERVICES:
        assert starts(site.lab, service) <= 2
        assert serves(site.lab, "h1", service)
    verified = site.rackserve("verify", str(site.file))
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_second_run_of_this_release_changes_nothing(upgraded: Upgraded) -> None:
    site = upgraded.site
    before = [starts(site.lab, service) for service in SERVICES]
    again = site.deploy()
    assert again.code == 0, again.text
    assert again.changed("h1") == []
    assert [starts(site.lab, service) for service in SERVICES] == before


def test_this_release_takes_off_all_that_the_one_before_brought(upgraded: Upgraded) -> None:
    cleaned(upgraded.site, upgraded.before)


def cleaned(site: Site, before: dict[str, list[str]]) -> None:
    """Take rackserve off the host: all is as before, but for models."""
    removal = site.deploy(script="deploys/uninstall.py")
    assert removal.code == 0, removal.text
    left = differences(before, everything(site.lab, "h1"))
    assert [line for lines in left.values() for line in lines if "/srv/models" not in line] == []


@pytest.mark.full
def test_a_host_with_a_card_and_a_python_runtime_converges_and_is_cleaned_too(
    lab_factory: LabFactory, tmp_path: Path
) -> None:
    lab = lab_factory("previousgpu")
    lab.up(1, "bookworm", gpus=GpuChoice("l40s", 1))
    (lab.depot_dir / WAY).mkdir(parents=True)
    site = ArchiveSite(lab, tmp_path, "sglang")
    offer(lab, tmp_path)
    own, known_before = tmp_path / "cuda.toml", tmp_path / "cuda-before.toml"
    # That release knows no packages of its own for what is pinned.
    known_before.write_text(re.sub(r"(?m)^packages = .*\n", "", own.read_text()))
    site.service |= {"model": MODEL, "runtime_version": VERSION}
    site.data["catalog"].append(str(known_before))
    before = everything(lab, "h1")
    run_by(site, check_out(tmp_path))
    run = site.deploy(script="deploys/site.py")
    assert run.code == 0, run.text
    assert starts(lab, "chat") == 1
    site.data["catalog"][-1] = str(own)
    run_by(site, ROOT)
    run = site.deploy(script="deploys/site.py")
    assert run.code == 0, run.text
    assert starts(lab, "chat") <= 2
    assert site.completion()["usage"]["completion_tokens"] == 3
    assert site.deploy(script="deploys/site.py").changed("h1") == []
    cleaned(site, before)
