"""A host's GPUs, kernels and driver packages: everything that is looked at before and after a driver is changed."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

from pyinfra.api import FactBase
from pyinfra.api.exceptions import FactProcessError

from rackserve.domain.gpu_state import GpuState, PciDevice
from rackserve.domain.node import system_id
from rackserve.facts.packages import dpkg_status

_DEVICE_WORDS = 6


def parse_gpu_host(lines: Iterable[str]) -> GpuState:
    """Parse lines of words between tabs, the first of which says what they are. ValueError without a kernel."""
    rows: dict[str, list[list[str]]] = {}
    for line in lines:
        key, *words = line.split("\t")
        rows.setdefault(key, []).append(words)
    if not _one(rows, "kernel"):
        msg = "the host did not tell its kernel"
        raise ValueError(msg)
    secure = _one(rows, "secure_boot")
    return GpuState(
        system=system_id(*_padded(rows.get("system", [[]])[0])),
        architecture=_one(rows, "architecture"),
        kernel=_one(rows, "kernel"),
        next_kernel=_one(rows, "next_kernel"),
        kernels=tuple(words[0] for words in rows.get("installed_kernel", [])),
        boot_id=_one(rows, "boot_id"),
        secure_boot=None if not secure else secure == "yes",
        key_enrolled="key_enrolled" in rows,
        devices=tuple(_device(words) for words in rows.get("device", []) if len(words) == _DEVICE_WORDS),
        loaded=_pairs(rows, "loaded"),
        flavour=_one(rows, "flavour") or None,
        module_versions=_pairs(rows, "module_version"),
        library_version=_one(rows, "library"),
        candidates=_pairs(rows, "candidate") if "lists" in rows else None,
        headers=tuple(dict.fromkeys(words[0] for words in rows.get("headers", []))),
        run_file="run_file" in rows,
        free_mib={mount: int(mib) for mount, mib in _pairs(rows, "free").items() if mib.isdigit()},
        cloud_init=_one(rows, "cloud_init"),
        **_packages(rows.get("package", [])),
    )


def _packages(rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Versions, holds and what was left half done, out of NAME, VERSION, ABBREVIATION."""
    versions, held, unsettled = {}, set(), []
    for name, version, abbreviation in rows:
        status = dpkg_status(abbreviation)
        if status == "unsettled":
            unsettled.append(name)
        elif status == "installed":
            versions[name] = version
        if abbreviation.startswith("h"):
            held.add(name)
    return {"packages": versions, "held": frozenset(held), "unsettled": tuple(sorted(unsettled))}


def _device(words: Sequence[str]) -> PciDevice:
    address, pci_id, device_class, window, answers, driver = words
    return PciDevice(
        address=address,
        id=pci_id,
        device_class=device_class,
        driver=driver,
        bar_mib=int(window) if window.isdigit() else 0,
        answers=answers == "yes",
    )


def _one(rows: Mapping[str, Sequence[Sequence[str]]], key: str) -> Any:
    """The last thing that was said of it, empty for nothing."""
    return rows[key][-1][0] if rows.get(key) and rows[key][-1] else ""


def _pairs(rows: Mapping[str, Sequence[Sequence[str]]], key: str) -> dict[str, str]:
    return {words[0]: words[1] if len(words) > 1 else "" for words in rows.get(key, []) if words}


def _padded(words: Sequence[str]) -> tuple[str, str, str]:
    distribution, version, codename, *_ = (*words, "", "", "")
    return distribution, version, codename


class GpuHost(FactBase[GpuState]):
    """GpuState of a host, or of the recorded one whose files lie below `root`.

    module: the driver's. ask: patterns of packages whose candidates are wanted, see gpu-host.sh.
    """

    def command(self, module: str, ask: list[str], root: str = "") -> str:
        """Shell that looks; in one round trip."""
        script = (resources.files("rackserve.facts") / "scripts" / "gpu-host.sh").read_text(encoding="utf-8")
        return " ".join(["sh -c", *map(shlex.quote, (script, "sh", root, module, *ask))])

    @staticmethod
    def default() -> GpuState:
        """Nothing is known, so no card is there and nothing may be installed."""
        return GpuState(system="", architecture="", kernel="")

    def process(self, output: list[str]) -> GpuState:
        """Parse, with pyinfra's own error so that only this host fails."""
        try:
            return parse_gpu_host(output)
        except ValueError as error:
            raise FactProcessError(str(error)) from error
