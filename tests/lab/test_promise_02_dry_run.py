"""`--dry` on a virgin host finishes, changes nothing and predicts what the run then does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from rackserve.lab.gpu import GpuChoice
from rackserve.lab.runtime_archives import ollama_archive
from tests.lab.archive_sites import WAY, ArchiveSite
from tests.lab.conftest import LabFactory
from tests.lab.deploying import LISTING, Run, Site

pytestmark = pytest.mark.lab

OLLAMA = "0.32.15"


def from_memory(lab_factory: LabFactory, folder: Path) -> tuple[Site, str]:
    """A host that is to serve from its memory."""
    lab = lab_factory("dry")
    lab.up(1, "forky")
    return Site(lab, folder), "deploys/serve.py"


def from_a_card(lab_factory: LabFactory, folder: Path) -> tuple[Site, str]:
    """A host with a card that has no driver yet: it is to get that and a service in one run."""
    lab = lab_factory("drygpu")
    lab.up(1, "bookworm", gpus=GpuChoice("l40s", 1))
    site = ArchiveSite(lab, folder, "ollama")
    archive = lab.depot_dir / WAY / "ollama.tar.zst"
    ollama_archive(archive, OLLAMA)
    site.offer(OLLAMA, archive, "sha256")
    return site, "deploys/site.py"


# test_drivers and test_sglang ask the same of each half of what a host with a card gets.
KINDS = [
    pytest.param(from_memory, id="memory"),
    pytest.param(from_a_card, id="card", marks=pytest.mark.full),
]


@dataclass
class Predicted:
    """What a dry run on a virgin host has said, the host's files before and after it, and the run that came then."""

    said: list[str]
    before: str
    after: str
    run: Run


@pytest.fixture(scope="module", params=KINDS)
def predicted(
    request: pytest.FixtureRequest, lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory
) -> Predicted:
    made: Callable[[LabFactory, Path], tuple[Site, str]] = request.param
    site, script = made(lab_factory, tmp_path_factory.mktemp("dry"))
    before = site.lab.ssh("h1", LISTING).stdout
    said = site.predicted("h1", script)
    after = site.lab.ssh("h1", LISTING).stdout
    return Predicted(said, before, after, site.deploy(script=script))


def test_dry_run_on_a_virgin_host_changes_nothing(predicted: Predicted) -> None:
    assert len(predicted.before.splitlines()) > 1000
    assert predicted.after == predicted.before


def test_dry_run_predicts_what_the_run_does(predicted: Predicted) -> None:
    assert predicted.run.code == 0, predicted.run.text
    assert predicted.said == predicted.run.changed("h1")
    assert len(predicted.said) >= 7
