"""A CUDA toolkit among pinned packages: which release its nvcc is of, and whether it can compile at all. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from packaging.version import Version

from rackserve.catalog.requirement_files import RequirementsFile, linux_environment
from rackserve.domain.requirement import CudaWheels

# MAJOR.3.N.x.y is CCCL 3.N.x, which is in CUDA MAJOR.N.
_CCCL_PARTS = 5


def nvcc_releases(file: RequirementsFile, hosts: Iterable[tuple[str, str]], wheels: CudaWheels) -> dict[str, str]:
    """The CUDA release of nvcc by architecture; none where there is no nvcc. hosts: Python version and architecture."""
    found = {}
    for python, architecture in hosts:
        version = file.installed(linux_environment(python, architecture)).get(wheels.nvcc)
        if version is not None:
            found[architecture] = _release(version)
    return found


def skewed(file: RequirementsFile, hosts: Iterable[tuple[str, str]], wheels: CudaWheels) -> Iterator[str]:
    """A sentence for each kind of host that would get a toolkit of more than one CUDA release."""
    said = set()
    for python, architecture in hosts:
        installed = file.installed(linux_environment(python, architecture))
        told = _told(installed, wheels)
        if told and told not in said:
            said.add(told)
            yield f"{told} (Python {python} on {architecture})"


def _told(installed: dict[str, str], wheels: CudaWheels) -> str:
    """What is of another release than the runtime's headers; empty where nothing is, or nothing compiles."""
    nvcc, runtime = wheels.nvcc, wheels.runtime
    if nvcc not in installed:
        return ""
    if runtime not in installed:
        return f"{nvcc} {installed[nvcc]} is pinned without {runtime}, whose headers it needs"
    release = _release(installed[runtime])
    found = {name: _release(installed[name]) for name in (nvcc, *wheels.beside) if name in installed}
    if wheels.cccl in installed:
        found[wheels.cccl] = _cccl_release(installed[wheels.cccl])
    wrong = [f"{name} {installed[name]}" for name, its in found.items() if its != release]
    if not wrong:
        return ""
    return (
        f"{', '.join(wrong)} beside {runtime} {installed[runtime]}: nothing compiles unless all are of CUDA {release}"
    )


def _release(version: str) -> str:
    return ".".join(str(part) for part in Version(version).release[:2])


def _cccl_release(version: str) -> str:
    parts = Version(version).release
    return f"{parts[0]}.{parts[2]}" if len(parts) == _CCCL_PARTS else _release(version)
