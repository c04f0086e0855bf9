"""Run deploys/drivers.py on pretended hosts, and read what each was sent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest

from rackserve.operations import reboot
from tests.roles.fakes import Run, deploy
from tests.roles.gpu_box import Box, sent

ORDER = [
    "GPU preflight | Host is what its GPU tag and driver need",
    "Driver | Package repositories as planned",
    "Driver | Pins and guards against upgrades as planned",
    "Driver | Driver packages installed",
    "Driver | Modules and checks as planned",
    "Driver | Driver loaded",
    "Driver | GPUs ready",
    "Container Toolkit | Container Toolkit installed",
    "Container Toolkit | Container Toolkit settings as planned",
    "Container Toolkit | CDI specification fresh",
    "Container Toolkit | Container engine gives out GPUs",
    "Apple GPU memory | Wired memory limit as planned",
]
_DIGEST = re.compile("[0-9a-f]{64}")


def data_of(box: Box, **settings: Any) -> dict[str, Any]:
    return {"gpu_tag": box.tag, "gpu_count": box.count, "memory_mib": 65536, "_sudo": True} | settings


def drive(boxes: Mapping[str, Box], settings: Mapping[str, dict[str, Any]] | None = None) -> Run:
    """Run the deploy on these hosts; what was known of them before is not told to it."""
    hosts = {name: data_of(box, **(settings or {}).get(name, {})) for name, box in boxes.items()}
    with pytest.MonkeyPatch.context() as patches:
        patches.setattr(reboot, "_POLL_S", 0)
        return deploy("drivers.py", hosts, dict(boxes), patches)


def told(run: Run, name: str) -> list[tuple[str, ...]]:
    """What a host was sent, with DIGEST for the digest of a plan."""
    lines = [sent(command) for command in run.changes[name]]
    return [
        tuple("DIGEST" if re.fullmatch("[0-9a-f]{64}", word) and n == 1 else word for n, word in enumerate(line))
        for line in lines
    ]


def named(run: Run) -> list[str]:
    """The operations of a run in their order, each with its one name."""
    assert [names for names in run.names if len(names) != 1] == []
    return [name for names in run.names for name in names]
