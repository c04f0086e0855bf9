"""The operations python_release and python_current: nothing where all is as planned, and else each step in order."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from rackserve.catalog.loader import load_catalog
from rackserve.facts.releases import Releases, ReleaseState
from rackserve.operations.environment import python_current, python_release
from rackserve.runtimes.environments import FromRequirements
from tests.operations.sending import commands, script_of

TEXT = "vllm==0.33.0 --hash=sha256:" + "1" * 64 + "\n"
UV = load_catalog().uv
ORIGIN = FromRequirements(
    runtime="vllm",
    version="0.33.0",
    backend="cuda",
    family="13.0",
    text=TEXT,
    python="3.12",
    program="/usr/bin/python3.12",
    packages=("gcc",),
    installed_gib=10,
    uv=UV,
    nvcc="13.0",
    gcc="15",
)
PLAIN = replace(ORIGIN, gcc="")
FOLDER = "/opt/rackserve/releases"
WORK = "/var/cache/rackserve"
UV_FOLDER = f"{FOLDER}/uv-{UV.version}"
ACTIVATE = ("activate.sh", f"{FOLDER}/{ORIGIN.release}", "/opt/rackserve/current/vllm", "3", WORK)


def sent(state: ReleaseState, origin: FromRequirements = ORIGIN, **arguments: Any) -> list[Any]:
    return commands(python_release, {Releases: state}, origin=origin, **arguments)


def assert_named(command: Any) -> None:
    """The planned release is the one that this link leads to; the one in use is left as it is."""
    assert command.get_raw_value().endswith(f"sh /opt/rackserve/planned/vllm {FOLDER}/{ORIGIN.release}")


def test_an_environment_that_is_planned_already_is_left_alone():
    assert sent(ReleaseState(frozenset({ORIGIN.release}), ORIGIN.release)) == []


def test_an_environment_that_is_complete_is_only_named():
    (command,) = sent(ReleaseState(frozenset({ORIGIN.release, "vllm-x"}), "vllm-x"))
    assert_named(command)


def test_an_environment_becomes_current_and_what_nobody_names_any_more_goes():
    states = {Releases: ReleaseState(frozenset({ORIGIN.release, "vllm-x"}), "vllm-x")}
    activate, cache = commands(python_current, states, origin=ORIGIN)
    assert script_of(activate) == ACTIVATE
    assert script_of(cache) == ("uv-cache.sh", UV_FOLDER, WORK)
    states = {Releases: ReleaseState(frozenset({ORIGIN.release}), ORIGIN.release)}
    assert commands(python_current, states, origin=ORIGIN) == []


def test_an_environment_is_made_by_the_pinned_uv_and_then_named():
    pin, uv, requirements, environment, link = sent(ReleaseState(frozenset(), ""))
    assert pin.connector_arguments["_stdin"] == [UV.requirement]
    assert f"{WORK}/environments/uv-{UV.version}.txt" in pin.get_raw_value()
    assert script_of(uv) == ("uv.sh", UV_FOLDER, WORK)
    assert requirements.connector_arguments["_stdin"] == [TEXT]
    assert f"{WORK}/environments/{ORIGIN.release}.txt" in requirements.get_raw_value()
    place = (f"{FOLDER}/{ORIGIN.release}", WORK, UV_FOLDER)
    planned = ("/usr/bin/python3.12", "3.12", "vllm", "0.33.0", "cuda", "13.0", "10", "", "15", "", "3")
    assert script_of(environment) == ("environment.sh", *place, *planned)
    assert_named(link)


def test_a_link_to_an_incomplete_environment_is_not_trusted():
    assert len(sent(ReleaseState(frozenset(), ORIGIN.release))) == 5


def test_an_environment_that_compiles_is_complete_with_its_toolkit_and_any_other_with_its_python():
    assert ORIGIN.last == "cuda/bin/nvcc"
    assert replace(ORIGIN, nvcc="", gcc="").last == "bin/python"


def test_a_python_of_uvs_own_comes_from_the_mirror():
    origin = replace(ORIGIN, program=None)
    environment = sent(ReleaseState(frozenset(), ""), origin, python_mirror="https://mirror.example/python")[3]
    assert script_of(environment)[4:6] == ("", "3.12")
    assert script_of(environment)[-4:] == ("https://mirror.example/python", "15", "", "3")


def test_a_release_is_named_by_its_packages_and_its_python():
    digest = hashlib.sha256(TEXT.encode()).hexdigest()[:12]
    # Hosts where nothing is left out and nvcc takes their own gcc keep the releases that they have.
    assert PLAIN.release == f"vllm-0.33.0-cuda-{digest}-py3.12"
    assert replace(ORIGIN, text=TEXT + "# \n").release != ORIGIN.release
    assert replace(ORIGIN, python="3.13").release != ORIGIN.release


def test_another_gcc_or_something_left_out_is_another_release():
    changed = [PLAIN, ORIGIN, replace(PLAIN, gcc="14")]
    changed += [replace(PLAIN, without=names) for names in (("a",), ("b",), ("a", "b"), ("15",))]
    assert len({origin.release for origin in changed}) == len(changed)
    assert replace(PLAIN, without=("a", "b")).release == replace(PLAIN, without=("b", "a")).release


def test_no_runtimes_releases_are_taken_for_anothers_when_old_ones_go():
    # activate.sh drops the oldest of all that begin with the runtime's name and a hyphen.
    runtimes = {entry.runtime for entry in load_catalog().stacks.runtimes.values()} | {"uv", "llama.cpp"}
    taken = {(one, other) for one in runtimes for other in runtimes if other.startswith(f"{one}-")}
    assert taken == set()
