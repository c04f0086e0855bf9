"""refresh-rpm.sh and driver-rpm.sh: what dnf and rpm are told, word by word, and what they say when it fails."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.operations.package_bench import holding
from tests.operations.private_root import PrivateRoot, needs_private_root

pytestmark = needs_private_root
# Each program writes down how it was called, then does what /run/PROGRAM says.
RECORDING = '#!/bin/sh\nprintf "%s\\n" "{0} $*" >>/run/calls\n[ ! -e /run/{0} ] || . /run/{0}\n'
# Our answer is yes, we wait ourselves, and a dead repository is an error.
YES = "dnf -y --setopt=exit_on_lock=True --setopt=skip_if_unavailable=False"
# Our own locks do not hold us.
PAST_LOCKS = f"{YES} --disableplugin=versionlock"
# As dnf says it, and with its exit code for it.
LOCKED = "echo 'metadata already locked by {0}' >&2; echo 'The application with PID {0} is: dnf' >&2; exit 200"
STREAM = "nvidia-driver:580-open"
LISTED = "Rocky Linux 9\\nName Stream Profiles Summary\\nnvidia-driver {0} [e] default NVIDIA\\n\\nHint: [d]efault\\n"


class RpmHost:
    def __init__(self, folder: Path) -> None:
        self.root = PrivateRoot(folder)
        for name in ("dnf", "rpm"):
            self.root.program(name, RECORDING.format(name))
        self.there(["python3-dnf-plugin-versionlock"])
        self.stream("580-open")

    def there(self, packages: Iterable[str]) -> None:
        """Which packages rpm knows."""
        self.answer("rpm", f"case ' {' '.join(packages)} ' in *\" $4 \"*) ;; *) exit 1 ;; esac")

    def stream(self, name: str, more: str = "") -> None:
        """Which stream is enabled. more: what else dnf does."""
        self.answer("dnf", f"case $* in *'module list'*) printf '{LISTED.format(name)}' ;; esac\n{more}")

    def answer(self, program: str, text: str) -> None:
        self.root.path(f"/run/{program}").write_text(f"{text}\n")

    def calls(self, *programs: str) -> list[str]:
        """Calls of these programs, in order."""
        path = self.root.path("/run/calls")
        lines = path.read_text().splitlines() if path.exists() else []
        listing = ("rpm -qa", "rpm -q gpg-pubkey")
        return [line for line in lines if line.split(" ")[0] in programs and not line.startswith(listing)]

    def run(self, name: str, *arguments: object, beside: int | None = None) -> tuple[int, str, str]:
        done = self.root.script(name, *arguments, beside=beside)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def host(tmp_path: Path) -> RpmHost:
    return RpmHost(tmp_path / "root")


# refresh


def test_where_all_is_there_the_lists_are_read_and_nothing_is_changed(host):
    host.there(["gcc", "dkms"])
    assert host.run("refresh-rpm.sh", 5, STREAM, "gcc", "dkms") == (0, "", "")
    assert host.calls("dnf") == [f"{YES} -q makecache", "dnf -q module list --enabled nvidia-driver"]
    assert host.calls("rpm")[0] == "rpm -q --quiet --whatprovides gcc"


def test_what_is_missing_is_installed(host):
    host.there(["gcc"])
    assert host.run("refresh-rpm.sh", 5, "", "gcc", "dkms") == (0, "", "")
    assert host.calls("dnf") == [f"{YES} -q makecache", f"{YES} install dkms"]


@pytest.mark.parametrize("enabled", ["575-open", "580-open-other", ""])
def test_another_stream_is_left_before_the_wanted_one_is_entered(host, enabled):
    host.stream(enabled) if enabled else host.answer("dnf", "")
    assert host.run("refresh-rpm.sh", 5, STREAM) == (0, "", "")
    assert host.calls("dnf")[2:] == [f"{YES} module reset nvidia-driver", f"{YES} module enable {STREAM}"]


@pytest.mark.parametrize(
    ("failing", "said", "told"),
    [
        (
            "makecache",
            "Error: Failed to download metadata for repo 'cuda': Cannot download repomd.xml",
            "package lists not refreshed",
        ),
        (
            "install gcc dkms",
            "Error:\n Problem: nothing provides kernel-devel needed by dkms",
            "packages not installed: gcc dkms",
        ),
        ("module enable", "Error: Problems in request:", f"module stream not entered: {STREAM}"),
    ],
)
def test_whatever_fails_is_told_and_nothing_goes_on_after_it(host, failing, said, told):
    host.stream("575-open", f"case $* in *'{failing}'*) echo \"{said}\" >&2; exit 1 ;; esac")
    code, _, err = host.run("refresh-rpm.sh", 5, STREAM, "gcc", "dkms")
    assert (code, err) == (1, f"{told}\n{said}\n")
    assert failing in host.calls("dnf")[-1]
    # Only a lock is waited for.
    assert sum(failing in call for call in host.calls("dnf")) == 1


# driver


def test_the_driver_is_installed_in_its_version_and_held_there(host):
    names = ("nvidia-open-580.95.05", "dkms")
    code, out, err = host.run(
        "driver-rpm.sh", 5, "nvidia-open-575.57.08-1.el9 libnvidia-ml-575.57.08-1.el9", "a b", *names
    )
    assert (code, err) == (0, "")
    assert host.calls("dnf") == [
        f"{PAST_LOCKS} install nvidia-open-580.95.05 dkms",
        "dnf -q versionlock delete a b",
        "dnf -q --setopt=exit_on_lock=True versionlock add a b",
    ]
    back = "nvidia-open-575.57.08-1.el9 libnvidia-ml-575.57.08-1.el9"
    assert out == f"dnf --disableplugin=versionlock install {back}\n"


def test_without_anything_replaced_there_is_no_way_back_to_tell(host):
    assert host.run("driver-rpm.sh", 5, "", "a", "nvidia-open") == (0, "", "")


def test_with_nothing_to_hold_no_lock_is_touched(host):
    assert host.run("driver-rpm.sh", 5, "", "", "amdgpu-dkms") == (0, "", "")
    assert host.calls("dnf") == [f"{PAST_LOCKS} install amdgpu-dkms"]


def test_the_plugin_that_holds_versions_is_installed_where_it_is_missing(host):
    host.there([])
    assert host.run("driver-rpm.sh", 5, "", "a", "nvidia-open") == (0, "", "")
    assert host.calls("dnf") == [
        f"{PAST_LOCKS} install nvidia-open",
        "dnf -y --setopt=exit_on_lock=True install python3-dnf-plugin-versionlock",
        "dnf -q versionlock delete a",
        "dnf -q --setopt=exit_on_lock=True versionlock add a",
    ]


def test_names_that_were_not_held_before_are_held_now(host):
    host.stream("580-open", "case $* in *'versionlock delete'*) echo 'Error: No package found' >&2; exit 1 ;; esac")
    assert host.run("driver-rpm.sh", 5, "", "a", "nvidia-open")[0] == 0
    assert host.calls("dnf")[-1] == "dnf -q --setopt=exit_on_lock=True versionlock add a"


def test_a_driver_that_cannot_be_installed_is_told_and_its_locks_stay(host):
    said = "No match for argument: nvidia-open-999\nError: Unable to find a match: nvidia-open-999"
    host.stream("580-open", f"case $* in *' install '*) echo \"{said}\" >&2; exit 1 ;; esac")
    code, out, err = host.run("driver-rpm.sh", 5, "nvidia-open-575.57.08-1.el9", "a", "nvidia-open-999")
    assert (code, out, err) == (1, "", f"driver packages not installed: nvidia-open-999\n{said}\n")
    assert not [call for call in host.calls("dnf") if "versionlock " in call.replace("=versionlock ", "")]


def test_a_driver_that_cannot_be_held_is_no_success(host):
    host.stream("580-open", "case $* in *'versionlock add'*) echo 'Error: no space left' >&2; exit 1 ;; esac")
    code, _, err = host.run("driver-rpm.sh", 5, "", "a", "nvidia-open")
    assert (code, err) == (1, "driver packages not installed: nvidia-open\nError: no space left\n")


# locks


def test_a_lock_that_stays_held_names_its_holder_and_leaves_it_alone(host):
    with holding(host.root, "/run/dnf.lock") as holder:
        host.answer("dnf", LOCKED.format(holder.pid))
        code, _, err = host.run("driver-rpm.sh", 1, "", "a", "nvidia-open", beside=holder.pid)
        assert code == 1
        assert f"Error: held for more than 1 s by pid {holder.pid}: " in err
        assert "/run/dnf.lock" in err.partition("by pid")[2]
        assert holder.poll() is None


def test_a_lock_that_is_given_back_is_waited_for(host):
    host.answer("dnf", f"[ -e /run/once ] || {{ touch /run/once; {LOCKED.format(1)}; }}")
    assert host.run("driver-rpm.sh", 60, "", "", "nvidia-open") == (0, "", "")
    assert host.calls("dnf") == [f"{PAST_LOCKS} install nvidia-open"] * 2
