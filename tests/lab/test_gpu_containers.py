"""The Container Toolkit on a lab host: containers are given the GPUs, and an engine is restarted only for a reason."""

from __future__ import annotations

import pytest

from rackserve.lab.gpu import GpuChoice
from rackserve.lab.lab import Lab
from tests.lab.conftest import LabFactory
from tests.lab.gpu_sites import UNINSTALL, GpuSite

pytestmark = pytest.mark.lab
TOOLKIT = [
    "Container Toolkit | Container Toolkit installed",
    "Container Toolkit | Container Toolkit settings as planned",
    "Container Toolkit | CDI specification fresh",
    "Container Toolkit | Container engine gives out GPUs",
]
# An engine as far as its unit and its program's name go: what matters is when it is restarted.
DOCKER = """printf '#!/bin/sh\\nexec sleep infinity\\n' >/usr/local/bin/docker; chmod 755 /usr/local/bin/docker
printf '%s\\n' '[Service]' 'ExecStart=/usr/local/bin/docker' >/etc/systemd/system/docker.service
systemctl daemon-reload; systemctl start docker"""
STARTED = "systemctl show -p ExecMainStartTimestampMonotonic --value docker"


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> GpuSite:
    """Noble, whose podman needs a setting of its own, with two cards and their driver."""
    lab: Lab = lab_factory("gpucontainers")
    lab.up(1, "bookworm", gpus=GpuChoice("l40s", 2, "ubuntu-24.04"))
    made = GpuSite(lab, tmp_path_factory.mktemp("site"), "h1")
    assert made.run().code == 0
    return made


def test_an_engine_that_is_not_there_is_told(site: GpuSite) -> None:
    site.data["container_engines"] = ["docker"]
    site.refused(TOOLKIT[3], "container_engines names docker, which is not installed")


def test_an_engine_is_restarted_once_and_never_again(site: GpuSite) -> None:
    site.on(DOCKER)
    before = site.on(STARTED)
    site.data["container_engines"] = ["docker"]
    run = site.run()
    assert run.code == 0, run.text
    assert run.changed(site.name) == [TOOLKIT[3]]
    after = site.on(STARTED)
    assert after != before
    assert site.run().changed(site.name) == []
    assert site.on(STARTED) == after
    devices = site.on("nvidia-ctk cdi list").split()
    assert devices[0] == "nvidia.com/gpu=0"
    assert devices[-1] == "nvidia.com/gpu=all"
    assert len([name for name in devices if name.startswith("nvidia.com/gpu=GPU-")]) == 2
    said = site.on("systemctl show -p Environment --value nvidia-cdi-refresh.service").strip()
    assert said == "NVIDIA_CTK_CDI_GENERATE_FEATURE_FLAGS=no-additional-gids-for-device-nodes"


def test_a_specification_that_hides_the_fresh_one_is_moved_aside(site: GpuSite) -> None:
    site.on("mkdir -p /etc/cdi; echo 'kind: nvidia.com/gpu' >/etc/cdi/nvidia.yaml")
    assert site.run().changed(site.name) == [TOOLKIT[2]]
    assert site.on("ls /etc/cdi").split() == ["nvidia.yaml.disabled-by-rackserve"]


def test_what_an_engine_still_names_is_told_when_the_toolkit_goes(site: GpuSite) -> None:
    run = site.deploy(script=UNINSTALL)
    assert run.code == 0, run.text
    assert "/etc/docker/daemon.json still names nvidia-container-runtime" in run.said_of(site.name)
    assert "moved aside once, and left there: /etc/cdi/nvidia.yaml.disabled-by-rackserve" in run.said_of(site.name)
    assert site.on("ls -d /etc/systemd/system/nvidia-cdi* /run/cdi 2>/dev/null; command -v nvidia-ctk; true") == ""
