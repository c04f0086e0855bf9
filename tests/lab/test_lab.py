"""The lab itself, on real hosts."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from rackserve.cli.lab import lab as command
from rackserve.domain.errors import LabError, LockedError
from rackserve.lab import cgroups, network, nspawn
from rackserve.lab.inventory import inventory_hosts
from rackserve.lab.lab import Lab
from rackserve.lab.locks import locked
from rackserve.lab.pci import PciDevice

pytestmark = pytest.mark.lab
ROOT = Path(__file__).resolve().parents[2]


def test_hosts_are_bare_debian_with_addresses_of_their_own(lab):
    addresses = {host.name: host.address for host in lab.hosts()}
    assert len(set(addresses.values())) == 2
    for name, address in addresses.items():
        assert lab.ssh(name, "hostname").stdout.strip() == name
        assert address in lab.ssh(name, "ip -4 -brief address show host0").stdout
        assert lab.ssh(name, "systemctl is-system-running").stdout.strip() == "running"
        assert "bookworm" in lab.ssh(name, "cat /etc/os-release").stdout
        assert lab.ssh(name, "find /var/lib/apt/lists -name '*Packages*'").stdout == ""


def test_hosts_reach_each_other(lab):
    assert lab.ssh("h1", f"echo | timeout 5 bash -c 'head -c 3 </dev/tcp/{lab.address('h2')}/22'").stdout == "SSH"


def test_deploy_may_use_sudo_without_a_password(lab):
    assert lab.ssh("h1", "id -un; sudo -n id -un", user="deploy").stdout.split() == ["deploy", "root"]


def test_ssh_passes_input_and_reports_failure(lab):
    assert lab.ssh("h1", "cat", input="word").stdout == "word"
    assert lab.ssh("h1", "cat").stdout == ""
    assert lab.ssh("h1", "exit 3", check=False).returncode == 3
    with pytest.raises(LabError, match="h1: `echo no; false` ended with exit code 1: no"):
        lab.ssh("h1", "echo no; false")
    with pytest.raises(LabError, match="no host 'h9'"):
        lab.ssh("h9", "true")


def test_up_again_leaves_hosts_alone(lab):
    before = [lab.boot_id(host.name) for host in lab.hosts()]
    lab.up(2, "bookworm")
    assert [lab.boot_id(host.name) for host in lab.hosts()] == before


def test_a_second_up_at_the_same_time_is_refused(lab):
    with locked(f"lab-{lab.names.digest}", wait=False), pytest.raises(LockedError, match="another rackserve"):
        lab.up(2, "bookworm")


def test_power_cut_keeps_the_disk_and_spares_the_others(lab):
    lab.ssh("h1", "echo kept > /root/note; systemd-run --unit=witness sleep infinity")
    first, other = lab.boot_id("h1"), lab.boot_id("h2")
    lab.kill("h1")
    assert lab.condition("h1") == "off"
    with pytest.raises(LabError):
        lab.ssh("h1", "true", timeout=10)
    lab.boot("h1")
    assert lab.ssh("h1", "cat /root/note").stdout == "kept\n"
    assert lab.ssh("h1", "systemctl is-active witness", check=False).stdout.strip() == "inactive"
    assert lab.boot_id("h1") != first
    assert lab.boot_id("h2") == other


def test_a_snapshot_brings_back_files_deletions_and_cards_and_spares_the_others(lab):
    h100 = PciDevice("0000:41:00.0", 0x10DE, 0x2331, driver="nvidia")
    lab.ssh("h1", "rm /etc/issue; rm -rf /etc/skel; mkdir /etc/skel; echo first >/root/note")
    lab.set_pci("h1", [h100])
    first, other = lab.boot_id("h1"), lab.boot_id("h2")
    try:
        lab.snapshot("h1", "first")
        assert lab.boot_id("h1") == first
        lab.ssh("h1", "echo second >/root/note; echo back >/etc/issue; touch /root/later /etc/skel/later")
        lab.set_pci("h1", [])
        lab.restore("first", "h1")
        assert lab.boot_id("h1") != first
        assert lab.boot_id("h2") == other
        assert lab.ssh("h1", "cat /root/note; ls -A /etc/skel; ls /root; hostname").stdout.split() == [
            "first",
            "note",
            "h1",
        ]
        assert lab.ssh("h1", "ls /etc/issue", check=False).returncode == 2
        assert "41:00.0 0302: 10de:2331" in lab.ssh("h1", "lspci -n").stdout
        with pytest.raises(LabError, match=r"h1 has no snapshot 'second' \(it has first\)"):
            lab.restore("second", "h1")
    finally:
        lab.boot("h1")
        lab.set_pci("h1", [])


def test_a_host_stands_still_while_it_is_copied_and_goes_on_afterwards(lab):
    lab.ssh("h1", "systemd-run --unit=writer sh -c 'while :; do echo >>/root/count; done'")
    count = lab.folder("h1").upper / "root/count"
    try:
        with cgroups.frozen(lab.names.cgroup("h1")):
            before = count.stat().st_size
            time.sleep(0.2)
            assert count.stat().st_size == before
        for _ in range(100):
            time.sleep(0.1)
            if count.stat().st_size > before:
                break
        assert count.stat().st_size > before > 0
    finally:
        lab.ssh("h1", "systemctl stop writer; rm /root/count")


def test_reboot_from_inside_restarts_uptime(lab):
    time.sleep(1)
    before = lab.boot_id("h2")
    lab.reboot("h2")
    assert lab.boot_id("h2") != before
    assert float(lab.ssh("h2", "cat /proc/uptime").stdout.split()[0]) < 10


def test_restarting_a_service_stays_on_its_host(lab):
    before = lab.ssh("h2", "systemctl show -P ExecMainPID ssh").stdout
    lab.ssh("h1", "systemctl restart ssh")
    lab.wait("h1")
    assert lab.ssh("h2", "systemctl show -P ExecMainPID ssh").stdout == before


def test_simulated_gpus_appear_and_vanish_while_running(lab):
    assert lab.ssh("h1", "lspci -n").stdout == ""
    h100 = PciDevice("0000:41:00.0", 0x10DE, 0x2331, driver="nvidia")
    lab.set_pci("h1", [h100, PciDevice("0000:43:00.0", 0x1002, 0x74A1, 0x120000)])
    assert "41:00.0 0302: 10de:2331" in lab.ssh("h1", "lspci -n").stdout
    assert "Kernel driver in use: nvidia" in lab.ssh("h1", "lspci -nk -s 41:00.0").stdout
    assert lab.ssh("h2", "lspci -n").stdout == ""
    lab.set_pci("h1", [h100])
    assert "43:00.0" not in lab.ssh("h1", "lspci -n").stdout
    lab.set_pci("h1", [])


def test_a_driver_looks_loaded_with_its_version(lab):
    assert lab.ssh("h1", "ls /sys/module").stdout == ""
    lab.set_modules("h1", {"nvidia": "580.95.05"})
    assert lab.ssh("h1", "cat /sys/module/nvidia/version").stdout == "580.95.05\n"
    lab.set_modules("h1", {})
    assert lab.ssh("h1", "ls /sys/module").stdout == ""


def test_depot_serves_and_resumes_and_dies(lab, depot_file):
    url = depot_file("model.bin", b"0123456789" * 100)
    assert lab.ssh("h1", f"curl -fsS {url} | wc -c").stdout.strip() == "1000"
    resumed = "cd /tmp && printf 01234 > m && curl -fsS -C - -o m " + url + " && sha256sum < m"
    assert lab.ssh("h1", resumed).stdout == lab.ssh("h1", f"curl -fsS {url} | sha256sum").stdout
    lab.depot_stop()
    try:
        assert lab.ssh("h1", f"curl -fsS --max-time 5 {url}", check=False).returncode == 7
    finally:
        lab.depot_start()
    assert lab.ssh("h1", f"curl -fsSI {url}").stdout.startswith("HTTP/1.0 200")


def test_apt_works_inside(lab):
    lab.ssh("h2", "apt-get update -o APT::Update::Error-Mode=any", timeout=120)
    assert "Candidate: (none)" not in lab.ssh("h2", "apt-cache policy jq").stdout
    lab.ssh("h2", "apt-get clean; rm -rf /var/lib/apt/lists/*")


# property of a unit -> a command that succeeds only if the property is enforced
HARDENING = {
    "ProtectSystem=strict": "! touch /usr/x /etc/x 2>/dev/null",
    "PrivateTmp=yes": "test ! -e /tmp/outside",
    "ProtectHome=yes": "! ls /root/.ssh 2>/dev/null",
    "PrivateDevices=yes": "test ! -e /dev/fuse",
    "NoNewPrivileges=yes": "grep -q 'NoNewPrivs:.1' /proc/self/status",
    "LoadCredential=key:/root/.ssh/authorized_keys": 'test -s "$$CREDENTIALS_DIRECTORY/key"',
    "IPAddressDeny=any": "! timeout 2 bash -c 'exec 3<>/dev/tcp/PEER/22' 2>/dev/null",
    "DevicePolicy=closed": "! head -c0 /dev/fuse 2>/dev/null",
    "SystemCallFilter=~@mount": "! mount -t tmpfs x /mnt 2>/dev/null",
}


@pytest.mark.parametrize("setting", HARDENING)
def test_unit_hardening_is_enforced(lab, setting):
    lab.ssh("h1", "touch /tmp/outside; test -e /dev/fuse || mknod /dev/fuse c 10 229")
    check = HARDENING[setting].replace("PEER", lab.address("h2"))

    def unit(*arguments: str) -> int:
        line = shlex.join(["systemd-run", "--quiet", "--wait", "--pipe", *arguments, "bash", "-c", check])
        return lab.ssh("h1", line, check=False).returncode

    assert unit("-p", setting) == 0
    assert unit() != 0


def test_inventory_and_status_describe_the_lab(lab, monkeypatch):
    monkeypatch.setenv("RACKSERVE_LAB", lab.names.lab)
    hosts = dict(inventory_hosts())
    assert hosts["h2"]["ssh_hostname"] == lab.address("h2")
    assert hosts["h1"]["memory_mib"] > 0
    shown = CliRunner().invoke(command, ["status", "--json"])
    report = json.loads(shown.stdout)
    assert [host["condition"] for host in report["hosts"]] == ["up", "up"]
    assert report["depot_running"]
    assert "h1" in CliRunner().invoke(command, ["status"]).stdout


def traces(lab: Lab) -> dict[str, list[str]]:
    """All a lab could leave behind on the machine, and what says so."""
    home = str(lab.names.folder)
    processes = [
        path.parent.name
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if home.encode() in _read(path) or _lives_in(path.parent, lab.names.prefix)
    ]
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    return {
        "processes": processes,
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if home in line],
        "namespaces": network.namespaces(lab.names.prefix),
        "links": [link for link in network.links() if lab.names.digest in link],
        "tables": [line for line in tables.splitlines() if lab.names.nft_table in line],
        "cgroups": cgroups.with_prefix(lab.names.prefix),
        "folders": [home] if lab.names.folder.exists() else [],
    }


def _lives_in(process: Path, group: str) -> bool:
    """A killed process stays listed until the machine's init has noticed; that one no longer lives."""
    return group.encode() in _read(process / "cgroup") and b"State:\tZ" not in _read(process / "status")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_down_leaves_nothing_and_spares_other_labs(lab, lab_factory, tmp_path, monkeypatch):
    # Hosts of every lab mount on it, and mounts go with a folder: only the last lab may remove it.
    monkeypatch.setattr(nspawn, "RUNTIME_FOLDER", tmp_path / "runtime")
    nspawn.RUNTIME_FOLDER.mkdir()
    second = lab_factory("down")
    second.up(1, "trixie")
    assert "trixie" in second.ssh("h1", "cat /etc/os-release").stdout
    assert all(found for kind, found in traces(second).items() if kind != "mounts")
    assert second.down()
    assert not any(traces(second).values())
    assert not second.down()
    assert lab.condition("h1") == "up"
    assert nspawn.RUNTIME_FOLDER.is_dir()
    assert network.IP_FORWARD.read_text() == "1\n"


# A test run of its own, in the midst of a test.
PROBE = """import time
def test_probe(lab_factory):
    lab = lab_factory("term")
    lab.up(1, "bookworm")
    print("made", lab.names.lab, flush=True)
    time.sleep(600)
"""


def test_a_test_run_that_is_told_to_end_takes_its_labs_down(lab, tmp_path):
    (tmp_path / "test_probe.py").write_text(PROBE)
    command = [sys.executable, "-m", "pytest", "-s", "-p", "tests.lab.conftest", "-c", "pyproject.toml"]
    with subprocess.Popen([*command, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        made = next(found[1] for line in process.stdout if (found := re.search(r"made (\S+)", line)))
        assert Lab(made).condition("h1") == "up"
        process.terminate()
        process.communicate(timeout=60)
    assert not any(traces(Lab(made)).values())
    assert lab.condition("h1") == "up"


def test_down_removes_a_lab_whose_records_are_lost(lab_factory):
    torn = lab_factory("torn")
    torn.up(1, "bookworm")
    torn.depot_stop()
    (torn.names.folder / "lab.json").write_text("{")
    with pytest.raises(LabError, match="lab down"):
        torn.hosts()
    assert torn.down()
    assert not any(traces(torn).values())


def test_up_recovers_what_a_restart_of_the_machine_takes(lab_factory):
    lab = lab_factory("restart")
    lab.up(1, "bookworm")
    lab.ssh("h1", "echo kept > /root/note; sync")
    address = lab.address("h1")
    lab.kill("h1")
    lab.depot_stop()
    network.remove(lab.names)
    lab.up(1, "bookworm")
    assert lab.address("h1") == address
    assert lab.ssh("h1", "cat /root/note").stdout == "kept\n"
    lab.down()
