"""The API key is in root-only files of the host, and nowhere else: no argv, unit, journal, log, temp file or diff."""

from __future__ import annotations

import re
import subprocess
import threading
from dataclasses import dataclass

import pytest

from tests.lab.conftest import LabFactory
from tests.lab.deploying import Run, Site, main_pid, parse_run, serves

pytestmark = pytest.mark.lab

CANARY, ROTATED = "sk-CANARY4f1d09c2a7e6b8d35c", "sk-ROTATED81c0b7e2d94f6a3358"
# What any of the keys looks like, made ones too; it does not match itself.
KEY = "sk-[A-Za-z0-9_-]{20,}"
# Every command line and environment of every process, as fast as a shell can read them.
SAMPLER = (
    "while [ -e /run/sampling ]; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' >>/root/sampled; "
    "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' ' >>/root/sampled; echo >>/root/sampled; "
    f"grep -rlsE -- '{KEY}' /tmp /var/tmp /dev/shm >>/root/temporary; sleep 0.01; done"
)


@dataclass
class Watched:
    """A host whose keys were put in place, changed and read back, watched from inside, and all that was said."""

    site: Site
    said: str
    made: str
    # The run that brought another key for one service, and the process of the other one before it.
    changing: Run
    other: tuple[str, str]


@pytest.fixture(scope="module")
def watched(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Deploys with the operator's own key and one made on the host, as talkative as pyinfra gets; then another key."""
    folder = tmp_path_factory.mktemp("secrets")
    lab = lab_factory("secrets")
    lab.up(1, "forky")
    site = Site(lab, folder)
    key_file = folder / "chat.key"
    services = site.hosts["h1"]["services"]
    services.append(services[0] | {"name": "second", "max_model_len": 512, "port": 8002})
    services[0]["api_key_file"] = str(key_file)
    lab.ssh("h1", "touch /run/sampling /root/temporary")
    sampling = threading.Thread(target=lambda: lab.ssh("h1", SAMPLER, check=False))
    sampling.start()
    key_file.write_text(f"{CANARY}\n")
    first = loudly(site)
    other = main_pid(lab, "h1", "second")
    key_file.write_text(f"{ROTATED}\n")
    changing = loudly(site)
    verified = site.rackserve("verify", str(site.file))
    assert verified.returncode == 0, verified.stdout
    lab.ssh("h1", "rm /run/sampling")
    sampling.join()
    made = lab.ssh("h1", "cat /etc/rackserve/credentials/second/api-key").stdout.strip()
    said = first.text + changing.text + verified.stdout + verified.stderr
    return Watched(site, said, made, changing, other)


def loudly(site: Site) -> Run:
    command = [site.python, "-m", "pyinfra", "-y", "-vvv", "--diff", "--debug", str(site.write()), "deploys/serve.py"]
    done = subprocess.run(
        command, cwd=site.tree, env=site.environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return parse_run(done.returncode, done.stdout + done.stderr)


def secrets(watched: Watched) -> list[str]:
    assert re.fullmatch(KEY, watched.made)
    return [CANARY, ROTATED, watched.made]


def test_keys_are_served_and_a_changed_one_after_the_next_run(watched: Watched) -> None:
    site = watched.site
    for service, key in (("chat", ROTATED), ("second", watched.made)):
        assert serves(site.lab, "h1", service)
        path = f"/etc/rackserve/credentials/{service}/api-key"
        assert site.lab.ssh("h1", f"stat -c '%a %U' {path}; cat {path}").stdout == f"600 root\n{key}\n"
        given = f"cat /run/credentials/rackserve@{service}.service/api-key"
        assert site.lab.ssh("h1", given).stdout == f"{key}\n"


def test_nothing_that_is_said_at_its_loudest_holds_a_key(watched: Watched) -> None:
    assert len(watched.said) > 20_000
    assert [key for key in secrets(watched) if key in watched.said] == []


def test_no_process_ever_had_a_key_in_its_arguments_or_environment(watched: Watched) -> None:
    lab = watched.site.lab
    assert int(lab.ssh("h1", "wc -l < /root/sampled").stdout) > 50
    # The sampler does see what goes by: the server's own command line, and pyinfra's shells.
    assert lab.ssh("h1", "grep -c llama-server /root/sampled").stdout.strip() != "0"
    for key in secrets(watched):
        assert lab.ssh("h1", f"grep -cF -- {key} /root/sampled", check=False).stdout.strip() == "0"


def test_no_temporary_file_ever_held_a_key(watched: Watched) -> None:
    assert watched.site.lab.ssh("h1", "cat /root/temporary").stdout == ""


def test_only_root_only_files_hold_a_key(watched: Watched) -> None:
    lab = watched.site.lab
    places = "/etc /opt /srv /usr/libexec /usr/local /var /run /home /tmp /root"
    asked = " ".join(f"-e {key}" for key in secrets(watched))
    found = lab.ssh("h1", f"grep -rosF {asked} {places} | sort -u", check=False).stdout.splitlines()
    holders = {key: [line.rpartition(":")[0] for line in found if line.endswith(key)] for key in secrets(watched)}
    files = {
        service: [
            f"/etc/rackserve/credentials/{service}/api-key",
            f"/run/credentials/rackserve@{service}.service/api-key",
        ]
        for service in ("chat", "second")
    }
    assert holders == {CANARY: [], ROTATED: files["chat"], watched.made: files["second"]}
    folders = "/etc/rackserve/credentials /etc/rackserve/credentials/chat /etc/rackserve/credentials/second"
    assert set(lab.ssh("h1", f"stat -c '%a %U' {folders}").stdout.splitlines()) == {"700 root"}
    for path in (*files["chat"], *files["second"]):
        assert lab.ssh("h1", f"cat {path}", check=False, user="deploy").returncode == 1


def test_journal_and_unit_properties_do_not_hold_a_key(watched: Watched) -> None:
    shown = watched.site.lab.ssh(
        "h1",
        "journalctl --no-pager -o export; "
        "for name in chat second; do systemctl show rackserve@$name; systemctl cat rackserve@$name; done",
    ).stdout
    assert "rackserve@second" in shown
    assert [key for key in secrets(watched) if key in shown] == []


def test_a_changed_key_restarts_its_own_service_alone(watched: Watched) -> None:
    assert [name.partition(" | ")[2] for name in watched.changing.changed("h1")] == [
        "API key in place",
        "Service serving its plan",
    ]
    assert main_pid(watched.site.lab, "h1", "second") == watched.other
