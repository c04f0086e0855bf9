"""Facts of the Container Toolkit and of Apple's memory limit, on what the tools print."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from rackserve.facts.container_toolkit import ContainerToolkit, parse_toolkit
from rackserve.facts.wired_limit import WiredLimit, WiredLimitState, parse_wired_limit


def run(command: str, folder: Path, **programs: str) -> list[str]:
    """The command of a fact, with these programs first on the path."""
    for name, text in programs.items():
        program = folder / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "LC_ALL": "C"}
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True, env=environment)
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_a_host_without_the_toolkit_has_none_of_it(tmp_path):
    lines = run(
        ContainerToolkit().command(["nvidia-container-toolkit-base"], "nvidia-cdi-refresh.path"),
        tmp_path,
        dpkg_query="exit 1",
        systemctl="exit 1",
        nvidia_ctk="exit 1",
    )
    state = parse_toolkit(lines)
    assert (state.versions, state.devices, state.refreshing, state.stale) == ({}, (), False, False)


def test_what_the_toolkit_has_written_is_read(tmp_path):
    lines = run(
        ContainerToolkit().command(["nvidia-container-toolkit-base"], "nvidia-cdi-refresh.path"),
        tmp_path,
        dpkg_query="echo 'ii  1.20.0-1'",
        systemctl='[ "$1" = is-enabled ] && echo enabled || echo active',
        nvidia_ctk="printf 'nvidia.com/gpu=0\\nnvidia.com/gpu=GPU-1\\nnvidia.com/gpu=all\\n'",
        docker="true",
    )
    state = parse_toolkit(lines)
    assert state.versions == {"nvidia-container-toolkit-base": "1.20.0-1"}
    assert state.refreshing
    assert state.devices == ("nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1", "nvidia.com/gpu=all")
    assert "docker" in state.installed
    assert "docker" not in state.configured


def test_the_memory_limit_of_a_mac_is_read(tmp_path):
    lines = run(
        WiredLimit().command("io.rackserve.gpu-memory", "/Library/LaunchDaemons/x.plist"),
        tmp_path,
        sysctl="echo 98304",
        shasum="echo 'abc  /Library/LaunchDaemons/x.plist'",
        launchctl='[ "$2" = system/io.rackserve.gpu-memory ]',
    )
    assert parse_wired_limit(lines) == WiredLimitState(98304, "abc", loaded=True)
    assert parse_wired_limit(["limit=", "sha256="]) == WiredLimitState(0, "", loaded=False)
