"""docs/inventory.md names every key there is, and none that there is not."""

from __future__ import annotations

import re
from pathlib import Path

from rackserve.domain.service import Service
from rackserve.settings import KNOWN_KEYS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "inventory.md").read_text(encoding="utf-8")
_HOST_PART, _SERVICE_PART = PAGE.split("## Of a service")


def documented(part: str) -> set[str]:
    """Keys in the first column of the part's table; two that belong together share a row."""
    rows = re.findall(r"^\| (`[^|]+) \|", part, re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


def test_every_key_of_a_host_is_documented():
    assert documented(_HOST_PART) == set(KNOWN_KEYS)


def test_every_key_of_a_service_is_documented():
    assert documented(_SERVICE_PART) == set(Service.model_fields)
