"""launch, run as a program that becomes another one."""

from __future__ import annotations

import json
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.examples import examples
from tests.libexec.helper_host import HELPERS, KEY, HelperHost, assert_refused

TELL = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
TELLING = (sys.executable, "-c", TELL)
ONE, TWO, THREE = ("0000:01:00.0", "GPU-a"), ("0000:02:00.0", "GPU-b"), ("0000:03:00.0", "GPU-c")


def launch(host: HelperHost, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return host.run("launch", "--root", str(host.root), *words, **environment)


def told(host: HelperHost, *words: str, **environment: str) -> tuple[list[str], dict[str, str]]:
    done = launch(host, *words, "--", *TELLING, **environment)
    assert done.returncode == 0, done.stderr
    arguments, variables = json.loads(done.stdout)
    return arguments, variables


def test_nvidias_cards_are_named_by_uuid_in_the_order_asked_for(host):
    host.gpus(ONE, TWO, THREE)
    _, variables = told(host, "--gpus", "2,0", LANG="C.UTF-8")
    assert variables["CUDA_VISIBLE_DEVICES"] == "GPU-c,GPU-a"
    assert variables["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"
    assert variables["LANG"] == "C.UTF-8"
    assert "ROCR_VISIBLE_DEVICES" not in variables


def test_a_server_that_reads_numbers_only_is_given_numbers(host):
    host.gpus(ONE, TWO, THREE)
    _, variables = told(host, "--gpus", "2,0", "--by-number")
    assert variables["CUDA_VISIBLE_DEVICES"] == "2,0"
    assert variables["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_amds_cards_are_named_by_uuid_if_all_have_one(host):
    host.gpus(ONE, TWO, ("0000:03:00.0", ""), vendor="amd")
    _, variables = told(host, "--gpus", "1")
    assert variables["ROCR_VISIBLE_DEVICES"] == "GPU-b"
    _, variables = told(host, "--gpus", "1,2")
    assert not [name for name in variables if name.endswith("VISIBLE_DEVICES")]


def test_intels_cards_are_left_to_the_units_device_rules(host):
    host.gpus(("0000:01:00.0", ""), vendor="intel")
    _, variables = told(host, "--gpus", "0")
    assert not [name for name in variables if "VISIBLE" in name or "AFFINITY" in name]


def test_nothing_is_set_that_was_not_asked_for(host):
    _, variables = told(host)
    assert not [name for name in variables if "VISIBLE" in name]


@pytest.mark.parametrize("gpus", ["3", "0,9"])
def test_a_gpu_that_is_not_there_is_no_reason_to_try_again(host, gpus):
    host.gpus(ONE, TWO, THREE)
    assert_refused(launch(host, "--gpus", gpus, "--", *TELLING), "there is no GPU", 78)


def test_without_gpu_ready_there_are_no_gpus(host):
    assert_refused(launch(host, "--gpus", "0", "--", *TELLING), "see `systemctl status gpu-ready`", 78)


def credentials(tmp_path: Path, text: str) -> str:
    folder = tmp_path / "credentials"
    folder.mkdir(exist_ok=True)
    (folder / "api-key").write_text(text)
    return str(folder)


def test_the_key_is_handed_over_under_the_name_that_the_server_knows(host, tmp_path):
    folder = credentials(tmp_path, f"{KEY}\n")
    _, variables = told(host, "--key", "VLLM_API_KEY", CREDENTIALS_DIRECTORY=folder)
    assert variables["VLLM_API_KEY"] == KEY


@pytest.mark.parametrize("text", ["", "\n", "  \nx"])
def test_an_empty_key_is_none(host, tmp_path, text):
    done = launch(host, "--key", "K", "--", *TELLING, CREDENTIALS_DIRECTORY=credentials(tmp_path, text))
    assert_refused(done, "there is no key for K", 66)


def test_a_missing_key_is_told(host, tmp_path):
    assert_refused(launch(host, "--key", "K", "--", *TELLING), "there is no key for K", 66)
    done = launch(host, "--key", "K", "--", *TELLING, CREDENTIALS_DIRECTORY=str(tmp_path / "nowhere"))
    assert_refused(done, "the key for K cannot be read", 66)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--"],
        ["--", ""],
        ["--", "python3"],
        ["--", "./program"],
        ["--gpus", "", "--", "/bin/true"],
        ["--gpus", "0,", "--", "/bin/true"],
        ["--gpus", "-1", "--", "/bin/true"],
        ["--gpus", "٣", "--", "/bin/true"],
        ["--gpus", "all", "--", "/bin/true"],
        ["--gpus"],
        ["--key", "lower", "--", "/bin/true"],
        ["--key", "A=B", "--", "/bin/true"],
        ["--key", "1A", "--", "/bin/true"],
        ["--key", "", "--", "/bin/true"],
        ["--key", "A\n", "--", "/bin/true"],
        ["--shell", "--", "/bin/true"],
        ["--gpu", "0", "--", "/bin/true"],
        ["/bin/true"],
    ],
)
def test_bad_arguments_start_nothing(host, words):
    host.gpus(ONE)
    usage = "usage: launch [--gpus N,N [--by-number]] [--key VARIABLE] -- PROGRAM ARG..."
    assert_refused(launch(host, *words), usage, 64)


def test_a_program_that_is_not_there_is_told(host):
    assert_refused(launch(host, "--", "/nowhere/server"), "/nowhere/server cannot be started", 78)


def release(host: HelperHost, name: str) -> Path:
    """A release with a Python of its own, and that one current."""
    folder = host.root / "opt/rackserve/releases" / name
    venv.create(folder, symlinks=True)
    link = host.root / "opt/rackserve/current/engine"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
    return folder


def test_what_is_loaded_after_another_release_became_current_is_of_the_one_that_was_started(host):
    old = release(host, "engine-1")
    python = host.root / "opt/rackserve/current/engine/bin/python"
    later = (
        "import subprocess, sys; print('up', flush=True); input(); subprocess.run([sys.executable, '-c', sys.argv[1]])"
    )
    command = [host.libexec / "launch", "--root", host.root, "--", python, "-c", later, "import sys; print(sys.prefix)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout
        assert started.stdout.readline() == "up\n"
        release(host, "engine-2")
        assert started.communicate("go\n", timeout=60)[0] == f"{old}\n"


SEARCHED = "/usr/local/bin:/usr/bin"


def tools(host: HelperHost, program: Path) -> tuple[str | None, str]:
    """CUDA_HOME and PATH of a program."""
    done = launch(host, "--", str(program), "-c", TELL, PATH=SEARCHED)
    assert done.returncode == 0, done.stderr
    variables = json.loads(done.stdout)[1]
    return variables.get("CUDA_HOME"), variables["PATH"]


def test_a_program_finds_the_compilers_of_the_release_that_it_is_of(host):
    folder = release(host, "engine-1")
    (folder / "cuda").mkdir()
    program = host.root / "opt/rackserve/current/engine/bin/python"
    expected = (f"{folder}/cuda", f"{folder}/bin:{folder}/cuda/bin:{SEARCHED}")
    assert tools(host, program) == expected
    assert tools(host, folder / "bin/python") == expected


def test_a_python_release_without_nvcc_finds_its_own_programs(host):
    # ninja is a package of it, whatever it compiles with.
    folder = release(host, "engine-1")
    assert tools(host, host.root / "opt/rackserve/current/engine/bin/python") == (None, f"{folder}/bin:{SEARCHED}")


def test_a_release_that_is_no_python_environment_changes_nothing(host):
    folder = host.root / "opt/rackserve/releases/engine-1"
    (folder / "bin").mkdir(parents=True)
    (folder / "bin/server").symlink_to(sys.executable)
    assert tools(host, folder / "bin/server") == (None, SEARCHED)


def test_a_toolkit_beside_a_program_that_is_of_no_release_is_not_its_own(host):
    folder = host.root / "usr/local"
    venv.create(folder, symlinks=True)
    (folder / "cuda").mkdir()
    assert tools(host, folder / "bin/python") == (None, SEARCHED)


def test_a_program_elsewhere_is_started_by_the_path_that_it_was_named_by(host, tmp_path):
    link = tmp_path / "elsewhere"
    link.symlink_to("/bin")
    assert launch(host, "--", f"{link}/sh", "-c", "echo $0").stdout == f"{link}/sh\n"


def test_the_programs_own_end_is_its_end(host):
    assert launch(host, "--", "/bin/sh", "-c", "exit 3").returncode == 3


@examples(10)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])), max_size=4))
def test_every_word_arrives_as_it_is(words: list[str]) -> None:
    command = [str(HELPERS / "launch"), "--", *TELLING, *words]
    done: Any = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)[0] == words


def kept(host: HelperHost, program: str, **environment: str) -> dict[str, str]:
    """What a program of this path is told of caches."""
    cache = host.root / "var/cache/rackserve/chat"
    named = {
        "CACHE_DIRECTORY": str(cache),
        "HOME": str(cache),
        "TRITON_CACHE_DIR": f"{cache}/triton",
        "ELSEWHERE": f"{cache}-not",
    }
    done = launch(host, "--", program, "-c", TELL, **(named | environment))
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)[1])


@pytest.mark.parametrize("link", ["current", "planned"])
def test_what_a_release_compiles_is_kept_in_a_folder_of_its_own(host, link):
    release(host, "engine-1")
    place = host.root / "opt/rackserve" / link / "engine"
    place.parent.mkdir(exist_ok=True)
    place.unlink(missing_ok=True)
    place.symlink_to(host.root / "opt/rackserve/releases/engine-1")
    cache = host.root / "var/cache/rackserve/chat"
    told_of = kept(host, f"{place}/bin/python")
    assert told_of["HOME"] == f"{cache}/releases/engine-1"
    assert told_of["TRITON_CACHE_DIR"] == f"{cache}/releases/engine-1/triton"
    assert (told_of["CACHE_DIRECTORY"], told_of["ELSEWHERE"]) == (str(cache), f"{cache}-not")
    assert (cache / "releases/engine-1").is_dir()


@pytest.mark.parametrize("other", ["rackserve-more", "a-first-one"])
def test_of_several_folders_for_caches_it_is_the_one_that_the_base_unit_names(host, other):
    """As after `systemctl edit` with another CacheDirectory=; systemd tells them sorted."""
    python = release(host, "engine-1") / "bin/python"
    cache = host.root / "var/cache/rackserve/chat"
    folders = ":".join(sorted([str(cache), str(host.root / "var/cache" / other)]))
    told_of = kept(host, str(python), CACHE_DIRECTORY=folders, XDG_CACHE_HOME=str(cache))
    assert told_of["HOME"] == f"{cache}/releases/engine-1"
    assert (told_of["XDG_CACHE_HOME"], told_of["CACHE_DIRECTORY"]) == (f"{cache}/releases/engine-1", folders)
    assert not (host.root / "var/cache" / other).exists()


def test_where_no_variable_names_one_of_several_it_is_the_first(host):
    python = release(host, "engine-1") / "bin/python"
    cache = host.root / "var/cache/rackserve/chat"
    told_of = kept(host, str(python), CACHE_DIRECTORY=f"{cache}:{host.root}/var/cache/z", XDG_CACHE_HOME="/elsewhere")
    assert told_of["HOME"] == f"{cache}/releases/engine-1"


def test_a_program_of_no_release_keeps_its_caches_where_the_unit_says(host):
    assert kept(host, sys.executable)["HOME"] == f"{host.root}/var/cache/rackserve/chat"


def test_a_folder_for_caches_that_cannot_be_made_is_no_reason_to_try_again(host, tmp_path):
    python = release(host, "engine-1") / "bin/python"
    (tmp_path / "file").write_text("")
    done = launch(host, "--", str(python), "-c", TELL, CACHE_DIRECTORY=f"{tmp_path}/file")
    assert_refused(done, f"{tmp_path}/file/releases/engine-1 cannot be made: ", 78)
