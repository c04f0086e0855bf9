"""The CUDA toolkit among pinned packages: of one release for every host that a file is for, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rackserve.catalog import loader
from rackserve.catalog.cuda_wheels import nvcc_releases, skewed
from rackserve.catalog.loader import load_catalog
from rackserve.catalog.requirement_files import read_requirements
from rackserve.domain.errors import InputError

CATALOG = load_catalog()
HASH = f"--hash=sha256:{'a' * 64}"
HOSTS = [("3.11", "x86_64"), ("3.12", "x86_64"), ("3.11", "aarch64"), ("3.12", "aarch64")]
GOOD = {"nvcc": "13.0.88", "crt": "13.0.88", "cccl": "13.0.85", "runtime": "13.0.96"}


def text(nvvm: str = "13.0.88", marker: str = "", **changed: str) -> str:
    versions = {f"nvidia-cuda-{name}": version for name, version in (GOOD | changed).items()}
    pins = versions | {"nvidia-nvvm": nvvm}
    return "".join(f"{name}=={version}{marker} {HASH}\n" for name, version in pins.items())


def told(tmp_path: Path, content: str, *without: str) -> list[str]:
    (tmp_path / "r.txt").write_text(content)
    return list(skewed(read_requirements(tmp_path / "r.txt", without), HOSTS, CATALOG.cuda_wheels))


@pytest.mark.parametrize("entry", CATALOG.requirements.values(), ids=CATALOG.requirements)
def test_ours_compile_with_one_release_of_cuda_on_every_host_and_say_which(entry):
    file = read_requirements(Path(loader.__file__).parent / entry.file)
    assert list(skewed(file, entry.hosts(), CATALOG.cuda_wheels)) == []
    assert entry.nvcc == nvcc_releases(file, entry.hosts(), CATALOG.cuda_wheels)
    assert set(entry.nvcc.values()) <= {entry.family}


def test_a_toolkit_of_one_release_is_taken(tmp_path):
    assert told(tmp_path, text()) == []
    assert told(tmp_path, f"torch==2.14.0 {HASH}\n") == []


@pytest.mark.parametrize(
    ("name", "version"), [("nvcc", "13.5.37"), ("crt", "13.1.115"), ("nvvm", "12.0.88"), ("cccl", "13.3.5.0.6")]
)
def test_a_part_of_another_release_is_named_with_the_runtimes(tmp_path, name, version):
    said = told(tmp_path, text(**{name: version}))
    whole = "nvidia-nvvm" if name == "nvvm" else f"nvidia-cuda-{name}"
    expected = f"{whole} {version} beside nvidia-cuda-runtime 13.0.96: nothing compiles unless all are of CUDA 13.0"
    assert said == [f"{expected} (Python 3.11 on x86_64)"]


def test_wheels_of_cuda_12_have_no_nvcc_and_may_differ(tmp_path):
    pins = {"nvidia-cuda-nvcc-cu12": "12.9.86", "nvidia-cuda-runtime-cu12": "12.8.90"}
    assert told(tmp_path, "".join(f"{name}=={version} {HASH}\n" for name, version in pins.items())) == []


def test_what_is_left_out_is_of_no_release_and_no_nvcc(tmp_path):
    content = text(nvcc="13.5.37")
    assert told(tmp_path, content, "nvidia-cuda-nvcc") == []
    assert told(tmp_path, content, "nvidia-cuda-crt") != []
    file = read_requirements(tmp_path / "r.txt", ("nvidia-cuda-nvcc",))
    assert nvcc_releases(file, HOSTS, CATALOG.cuda_wheels) == {}


def test_a_runtime_of_another_release_is_told_of_all_the_others(tmp_path):
    (said,) = told(tmp_path, text(runtime="13.1.80"))
    assert said.startswith(
        "nvidia-cuda-nvcc 13.0.88, nvidia-cuda-crt 13.0.88, nvidia-nvvm 13.0.88, nvidia-cuda-cccl 13.0.85"
    )


@pytest.mark.parametrize(
    ("cuda", "cccl"), [("13.3.33", "13.3.3.3.1"), ("13.4.92", "13.3.4.3.1"), ("13.5.37", "13.3.5.0.6")]
)
def test_cccl_is_numbered_after_itself_since_13_3(tmp_path, cuda, cccl):
    assert told(tmp_path, text(cuda, nvcc=cuda, crt=cuda, runtime=cuda, cccl=cccl)) == []


def test_only_hosts_that_get_it_count_and_each_of_them(tmp_path):
    here, newer = " ; platform_machine == 'aarch64'", {"nvcc": "13.4.92"}
    elsewhere = text(marker=" ; sys_platform == 'darwin'", **newer)
    assert told(tmp_path, text(marker=" ; sys_platform == 'linux'") + elsewhere) == []
    (said,) = told(tmp_path, text(marker=" ; platform_machine == 'x86_64'") + text(marker=here, **newer))
    assert said.endswith("(Python 3.11 on aarch64)")
    old, new = " ; python_version < '3.12'", " ; python_full_version >= '3.12'"
    (said,) = told(tmp_path, text(marker=old) + text(marker=new, **newer))
    assert said.endswith("(Python 3.12 on x86_64)")


def test_nvcc_without_the_runtimes_headers_is_refused(tmp_path):
    (said,) = told(tmp_path, f"nvidia-cuda-nvcc==13.0.88 {HASH}\n")
    assert "nvidia-cuda-nvcc 13.0.88 is pinned without nvidia-cuda-runtime, whose headers it needs" in said


ENTRY = """
[requirements."vllm-0.33.1-cuda"]
runtime = "vllm"
version = "0.33.1"
backend = "cuda"
family = "13.0"
file = "pins.txt"
architectures = ["x86_64"]
glibc = "2.34"
python_min = "3.11"
python_before = "3.13"
installed_gib = 10
source = "test"
date = "2026-11-30"
"""


def test_an_operators_own_file_is_refused_by_name_before_any_host_is_asked(tmp_path):
    (tmp_path / "own.toml").write_text(ENTRY)
    (tmp_path / "pins.txt").write_text(f"vllm==0.33.1 {HASH}\n{text(nvcc='13.5.37')}")
    with pytest.raises(InputError) as caught:
        load_catalog((str(tmp_path / "own.toml"),))
    said = str(caught.value)
    assert (
        f"own.toml: requirements.vllm-0.33.1-cuda.file: {tmp_path}/pins.txt has nvidia-cuda-nvcc 13.5.37 beside" in said
    )
    assert "constraints" in said


def test_an_operators_own_file_may_leave_nvcc_out(tmp_path):
    left_out = ENTRY.replace("installed_gib", 'without = ["nvidia-cuda-nvcc"]\ninstalled_gib')
    (tmp_path / "own.toml").write_text(left_out)
    (tmp_path / "pins.txt").write_text(f"vllm==0.33.1 {HASH}\n{text(nvcc='13.5.37')}")
    assert load_catalog((str(tmp_path / "own.toml"),)).requirements["vllm-0.33.1-cuda"].nvcc == {}


def test_an_operators_own_file_tells_its_nvcc(tmp_path):
    (tmp_path / "own.toml").write_text(ENTRY)
    (tmp_path / "pins.txt").write_text(f"vllm==0.33.1 {HASH}\n{text()}")
    assert load_catalog((str(tmp_path / "own.toml"),)).requirements["vllm-0.33.1-cuda"].nvcc == {"x86_64": "13.0"}
