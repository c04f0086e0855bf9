"""uninstall-rpm.sh with stand-ins for dnf and rpm that keep a list of packages: what goes, and what stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operations.private_root import PrivateRoot, needs_private_root

pytestmark = needs_private_root
# /run/db: a package a line, with what needs it behind it. A capability is a package's name here.
RPM = """#!/bin/sh
case "$1 $2" in
  "-qa --qf") cut -d' ' -f1 /run/db ;;
  "-q gpg-pubkey") grep -o '^gpg-pubkey-[^ ]*' /run/db ;;
  "-q --qf") echo "$5" ;;
  "-e --test") shift 2
    while read -r name needing; do
      case " $* " in *" $name "*) [ -z "$needing" ] || case " $* " in *" $needing "*) ;; *)
        printf '\\t%s is needed by (installed) %s-1.0-1.x86_64\\n' "$name" "$needing" ;; esac ;; esac
    done </run/db ;;
  "-e "*) echo "rpm $*" >>/run/calls ;;
  *) exit 1 ;;
esac
"""
RECORDING = '#!/bin/sh\necho "{0} $*" >>/run/calls\n'
REMOVE = (
    "dnf -y --setopt=exit_on_lock=True --setopt=skip_if_unavailable=False --disableplugin=versionlock "
    "--setopt=clean_requirements_on_remove=False remove"
)
RESET = REMOVE.partition(" --disableplugin")[0] + " module reset nvidia-driver"


class Host:
    def __init__(self, folder: Path, packages: str, added: str, streams: str = "") -> None:
        self.root = PrivateRoot(folder)
        self.root.program("rpm", RPM)
        self.root.program("dnf", RECORDING.format("dnf"))
        self.root.path("/run/db").write_text(packages)
        self.root.path("/var/lib/rackserve/packages-added").write_text(added)
        if streams:
            self.root.path("/var/lib/rackserve/dnf-streams").write_text(streams)

    def uninstall(self) -> tuple[list[str], list[str]]:
        """What was called, and what it said has to stay."""
        done = self.root.script("uninstall-rpm.sh", 5)
        assert (done.returncode, done.stderr) == (0, "")
        calls = self.root.path("/run/calls")
        lines = self.root.path("/run/rackserve-uninstall.log").read_text().splitlines()
        told = [line.removeprefix("stays: ") for line in lines if not line.startswith("removed: ")]
        return calls.read_text().splitlines() if calls.exists() else [], told


def test_what_came_goes_and_dnf_is_as_it_was(tmp_path):
    host = Host(
        tmp_path,
        "bash\ndkms\nnvidia-driver-cuda\nkernel-core\nkernel-modules-core\ngpg-pubkey-1-1\ngpg-pubkey-2-2\n",
        "dkms\ngone-since\nkernel-core\nkernel-modules-core\nnvidia-driver-cuda\ngpg-pubkey-2-2\n",
        "nvidia-driver\nnvidia-driver\n",
    )
    calls, told = host.uninstall()
    assert calls == [
        "dnf -q versionlock delete dkms nvidia-driver-cuda",
        f"{REMOVE} dkms nvidia-driver-cuda",
        "rpm -e gpg-pubkey-2-2",
        RESET,
    ]
    assert told == []


def test_what_somebody_else_needs_by_now_stays_and_is_named(tmp_path):
    host = Host(tmp_path, "dkms zfs-dkms\nzfs-dkms\nnvidia-driver-cuda\n", "dkms\nnvidia-driver-cuda\n")
    calls, told = host.uninstall()
    assert calls[-1] == f"{REMOVE} nvidia-driver-cuda"
    assert told == ["dkms, needed by zfs-dkms-1.0-1.x86_64"]


def test_what_stays_may_keep_more_of_ours(tmp_path):
    host = Host(tmp_path, "gcc dkms\ndkms zfs-dkms\nzfs-dkms\n", "dkms\ngcc\n")
    calls, told = host.uninstall()
    assert not any(" remove " in call for call in calls)
    assert told == ["dkms, needed by zfs-dkms-1.0-1.x86_64", "gcc, needed by dkms-1.0-1.x86_64"]


@pytest.mark.parametrize("added", ["", "gone-since\n"])
def test_without_anything_to_remove_nothing_is_called(tmp_path, added):
    assert Host(tmp_path, "bash\n", added).uninstall() == ([], [])


def test_a_list_that_was_left_unfinished_is_finished_first(tmp_path):
    host = Host(tmp_path, "bash\ndkms\n", "")
    host.root.path("/var/lib/rackserve/packages-before").write_text("bash\n")
    calls, _ = host.uninstall()
    assert calls[-1] == f"{REMOVE} dkms"
