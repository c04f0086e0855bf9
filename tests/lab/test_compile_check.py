"""A release that cannot compile what its server will have to is refused, and what serves goes on as before.

SGLang is a stand-in, and so is its nvcc, which is the host's g++: what it compiles is really compiled and linked, in
the service's own sandbox (tests/lab/sglang_wheel.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lab.archive_sites import HOST, WAY, ArchiveSite, driven
from tests.lab.checkpoints import MODEL, offer_checkpoint, pinned_at, requirements_entry
from tests.lab.conftest import LabFactory
from tests.lab.deploying import main_pid, serves
from tests.lab.sglang_wheel import CUDA, TOOLS, VERSION, wheels
from tests.lab.talking import wait_for
from tests.libexec.toolchain import INCOMPATIBLE

pytestmark = pytest.mark.lab
CHECK = "Services | Planned release compiles"
CURRENT = "readlink -f /opt/rackserve/current/sglang"
# What the old service would be started with, whoever does it.
UNIT = "sha256sum /etc/systemd/system/rackserve@chat.service.d/* /etc/systemd/system/rackserve@.service"
CACHES = "/var/cache/rackserve/chat/releases"
# By what is wrong with a toolkit: its files that are others, and what is said of it.
TOOLKITS: dict[str, tuple[dict[str, str | None], str]] = {
    "good": ({}, ""),
    "better": ({"include/better.h": ""}, ""),
    "failing": (
        {"bin/nvcc": "#!/bin/sh\necho 'nvcc fatal   : Unsupported gpu architecture' >&2\nexit 1\n"},
        "nvcc says: nvcc fatal   : Unsupported gpu architecture",
    ),
    "unlinkable": (
        {"lib/libcudart.so.13": None, "lib/libnvvm.so.4": ""},
        "c++ says: /usr/bin/ld: cannot find -lcudart",
    ),
    "mixed": ({"include/cuda_runtime_api.h": "#define CUDART_MINOR 5\n"}, f'nvcc says: {{}}#error "{INCOMPATIBLE}"'),
}


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> ArchiveSite:
    """A host with its driver that serves with a release that compiles; the others are in the depot."""
    folder = tmp_path_factory.mktemp("compile")
    made = driven(lab_factory("compile"), folder, "sglang")
    model = offer_checkpoint(made.lab, folder)
    for name, (changed, _) in TOOLKITS.items():
        files = wheels(made.lab.depot_dir / WAY / name, CUDA, changed)
        pinned = folder / f"{name}.txt"
        pinned.write_text(pinned_at(f"{made.lab.depot_url}/{WAY}/{name}", *files))
        entry = requirements_entry("sglang", VERSION, "cuda", pinned, gib=1, more=f'family = "{CUDA}"\n{TOOLS}')
        (folder / f"{name}.toml").write_text(f"{model}\n{entry}")
    made.service |= {"model": MODEL, "runtime_version": VERSION, "gpus": [0]}
    made.data["catalog"].append(str(folder / "good.toml"))
    made.served()
    return made


def offer(site: ArchiveSite, name: str) -> None:
    """Plan the release with this toolkit."""
    *others, own = site.data["catalog"]
    site.data["catalog"] = [*others, str(Path(own).with_name(f"{name}.toml"))]


def in_use(site: ArchiveSite) -> tuple[object, ...]:
    return site.on(CURRENT), site.on(UNIT), main_pid(site.lab, HOST)


def test_what_was_asked_is_told_and_asked_no_more(site: ArchiveSite) -> None:
    said = site.on("journalctl -u rackserve-check@chat --output cat --no-pager")
    assert "compile-check: compiled and linked in " in said
    assert site.predicted(HOST) == []
    assert site.served().changed(HOST) == []
    verified = site.rackserve("verify", str(site.write()))
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.parametrize("name", ["failing", "unlinkable", "mixed"])
def test_a_release_that_does_not_compile_is_refused_with_the_tools_words(site: ArchiveSite, name: str) -> None:
    before = in_use(site)
    offer(site, name)
    predicted = site.predicted(HOST)
    assert CHECK in predicted
    run = site.deploy()
    assert (run.code, run.failed(HOST)) == (1, [CHECK]), run.text
    refusal = "rackserve@chat.service is left as it is, its planned release does not compile: compile-check: "
    (line,) = (line for line in run.said_of(HOST).splitlines() if refusal in line)
    for words in TOOLKITS[name][1].split("{}"):
        assert words in line
    assert "Traceback" not in run.text
    assert site.on("systemctl list-units --failed --plain --no-legend 'rackserve*'") == ""
    assert in_use(site) == before
    assert serves(site.lab, HOST)


def test_a_server_that_dies_after_a_refusal_comes_back_with_the_release_that_it_had(site: ArchiveSite) -> None:
    offer(site, "failing")
    assert site.deploy().failed(HOST) == [CHECK]
    release, unit, (pid, *_) = in_use(site)
    site.on("systemctl kill -s KILL rackserve@chat; systemctl restart rackserve@chat")
    wait_for(site.lab, HOST, 60, ActiveState="active", SubState="running")
    assert serves(site.lab, HOST)
    assert in_use(site)[:2] == (release, unit)
    assert main_pid(site.lab, HOST)[0] != pid
    offer(site, "good")
    # The link to the planned release alone led elsewhere.
    assert site.served().changed(HOST) == ["SGLang | Release of SGLang in place"]


def test_a_folder_that_is_not_the_services_is_named(site: ArchiveSite) -> None:
    before = in_use(site)
    offer(site, "better")
    site.on(f"chown root:root {CACHES} && chmod 755 {CACHES}")
    run = site.deploy()
    assert run.failed(HOST) == [CHECK]
    assert f"launch: {CACHES}/sglang-{VERSION}-cuda-" in run.said_of(HOST)
    assert " cannot be made: Permission denied" in run.said_of(HOST)
    assert in_use(site) == before
    site.on(f"chown rackserve-chat:rackserve-chat {CACHES}")


def test_another_release_has_folders_of_its_own_and_those_of_the_old_one_stay_for_the_way_back(
    site: ArchiveSite,
) -> None:
    site.on(f"touch {CACHES}/$(basename $({CURRENT}))/compiled-by-the-first")
    old = site.on(CURRENT).split("/")[-1].strip()
    # As a rackserve left it that kept them by service alone.
    site.on("mkdir /var/cache/rackserve/chat/triton")
    offer(site, "better")
    assert site.served().changed(HOST) == [
        CHECK,
        "Services | Planned release current",
        "Services | Service serving its plan",
    ]
    new = site.on(CURRENT).split("/")[-1].strip()
    found = site.on(f"ls {CACHES}").split()
    assert {old, new} <= set(found)
    pid, _ = main_pid(site.lab, HOST)
    environment = site.on(f"tr '\\0' '\\n' </proc/{pid}/environ").splitlines()
    assert f"HOME={CACHES}/{new}" in environment
    assert f"TRITON_CACHE_DIR={CACHES}/{new}/triton" in environment
    assert f"CUDA_HOME=/opt/rackserve/releases/{new}/cuda" in environment
    assert site.on(f"ls {CACHES}/{old}/compiled-by-the-first")
    assert site.on("ls -A /var/cache/rackserve/chat").split() == ["releases"]


def test_it_leaves_nothing(site: ArchiveSite) -> None:
    site.leaves_nothing()
    assert site.on("ls /etc/systemd/system | grep rackserve; true") == ""
