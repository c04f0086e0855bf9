"""Hosts in trouble, above all with dnf, which no lab host has: refused with a sentence, while the others go on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.roles.driving import ORDER, drive, named, told
from tests.roles.gpu_archive import HWE
from tests.roles.gpu_box import CATALOG, SYSTEMS, Box
from tests.roles.gpu_expected import EL, expected

FAMILY = sorted(EL)
CUDA = "https://developer.download.nvidia.com/compute/cuda/repos/rhel9/x86_64"


def refused(box: Box, **settings: Any) -> tuple[list[str], list[str]]:
    """What a host is sent before it is refused, as names of scripts, and the sentences; the host beside it goes on."""
    beside = Box("l4", "rocky-10", 2)
    run = drive({"host": box, "beside": beside}, {"host": settings})
    assert run.failed == {"host"}
    assert told(run, "beside") == expected("l4", "rocky-10")
    *before, (verb, text) = told(run, "host")
    assert verb == "refuse"
    return [line[0] for line in before], text.splitlines()


@pytest.mark.parametrize("system", FAMILY)
def test_another_card_than_the_tags_is_refused(system):
    assert refused(Box("l40s", system, pci_id="10de:1eb8")) == (
        [],
        ["gpu_tag says l40s (10de:26b9), the PCI bus has 10de:1eb8 (tag t4): correct the tag"],
    )


@pytest.mark.parametrize("system", FAMILY)
def test_a_card_that_is_missing_is_refused(system):
    before, (line,) = refused(Box("h100-sxm-80gb", system, 7), gpu_count=8)
    assert before == []
    assert line.startswith("gpu_count says 8, the PCI bus has 7 h100-sxm-80gb (0000:10:00.0, ")


NEXT = {"9": "5.14.0-611.5.1.el9_7.x86_64", "10": "6.12.0-124.8.1.el10_1.x86_64"}
NO_HEADERS = (
    "the kernel of the next boot {kernel} has no kernel-devel-{kernel} in the archive, so it would have no {module} "
    "module: install and boot a kernel that the distribution still carries"
)


def two_kernels(tag: str, system: str, *, lists: bool) -> tuple[Box, str]:
    kernel = NEXT[system.partition("-")[2]]
    gone = (f"kernel-devel-{kernel}",)
    return Box(tag, system, kernels=[SYSTEMS[system][3], kernel], gone=gone, lists=lists), kernel


@pytest.mark.parametrize("system", FAMILY)
@pytest.mark.parametrize(("tag", "module"), [("l40s", "nvidia"), ("v100-32gb-sxm", "nvidia"), ("mi300x", "amdgpu")])
def test_the_next_kernel_needs_headers_as_much_as_the_running_one(system, tag, module):
    box, kernel = two_kernels(tag, system, lists=True)
    assert refused(box) == ([], [NO_HEADERS.format(kernel=kernel, module=module)])


def test_a_host_without_package_lists_is_refused_once_it_has_them():
    box, kernel = two_kernels("l40s", "rhel-10", lists=False)
    box.gone += ("kernel-devel-matched",)
    box.packages["kernel-devel-matched"] = "1-1"
    before, lines = refused(box)
    assert before == ["repository-rpm.sh", "repository-rpm.sh", "refresh-rpm.sh"]
    assert NO_HEADERS.format(kernel=kernel, module="nvidia") in lines


@pytest.mark.parametrize("system", FAMILY)
@pytest.mark.parametrize(("tag", "module"), [("l40s", "nvidia"), ("mi300x", "amdgpu")])
def test_secure_boot_is_refused_where_the_module_is_built(system, tag, module):
    before, (line,) = refused(Box(tag, system, secure_boot=True))
    assert before == []
    assert line == (
        f"Secure Boot is on and {module} is built on the host by DKMS: the firmware would refuse it. Switch Secure "
        "Boot off in the firmware's set-up, or set secure_boot = 'mok' and enrol the host's own key: `mokutil --import "
        "/var/lib/dkms/mok.pub`, then confirm at the console during the next boot"
    )


def test_secure_boot_with_a_key_that_is_not_enrolled_is_refused_as_well():
    before, (line,) = refused(Box("l40s", "rhel-9", secure_boot=True), secure_boot="mok")
    assert before == []
    assert line.startswith("Secure Boot is on and the host's own key is not enrolled: `mokutil --import /var/lib/dkms/")


@pytest.mark.parametrize("system", FAMILY)
@pytest.mark.parametrize(
    ("tag", "rivals"),
    [
        ("l40s", "akmod-nvidia, xorg-x11-drv-nvidia-cuda"),
        ("mi300x", "amdgpu-install"),
        ("v100-32gb-sxm", "akmod-nvidia"),
    ],
)
def test_somebody_elses_driver_is_refused_with_the_command_that_removes_it(system, tag, rivals):
    names = rivals.split(", ")
    remove = f"`dnf remove {' '.join(names)}`"
    assert refused(Box(tag, system, packages=dict.fromkeys(names, "1-1"))) == (
        [],
        [f"{rivals} of another driver for these cards installed: remove with {remove}, then run again"],
    )


def test_a_driver_that_no_package_owns_is_refused():
    before, (line,) = refused(Box("l40s", "rocky-9", run_file=True))
    assert before == []
    assert line.startswith("NVIDIA's .run installer has put a driver here that no package owns")


def test_all_that_is_wrong_is_told_at_once():
    box = Box("l40s", "rhel-9", 1, secure_boot=True, run_file=True, packages={"akmod-nvidia": "1-1"})
    before, lines = refused(box, gpu_count=4)
    assert before == []
    assert [line.split(" ")[0] for line in lines] == ["gpu_count", "NVIDIA's", "akmod-nvidia", "Secure"]


def test_somebody_elses_definition_of_the_repository_is_refused():
    text = f"[cuda-rhel9-x86_64]\nname=cuda\nbaseurl={CUDA}\nenabled=1\n"
    before, (line,) = refused(Box("l40s", "rhel-9", others={"/etc/yum.repos.d/cuda-rhel9.repo": (text, "644")}))
    assert before == []
    assert line.startswith(f"/etc/yum.repos.d/cuda-rhel9.repo defines the repository {CUDA}/ as well")


# What only the package manager knows: the repository and the lists are there by then, and no package was touched.
LISTS = ["repository-rpm.sh", "repository-rpm.sh", "refresh-rpm.sh"]


@pytest.mark.parametrize("system", FAMILY)
@pytest.mark.parametrize("tag", ["l40s", "mi300x"])
def test_a_transaction_that_removes_what_is_not_the_drivers_is_refused(system, tag):
    before, (line,) = refused(Box(tag, system, removes=("site-monitoring",)))
    assert before == LISTS
    assert line == (
        "installing the driver would remove site-monitoring, and these are not the driver's: remove them yourself "
        "if nothing needs them, then run again"
    )


@pytest.mark.parametrize("system", FAMILY)
def test_a_version_that_the_repository_does_not_have_is_refused_with_the_one_it_has(system):
    before, (error, reason) = refused(Box("l40s", system, offers={"nvidia-driver-cuda": "3:595.99.02-1.el"}))
    assert before == LISTS
    assert error == (
        "the driver's packages cannot be installed: No match for argument: nvidia-driver-cuda-580.178.04; "
        "Error: Unable to find a match: nvidia-driver-cuda-580.178.04"
    )
    assert reason == "nvidia-driver-cuda is wanted in version 580.178.04; the repositories have 595.99.02-1.el"


@pytest.mark.parametrize("system", FAMILY)
def test_a_library_of_another_version_is_refused(system):
    before, lines = refused(Box("l40s", system, offers={"libnvidia-ml": "3:595.99.02-1.el"}))
    assert (before, lines) == (LISTS, ["libnvidia-ml would be of version 595.99.02, planned is 580.178.04"])


def test_a_stream_of_the_wrong_flavour_hides_the_module_and_is_told():
    # As where a site's own configuration of dnf keeps another stream enabled.
    box = Box("l40s", "rhel-9", gone=("kmod-nvidia-open-dkms",))
    before, (line,) = refused(box)
    assert before == LISTS
    assert "No match for argument: kmod-nvidia-open-dkms-580.178.04" in line


@pytest.mark.parametrize("system", FAMILY)
def test_a_reboot_that_is_not_allowed_is_refused_after_the_packages_and_asked_for_again(system):
    box = Box("mi300x", system)
    for _ in range(2):
        before, (line,) = refused(box, allow_reboot=False)
        assert before[-1] == "load-driver.sh"
        assert line.startswith("the driver takes a reboot: amdgpu is loaded, and cannot be taken out; reboot the host")
    box.start(again=True)
    run = drive({"host": box}, {"host": {"allow_reboot": False}})
    assert [line[0] for line in told(run, "host")] == ["verify-driver.sh"]


def test_a_kernel_that_is_still_to_be_booted_is_not_booted_without_leave():
    box = Box("arc-b580", "ubuntu-24.04")
    for _ in range(2):
        before, (line,) = refused(box, allow_reboot=False)
        assert before[-1] == "load-driver.sh"
        assert line.startswith(
            f"the driver takes a reboot: Linux 6.8.0-88-generic does not drive GPU 0000:10:00.0, {HWE} is installed"
        )


def test_a_host_that_comes_back_with_the_old_kernel_is_not_rebooted_again():
    box = Box("arc-b580", "ubuntu-24.04", stuck=True)
    for sent in (1, 0):
        run = drive({"host": box, "beside": Box("l4", "rocky-10", 2)}, {})
        assert run.failed == {"host"}
        lines = [line[0] for line in told(run, "host")]
        assert (lines.count("systemd-run"), lines[-1], box.boot) == (sent, "load-driver.sh", 2)


# --------------------------------------------------------------------------------------------------- several in one run

UNLIKE = {
    "apt": ("l40s", "debian-12", {"container_engines": ["docker"]}),
    "signed": ("rtx-4090", "ubuntu-24.04", {}),
    "dnf": ("b200", "rhel-9", {"container_engines": ["docker"]}),
    "proprietary": ("v100-32gb-sxm", "rocky-10", {}),
    "amd": ("mi300x", "rhel-10", {}),
    "intel": ("arc-b580", "ubuntu-24.04", {}),
    "cpu": ("cpu", "debian-forky", {}),
    "apple": ("apple-m4-max", "macos-26", {}),
    "refused": ("mi300x", "debian-13", {}),
}


def test_unlike_hosts_share_operations_of_one_name_each_in_the_order_of_the_deploy():
    boxes = {name: Box(tag, system, engines={"docker"}) for name, (tag, system, _) in UNLIKE.items()}
    settings = {name: entry[2] for name, entry in UNLIKE.items()}
    run = drive(boxes, settings)
    assert run.failed == {"refused"}
    found, apple = named(run), ORDER[-1]
    # pyinfra takes an operation as early as the hosts that have it allow, and Apple's host has nothing in between.
    assert found.index(ORDER[0]) < found.index(apple)
    assert [name for name in found if name != apple] == ORDER[:-1]
    lengths = {name: len(operations) for name, operations in run.operations.items()}
    assert lengths == {
        "apt": 11,
        "signed": 7,
        "dnf": 11,
        "proprietary": 7,
        "amd": 7,
        "intel": 7,
        "cpu": 1,
        "apple": 2,
        "refused": 1,
    }
    again = drive({name: box for name, box in boxes.items() if name != "refused"}, settings)
    assert (again.failed, {name: told(again, name) for name in again.changes}) == (
        set(),
        {name: [] for name in boxes if name != "refused"},
    )
    assert {name for name, box in boxes.items() if box.digest} == {
        name for name, (tag, _, _) in UNLIKE.items() if CATALOG.gpus[tag].vendor not in {"none", "apple"}
    } - {"refused"}


def test_a_host_that_fails_in_the_middle_holds_up_no_other():
    # DKMS is installed, and the kernel's headers are gone before the module is loaded.
    broken = Box("l4", "rhel-9", kernels=["5.14.0-503.el9.x86_64", "5.14.0-570.el9.x86_64"])
    broken.headers = ["5.14.0-503.el9.x86_64", "5.14.0-570.el9.x86_64"]
    drop = broken.do_driver_rpm

    def lose_headers(*words: str) -> None:
        drop(*words)
        broken.headers.clear()

    broken.do_driver_rpm = lose_headers  # type: ignore[method-assign]
    run = drive({"broken": broken, "beside": Box("l4", "rhel-9", 2)})
    assert run.failed == {"broken"}
    assert told(run, "broken")[-1][0] == "load-driver.sh"
    assert told(run, "beside") == expected("l4", "rhel-9")
    assert broken.digest == ""
