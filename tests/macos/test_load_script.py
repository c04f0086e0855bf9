"""load-mac.sh and remove-mac.sh with launchd's part played by a stand-in: a service serves, or is out and says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from rackserve.rendering import host_files
from rackserve.rendering.launchd import daemon_digest
from tests.macos.mac import Mac, each_shell, until
from tests.macos.planning import host_plan_of

JOB, WATCH = "io.rackserve.chat", "io.rackserve.chat.health"
LOG = "/var/log/rackserve/chat.log"


def loads(mac: Mac) -> list[str]:
    return [line.rpartition("/")[2].removesuffix(".plist") for line in mac.calls("bootstrap")]


@each_shell
def test_a_service_is_loaded_answers_and_is_watched(mac, planned, shell):
    done = mac.script(shell, "load-mac.sh", mac.root, "chat", 50)
    assert (done.returncode, done.stderr) == (0, "")
    assert "first token after" in done.stdout
    assert f"RACKSERVE_DIGEST => {daemon_digest(planned.gpu_services[0])}" in mac.launchctl("print", f"system/{JOB}")
    assert loads(mac) == [JOB, WATCH]
    assert mac.owners()[LOG] == "_rackserve-chat"
    assert mac.path(LOG).stat().st_mode & 0o777 == 0o640


@each_shell
def test_a_service_that_runs_is_drained_stopped_and_loaded_anew(mac, shell):
    assert mac.script(shell, "load-mac.sh", mac.root, "chat", 50).returncode == 0
    before = mac.pid(JOB)
    mac.put_server(busy=1)
    # What is in flight is waited for: the watch has gone by then, and the server not yet.
    known = mac.path("/etc/rackserve/services/chat.conf")
    known.write_text(known.read_text().replace("drain_s 30", "drain_s 1"))
    done = mac.script(shell, "load-mac.sh", mac.root, "chat", 50)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "drain: requests in flight after 1 s: 1; stopping anyway\n"
    assert mac.calls("bootout")[-2:] == [f"bootout system/{WATCH}", f"bootout system/{JOB}"]
    assert loads(mac)[-2:] == [JOB, WATCH]
    assert mac.pid(JOB) not in (0, before)


@each_shell
def test_a_job_that_somebody_has_disabled_is_enabled(mac, shell):
    mac.launchctl("disable", f"system/{JOB}")
    mac.launchctl("disable", f"system/{WATCH}")
    assert mac.script(shell, "load-mac.sh", mac.root, "chat", 50).returncode == 0
    assert "=> disabled" not in mac.launchctl("print-disabled", "system")


@each_shell
def test_a_server_that_dies_ends_the_load_at_once_with_its_own_words(mac, shell):
    mac.path(LOG).parent.mkdir()
    mac.path(LOG).write_text("words of an earlier run\n")
    mac.put_server(dies="error: model is corrupted")
    done = mac.script(shell, "load-mac.sh", mac.root, "chat", 50)
    assert done.returncode == 1
    assert "wait-ready: the server has ended: 1" in done.stderr
    assert "main: error: model is corrupted" in done.stderr
    assert "earlier run" not in done.stderr
    assert mac.pid(JOB) == 0
    assert not (mac.state / f"{JOB}.job").exists(), "it stays out: a crash loop would go on for ever"
    assert WATCH not in loads(mac)


@each_shell
def test_a_server_that_never_gets_healthy_is_taken_out_in_time(mac, shell):
    known = mac.path("/etc/rackserve/services/chat.conf")
    known.write_text(known.read_text().replace("start_s 900", "start_s 2"))
    mac.put_server(health=503)
    done = mac.script(shell, "load-mac.sh", mac.root, "chat", 50)
    assert done.returncode == 1
    assert "not healthy in time, last state: HTTP 503" in done.stderr
    assert f"{JOB} does not serve; its last words:\nmain: listening\n" in done.stderr
    assert not (mac.state / f"{JOB}.job").exists()


def test_a_plist_that_launchd_refuses_is_told(mac):
    mac.tool(
        "launchctl",
        '#!/bin/sh\n[ "$1" != bootstrap ] || { echo "Bootstrap failed: 22: bad" >&2; exit 22; }\nexit 113\n',
    )
    mac.tool("sleep", "#!/bin/sh\n")
    done = mac.script("dash", "load-mac.sh", mac.root, "chat", 50)
    assert done.returncode == 1
    assert f"launchd does not take {JOB}: Bootstrap failed: 22: bad" in done.stderr


@each_shell
def test_what_a_service_had_is_gone_and_others_stay(mac, port, shell):
    mac.put(*host_files(host_plan_of({"port": port}, {"name": "chat2", "port": port + 1})))
    for folder in ("/var/lib/rackserve/chat", "/var/lib/rackserve/chat2", "/opt/models"):
        mac.path(folder).mkdir(parents=True)
    assert mac.script(shell, "load-mac.sh", mac.root, "chat", 50).returncode == 0
    pid = mac.pid(JOB)
    done = mac.script(shell, "remove-mac.sh", mac.root, "chat", 50)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    left = {str(path.relative_to(mac.root)) for path in mac.root.rglob("*") if "libexec" not in str(path)}
    assert {entry for entry in left if "chat" in entry} == {
        "Library/LaunchDaemons/io.rackserve.chat2.plist",
        "Library/LaunchDaemons/io.rackserve.chat2.health.plist",
        "etc/rackserve/services/chat2.conf",
        "var/lib/rackserve/chat2",
    }
    assert "opt/models" in left
    assert not list((mac.state / "ds").glob("*/_rackserve-chat"))
    until(lambda: not Path(f"/proc/{pid}").exists(), "the process is gone")


@each_shell
def test_an_account_that_macos_guards_stays_and_is_told_and_the_rest_is_gone(mac, shell):
    (mac.state / "guarded").write_text("")
    done = mac.script(shell, "remove-mac.sh", mac.root, "chat", 50)
    assert (done.returncode, done.stderr) == (0, "")
    assert "eDSPermissionError" in done.stdout
    assert "sudo dscl . -delete /Users/_rackserve-chat" in done.stdout
    assert not list(mac.path("/Library/LaunchDaemons").iterdir())


@pytest.mark.parametrize("times", [1, 2])
def test_a_removal_that_broke_off_is_run_again(mac, times):
    (mac.state / "ds" / "Users" / "_rackserve-chat" / "UniqueID").unlink()
    (mac.state / "ds" / "Users" / "_rackserve-chat").rmdir()
    for _ in range(times):
        assert mac.script("dash", "remove-mac.sh", mac.root, "chat", 50).returncode == 0
    assert not list(mac.path("/Library/LaunchDaemons").iterdir())


@each_shell
def test_what_a_runtime_has_beside_goes_with_the_service(mac, shell):
    for path in (
        "ollama/chat/blobs/sha256-0",
        "lmstudio/chat.json",
        "ollama/chat2/blobs/sha256-0",
        "lmstudio/chat2.json",
    ):
        mac.path(f"/etc/rackserve/{path}").parent.mkdir(parents=True, exist_ok=True)
        mac.path(f"/etc/rackserve/{path}").write_text("x")
    assert mac.script(shell, "remove-mac.sh", mac.root, "chat", 50).returncode == 0
    left = [path for path in mac.path("/etc/rackserve").rglob("*") if path.is_file()]
    assert {str(path.relative_to(mac.path("/etc/rackserve"))) for path in left} == {
        "ollama/chat2/blobs/sha256-0",
        "lmstudio/chat2.json",
    }
