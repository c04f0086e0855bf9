"""What a release compiles at its start, really compiled and linked by its own tools, in the unit's sandbox.

There is no GPU, and nothing runs on one: the pinned nvcc, headers, FlashInfer and ninja make a library for Hopper.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rackserve.catalog.loader import load_catalog
from tests.lab.checkpoints import MODEL, offer_checkpoint, requirements_entry
from tests.lab.compiling import VERSION, WITHOUT, requirements, wheels
from tests.lab.conftest import LabFactory
from tests.lab.deploying import Site, main_pid

pytestmark = [pytest.mark.lab, pytest.mark.full]

PACKAGES = 'packages = { deb = ["gcc", "g++", "libc6-dev"], rpm = ["gcc", "gcc-c++", "glibc-devel"] }\n'
COMPILING = [entry.id for entry in load_catalog().requirements.values() if entry.nvcc]


def site(lab_factory: LabFactory, folder: Path, suite: str, entry: str, *, flashinfer: bool) -> Site:
    """A bare host, and a runtime that compiles with what this entry of the catalogue pins."""
    lab = lab_factory(f"{suite}-{entry.partition('-')[0]}")
    lab.up(1, suite)
    model = offer_checkpoint(lab, folder)
    files = wheels(lab.depot_dir / "wheels", flashinfer=flashinfer)
    pinned = folder / "pinned.txt"
    pinned.write_text(requirements(entry, f"{lab.depot_url}/wheels", files, flashinfer=flashinfer))
    more = PACKAGES + (f"without = {WITHOUT}\n" if flashinfer else "")
    catalogue = requirements_entry("vllm", VERSION, "cpu", pinned, gib=2, more=more)
    # FlashInfer's PyTorch is for this machine's Python, which Debian 12 has too.
    catalogue = catalogue if flashinfer else catalogue.replace('python_before = "3.12"', 'python_before = "3.99"')
    (folder / "own.toml").write_text(f"{model}\n{catalogue}")
    made = Site(lab, folder)
    made.hosts["h1"] |= {
        "catalog": [str(folder / "own.toml")],
        "model_hub": lab.depot_url,
        "memory_mib": 8192,
        # Two minutes of two cores that nobody else wants.
        "start_timeout": 1100,
        "services": [
            {
                **made.hosts["h1"]["services"][0],
                "model": MODEL,
                "runtime": "vllm",
                "runtime_version": VERSION,
                "max_model_len": 1024,
            }
        ],
    }
    return made


def compiled(made: Site, needed: set[str]) -> None:
    """The service compiles as it starts, with its own release's tools, and answers."""
    run = made.deploy()
    journal = made.lab.ssh("h1", "journalctl -u rackserve@chat --output cat --no-pager -n 80").stdout
    assert run.code == 0, f"{run.text}\n{journal}"
    pid, _ = main_pid(made.lab, "h1")
    variables = made.lab.ssh("h1", f"tr '\\0' '\\n' </proc/{pid}/environ").stdout.splitlines()
    release = made.lab.ssh("h1", "readlink -f /opt/rackserve/current/vllm").stdout.strip()
    assert f"CUDA_HOME={release}/cuda" in variables
    assert [line for line in variables if line.startswith(f"PATH={release}/bin:{release}/cuda/bin:")]
    (library,) = [line.removeprefix("compiled ") for line in journal.splitlines() if line.startswith("compiled ")]
    assert library.startswith("/var/cache/rackserve/chat/")
    shown = made.lab.ssh("h1", f"readelf -d {library}").stdout
    assert {name for name in needed if f"[{name}]" in shown} == needed
    assert compilers(made) == "cuda/bin/nvcc"
    made.lab.ssh("h1", f"mv {release}/cuda {release}/away")
    assert compilers(made) == "missing"
    again = made.deploy()
    assert again.changed("h1") == ["vLLM | Release of vLLM in place"]
    assert compilers(made) == "cuda/bin/nvcc"


def compilers(made: Site) -> str:
    """What verify finds of the release's compilers."""
    said = json.loads(made.rackserve("verify", "--json", str(made.write())).stdout)
    (found,) = [entry for entry in said["hosts"][0]["findings"] if entry["check"] == "release has its compilers"]
    return str(found["found"])


@pytest.mark.parametrize("entry", COMPILING)
def test_flashinfers_sampler_is_compiled_by_the_release_in_the_units_sandbox(lab_factory, tmp_path, entry):
    made = site(lab_factory, tmp_path, "bookworm", entry, flashinfer=True)
    # It uses nothing of the driver's library itself: whether that is noted is the linker's choice.
    compiled(made, {"libcudart.so.13"})


@pytest.mark.parametrize("entry", COMPILING)
def test_a_system_whose_gcc_is_newer_than_nvcc_knows_compiles_with_an_older_one(lab_factory, tmp_path, entry):
    made = site(lab_factory, tmp_path, "forky", entry, flashinfer=False)
    compiled(made, {"libcudart.so.13", "libcuda.so.1"})
    assert made.lab.ssh("h1", "gcc -dumpversion; readlink /opt/rackserve/current/vllm/cuda/bin/gcc").stdout.split() == [
        str(load_catalog().gccs["debian-forky"].own),
        "/usr/bin/gcc-15",
    ]
