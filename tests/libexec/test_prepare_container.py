"""prepare-container, run as a program on a host's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.libexec.helper_host import KEY, HelperHost, assert_refused

NOT_READY, NO_INPUT = 78, 66
ONE, TWO = ("0000:01:00.0", "GPU-a"), ("0000:02:00.0", "GPU-b")
CACHE = "var/cache/rackserve/chat/images/0123456789ab"
# Keeps what it was told by command line and what by standard input apart.
PODMAN = """#!/bin/sh
echo "$*" >>"{folder}/podman.log"
case "$1 $2" in
  "secret create") cat >"{folder}/secret" ;;
  "secret rm") echo "Error: no secret with name or id" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def contained(host: HelperHost) -> HelperHost:
    """A host with the service's user and a podman."""
    user = f"rackserve-chat:x:{os.getuid() or 990}:{os.getgid() or 991}::/var/lib/rackserve/chat:/usr/sbin/nologin\n"
    host.write("etc/passwd", f"root:x:0:0:root:/root:/bin/bash\nrackserve-chat-2:x:5:5::/:/bin/sh\n{user}")
    host.standin("podman", PODMAN.format(folder=host.root))
    host.service(cache=f"/{CACHE}")
    return host


def prepared(host: HelperHost) -> dict[str, str]:
    done = host.run("prepare-container")
    assert (done.returncode, done.stderr) == (0, "")
    lines = (host.root / "run/rackserve/chat.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


def test_it_runs_as_its_own_user_by_number(contained):
    uid, gid = os.getuid() or 990, os.getgid() or 991
    assert prepared(contained) == {"RACKSERVE_USER": f"{uid}:{gid}"}
    cache = (contained.root / CACHE).stat()
    assert (cache.st_uid, cache.st_gid, oct(cache.st_mode & 0o777)) == (uid, gid, "0o700")


@pytest.mark.parametrize("left", [None, 0o700], ids=["bare host", "left by a container before"])
def test_services_beside_it_get_past_its_folders_whatever_its_units_umask_is(contained, left):
    shared = [contained.root / path for path in ("var/cache/rackserve", "run/rackserve", CACHE.rpartition("/")[0])]
    if left is not None:
        for folder in shared:
            folder.mkdir(parents=True, mode=left)
    before = os.umask(0o077)
    try:
        prepared(contained)
    finally:
        os.umask(before)
    assert [oct(folder.stat().st_mode & 0o777) for folder in shared] == ["0o755", "0o755", "0o755"]
    assert oct((contained.root / CACHE).stat().st_mode & 0o777) == "0o700"


def test_a_cache_that_is_there_keeps_what_is_in_it(contained):
    kernel = contained.root / CACHE / "triton/kernel"
    kernel.parent.mkdir(parents=True)
    kernel.write_text("compiled")
    prepared(contained)
    assert kernel.read_text() == "compiled"


def test_a_folder_that_a_program_of_the_service_has_led_elsewhere_is_not_followed(contained, tmp_path):
    elsewhere, images = tmp_path / "elsewhere", contained.root / CACHE.rpartition("/")[0]
    elsewhere.mkdir()
    images.parent.mkdir(parents=True)
    images.symlink_to(elsewhere)
    prepared(contained)
    assert not list(elsewhere.iterdir())
    assert (contained.root / CACHE).is_dir()


# The specification's cards are lines of a file, and the toolkit's unit writes it anew.
TOOLKIT = """#!/bin/sh
[ "$*" = "--quiet cdi list" ] && sed 's/^/nvidia.com\\/gpu=/' "{folder}/specified"
"""
REFRESHING = """#!/bin/sh
echo "$*" >>"{folder}/systemctl"
[ ! -e "{folder}/fresh" ] || cp "{folder}/fresh" "{folder}/specified"
"""


def specified(host: HelperHost, *uuids: str, fresh: tuple[str, ...] = ()) -> None:
    host.standin("nvidia-ctk", TOOLKIT.format(folder=host.root))
    host.standin("systemctl", REFRESHING.format(folder=host.root))
    host.write("specified", "".join(f"{uuid}\n" for uuid in uuids))
    if fresh:
        host.write("fresh", "".join(f"{uuid}\n" for uuid in fresh))


def refreshed(host: HelperHost) -> bool:
    return (host.root / "systemctl").exists()


def test_a_specification_that_knows_the_cards_is_left_alone(contained):
    contained.service(vendor="nvidia", gpus=[1])
    contained.gpus(ONE, TWO)
    specified(contained, "0", "GPU-b", "all")
    prepared(contained)
    assert not refreshed(contained)


def test_a_specification_from_before_the_driver_was_loaded_is_written_anew(contained):
    contained.service(vendor="nvidia", gpus=[0, 1])
    contained.gpus(ONE, TWO)
    specified(contained, "GPU-a", fresh=("GPU-a", "GPU-b"))
    assert prepared(contained)["RACKSERVE_GPU1"] == "GPU-b"
    assert (contained.root / "systemctl").read_text() == "restart nvidia-cdi-refresh.service\n"


def test_cards_that_podman_is_not_told_of_are_named(contained):
    contained.service(vendor="nvidia", gpus=[0, 1])
    contained.gpus(ONE, TWO)
    specified(contained, "GPU-a", "GPU-bb")
    assert_refused(contained.run("prepare-container"), "does not tell podman of GPU-b: see", NOT_READY)


def test_nvidias_cards_are_named_by_uuid(contained):
    contained.service(vendor="nvidia", gpus=[1])
    contained.gpus(ONE, TWO)
    specified(contained, "GPU-a", "GPU-b")
    assert prepared(contained)["RACKSERVE_GPU1"] == "GPU-b"
    assert "RACKSERVE_GPU0" not in prepared(contained)


def test_amds_cards_are_named_by_the_nodes_behind_the_links_with_who_may_open_them(contained):
    contained.service(vendor="amd", gpus=[0, 1])
    contained.gpus(ONE, TWO, vendor="amd")
    node = contained.root / "dev/dri/renderD0"
    node.parent.mkdir(parents=True)
    node.write_text("")
    found = prepared(contained)
    assert (found["RACKSERVE_GPU0"], found["RACKSERVE_GPU1"]) == ("/dev/dri/renderD0", "/dev/dri/renderD1")
    assert found["RACKSERVE_GROUP"] == str(node.stat().st_gid)


def test_the_key_becomes_a_secret_without_its_newline_and_stands_in_no_command_line(contained):
    prepared(contained)
    assert (contained.root / "secret").read_text() == KEY
    calls = (contained.root / "podman.log").read_text()
    assert calls.splitlines() == ["secret rm rackserve-chat", "secret create rackserve-chat -"]
    assert KEY not in (contained.root / "run/rackserve/chat.env").read_text()


def test_a_server_without_keys_gets_none(contained):
    contained.service(key_file=None)
    prepared(contained)
    assert not (contained.root / "podman.log").exists()


def test_nobody_but_root_reads_what_is_written(contained):
    prepared(contained)
    assert oct((contained.root / "run/rackserve/chat.env").stat().st_mode & 0o777) == "0o600"


@pytest.mark.parametrize(
    "passwd", ["root:x:0:0::/:/bin/sh\n", "rackserve-chat:x:0:0::/:/bin/sh\n", "rackserve-chat\n", ""]
)
def test_without_a_user_of_its_own_it_does_not_start(contained, passwd):
    contained.write("etc/passwd", passwd)
    assert_refused(contained.run("prepare-container"), "there is no user rackserve-chat", NOT_READY)
    assert not (contained.root / "run/rackserve/chat.env").exists()


def test_a_card_that_is_not_there_is_told(contained):
    contained.service(vendor="nvidia", gpus=[3])
    contained.gpus(ONE)
    assert_refused(contained.run("prepare-container"), "there is no GPU 3", NOT_READY)


def test_a_key_that_is_gone_is_told(contained):
    Path(contained.key).unlink()
    assert_refused(contained.run("prepare-container"), "the key cannot be read", NO_INPUT)


def test_a_podman_that_takes_no_secret_is_told_in_its_own_words(contained):
    contained.standin("podman", "#!/bin/sh\ncat >/dev/null\necho 'Error: no space left on device' >&2\nexit 125\n")
    refused = contained.run("prepare-container")
    assert_refused(refused, "podman secret create: Error: no space left on device", NOT_READY)
    assert not (contained.root / "run/rackserve/chat.env").exists()
