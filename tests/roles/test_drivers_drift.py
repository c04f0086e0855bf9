"""Converged hosts on which somebody changed something: exactly that is put right."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.roles.driving import drive, told
from tests.roles.gpu_box import Box

REPO = "/etc/yum.repos.d/rackserve-nvidia-cuda.repo"
KEY = "/etc/pki/rpm-gpg/RPM-GPG-KEY-rackserve-nvidia-cuda"
PACKAGES = ["refresh-rpm.sh", "rm", "driver-rpm.sh"]
SOMEBODY = "[cuda]\nbaseurl=https://developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64\nenabled=1\n"

DRIFTS: dict[str, tuple[Callable[[Box], object], list[str]]] = {
    "nothing": (lambda _: None, []),
    "all locks are gone": (lambda box: box.locks.clear(), [*PACKAGES, "verify-driver.sh"]),
    "one lock is gone": (lambda box: box.locks.remove("libnvidia-ml"), [*PACKAGES, "verify-driver.sh"]),
    "a package is gone": (lambda box: box.packages.pop("nvidia-persistenced"), [*PACKAGES, "verify-driver.sh"]),
    "a library is older": (
        lambda box: box.packages.update({"libnvidia-ml": "575.57.08-1.el9"}),
        [*PACKAGES, "verify-driver.sh"],
    ),
    "a repository is gone": (lambda box: box.files.pop(REPO), ["repository-rpm.sh"]),
    "a repository is changed": (lambda box: box.files.update({REPO: ("[else]\n", "644")}), ["repository-rpm.sh"]),
    "a key is another": (lambda box: box.keys.update({KEY: "F" * 40}), ["repository-rpm.sh"]),
    "a key has one beside it": (
        lambda box: box.keys.update({KEY: f"610C7B14E068A878070DA4E99CD0A493D42D0685 {'F' * 40}"}),
        ["repository-rpm.sh"],
    ),
    "a file is open to all": (
        lambda box: box.files.update({"/etc/rackserve/gpus.json": (box.files["/etc/rackserve/gpus.json"][0], "666")}),
        ["write"],
    ),
    "nothing is loaded": (lambda box: box.loaded.clear(), ["load-driver.sh", "verify-driver.sh"]),
    "nouveau came back": (
        lambda box: (box.loaded.clear(), box.loaded.update(nouveau="")),
        ["load-driver.sh", "verify-driver.sh"],
    ),
    "it was never shown to work": (lambda box: setattr(box, "digest", ""), ["verify-driver.sh"]),
    "another plan was shown to work": (lambda box: setattr(box, "digest", "0" * 64), ["verify-driver.sh"]),
}


@pytest.mark.parametrize("drift", DRIFTS)
def test_what_drifted_is_put_right_and_nothing_else(drift):
    change, wanted = DRIFTS[drift]
    box = Box("l40s", "rhel-9", 2)
    drive({"host": box})
    change(box)
    assert [line[0] for line in told(drive({"host": box}), "host")] == wanted
    assert told(drive({"host": box}), "host") == []


def test_somebody_elses_definition_is_handed_to_the_script_that_moves_it_aside():
    box = Box("l40s", "rhel-9", 2)
    drive({"host": box})
    box.others = {"/etc/yum.repos.d/cuda.repo": (SOMEBODY, "644")}
    ((name, *words),) = told(drive({"host": box}, {"host": {"adopt": True}}), "host")
    # All of the file, so no section of it is named.
    assert (name, words[-2:]) == ("repository-rpm.sh", ["/etc/yum.repos.d/cuda.repo", ""])
    assert told(drive({"host": box}), "host") == []
