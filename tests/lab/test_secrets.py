"""The API key is in root-only files of the host, and nowhere else: no argv, unit, journal, log, temp file or diff."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.lab.conftest import LabFactory
from tests.lab.deploying import Site, serves

pytestmark = pytest.mark.lab

CANARY = "sk-CANARY4f1d09c2a7e6b8d35c"
# Every command line and environment of every process, as fast as a shell can read them; the reader leaves itself out.
SAMPLER = (
    "while [ -e /run/sampling ]; do cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' >>/root/sampled; "
    "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' ' >>/root/sampled; echo >>/root/sampled; "
    'grep -rlsF -- "$(cat /root/canary)" /tmp /var/tmp /dev/shm >>/root/temporary; sleep 0.01; done'
)


@pytest.fixture(scope="module")
def run(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, str]:
    """A deploy with the operator's own key, as talkative as pyinfra gets, watched from inside the host."""
    folder = tmp_path_factory.mktemp("secrets")
    lab = lab_factory("secrets")
    lab.up(1, "forky")
    site = Site(lab, folder)
    key_file = folder / "chat.key"
    key_file.write_text(f"{CANARY}\n")
    site.hosts["h1"]["services"][0]["api_key_file"] = str(key_file)
    lab.ssh("h1", "cat > /root/canary; touch /run/sampling /root/temporary", input=CANARY)
    sampling = threading.Thread(target=lambda: lab.ssh("h1", SAMPLER, check=False))
    sampling.start()
    done = subprocess.run(
        [sys.executable, "-m", "pyinfra", "-y", "-vvv", "--diff", "--debug", str(site.write()), "deploys/serve.py"],
        cwd=Path(__file__).parents[2],
        env=site.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    time.sleep(1)
    lab.ssh("h1", "rm /run/sampling")
    sampling.join()
    assert done.returncode == 0, done.stderr[-3000:]
    return site, done.stdout + done.stderr


def test_key_works(run: tuple[Site, str]) -> None:
    site, _ = run
    assert serves(site.lab, "h1")
    kept = site.lab.ssh(
        "h1", "stat -c '%a %U' /etc/rackserve/credentials/chat/api-key; cat /etc/rackserve/credentials/chat/api-key"
    )
    assert kept.stdout == f"600 root\n{CANARY}\n"


def test_what_pyinfra_says_at_its_loudest_does_not_hold_the_key(run: tuple[Site, str]) -> None:
    assert len(run[1]) > 10_000
    assert CANARY not in run[1]


def test_no_process_ever_had_the_key_in_its_arguments_or_environment(run: tuple[Site, str]) -> None:
    lab = run[0].lab
    assert int(lab.ssh("h1", "wc -l < /root/sampled").stdout) > 50
    # The sampler does see what goes by: the server's own command line, and pyinfra's shells.
    assert lab.ssh("h1", "grep -c llama-server /root/sampled").stdout.strip() != "0"
    assert lab.ssh("h1", f"grep -cF -- {CANARY} /root/sampled", check=False).stdout.strip() == "0"


def test_no_temporary_file_ever_held_the_key(run: tuple[Site, str]) -> None:
    assert run[0].lab.ssh("h1", "cat /root/temporary").stdout == ""


def test_only_root_only_files_hold_the_key(run: tuple[Site, str]) -> None:
    lab = run[0].lab
    found = lab.ssh("h1", f"grep -rlsF -- {CANARY} /etc /opt /srv /usr/libexec /var /run /home /tmp /root", check=False)
    assert sorted(found.stdout.split()) == [
        "/etc/rackserve/credentials/chat/api-key",
        "/root/canary",
        "/run/credentials/rackserve@chat.service/api-key",
    ]
    modes = lab.ssh("h1", "stat -c '%a %U' /etc/rackserve/credentials /etc/rackserve/credentials/chat").stdout.split()
    assert modes == ["700", "root", "700", "root"]
    as_deploy = "cat /etc/rackserve/credentials/chat/api-key /run/credentials/rackserve@chat.service/api-key"
    assert CANARY not in lab.ssh("h1", as_deploy, check=False, user="deploy").stdout


def test_journal_and_unit_properties_do_not_hold_the_key(run: tuple[Site, str]) -> None:
    lab = run[0].lab
    shown = lab.ssh(
        "h1", "journalctl --no-pager -o export; systemctl show rackserve@chat; systemctl cat rackserve@chat"
    )
    assert "rackserve@chat" in shown.stdout
    assert CANARY not in shown.stdout


def test_changed_key_is_served_after_the_next_run(run: tuple[Site, str], tmp_path: Path) -> None:
    site, _ = run
    rotated = tmp_path / "new.key"
    rotated.write_text("sk-rotated\n")
    site.hosts["h1"]["services"][0]["api_key_file"] = str(rotated)
    assert [name.partition(" | ")[2] for name in site.deploy().changed("h1")] == [
        "API key in place",
        "Service serving its plan",
    ]
    assert serves(site.lab, "h1")
    assert site.deploy().changed("h1") == []
