"""gpu-in-use, run as a program over what a driver tells of a service's processes."""

from __future__ import annotations

import pytest

from tests.libexec.helper_host import UNIT, HelperHost, assert_refused

GROUP = f"system.slice/system-rackserve.slice/{UNIT}"
FIRST, SECOND = "0000:41:00.0", "0000:c1:00.0"
MIB = 1 << 20


@pytest.fixture
def planned(host: HelperHost) -> HelperHost:
    """Process 100 is the service's main one, 101 its child, 102 in a group below, 500 another service's."""
    host.write("proc/100/cgroup", f"0::/{GROUP}\n")
    for group, pids in ((GROUP, "100\n101\n"), (f"{GROUP}/engine", "102\n"), ("system.slice/other.service", "500\n")):
        host.write(f"sys/fs/cgroup/{group}/cgroup.procs", pids)
    return host


def plan(host: HelperHost, vendor: str, gpu_mib: int = 12000) -> None:
    host.gpus((FIRST, "GPU-a"), (SECOND, "GPU-b"), vendor=vendor)
    host.service(vendor=vendor, gpus=[0, 1], gpu_mib=gpu_mib)


def smi(host: HelperHost, *lines: str) -> None:
    plan(host, "nvidia")
    text = "\n".join(lines)
    log = host.bin / "smi.log"
    host.standin("nvidia-smi", f'#!/bin/sh\necho "$*" >"{log}"\ncat <<"EOF"\n{text}\nEOF\n')


def held(host: HelperHost) -> list[str]:
    """What the answer says is held on each card that holds too little."""
    done = host.run("gpu-in-use", MAINPID="100")
    lines = done.stderr.splitlines()
    assert done.returncode == (1 if lines else 0)
    assert all("the runtime computes on the CPU" in line for line in lines)
    return [line.partition(", planned")[0].removeprefix("gpu-in-use: chat holds ") for line in lines]


def test_memory_on_every_card_is_enough_and_is_summed_over_processes(planned):
    smi(planned, "GPU-a, 101, 12000", "GPU-b, 100, 500", "GPU-b, 102, 11500")
    assert held(planned) == []
    query = "--query-compute-apps=gpu_uuid,pid,used_memory --format=csv,noheader,nounits\n"
    assert (planned.bin / "smi.log").read_text() == query


def test_each_card_has_to_hold_its_share(planned):
    smi(planned, "GPU-a, 101, 24000", "GPU-b, 102, 300", "GPU-c, 100, 24000")
    assert held(planned) == [f"300 MiB on GPU 1 ({SECOND})"]


def test_a_service_on_the_cpu_holds_nothing_whatever_others_hold(planned):
    smi(planned, "GPU-a, 500, 24000", "GPU-b, 1001, 24000")
    assert held(planned) == [f"0 MiB on GPU 0 ({FIRST})", f"0 MiB on GPU 1 ({SECOND})"]


@pytest.mark.parametrize("untold", ["[N/A]", "N/A", "[Not Supported]", "[Insufficient Permissions]"])
def test_where_the_driver_does_not_tell_how_much_it_is_enough_to_be_there(planned, untold):
    smi(planned, f"GPU-a, 101, {untold}", f"GPU-b, 102, {untold}")
    assert held(planned) == []
    smi(planned, f"GPU-a, 101, {untold}", f"GPU-b, 500, {untold}")
    assert held(planned) == [f"0 MiB on GPU 1 ({SECOND})"]


@pytest.mark.parametrize("line", ["", "No running processes found", "GPU-a", ",,,,"])
def test_other_lines_are_no_memory(planned, line):
    smi(planned, line)
    assert len(held(planned)) == 2


def test_an_nvidia_smi_that_fails_is_told_in_its_words(planned):
    smi(planned)
    planned.standin("nvidia-smi", "#!/bin/sh\necho Failed to initialize NVML: Unknown Error\nexit 255\n")
    assert_refused(planned.run("gpu-in-use", MAINPID="100"), "Failed to initialize NVML: Unknown Error")


def test_an_nvidia_smi_that_hangs_or_is_missing_is_told(planned):
    smi(planned)
    planned.quick("gpu-in-use", SMI_S=0.2)
    planned.standin("nvidia-smi", "#!/bin/sh\nexec sleep 5\n")
    assert_refused(planned.run("gpu-in-use", MAINPID="100"), "nvidia-smi does not tell who uses the GPUs")
    (planned.bin / "nvidia-smi").unlink()
    done = planned.run("gpu-in-use", MAINPID="100", PATH="/nowhere:/usr/bin")
    assert_refused(done, "nvidia-smi does not tell who uses the GPUs")


# AMD


def kfd(host: HelperHost, node: int, gpu_id: int, location_id: int, **mib: int) -> None:
    topology = f"sys/class/kfd/kfd/topology/nodes/{node}"
    host.write(f"{topology}/gpu_id", f"{gpu_id}\n")
    host.write(f"{topology}/properties", f"cpu_cores_count 0\nlocation_id {location_id}\ndomain 0\nname\n")
    for pid, held_mib in mib.items():
        host.write(f"sys/class/kfd/kfd/proc/{pid[1:]}/vram_{gpu_id}", f"{held_mib * MIB}\n")


def test_rocms_own_numbers_are_taken_by_the_cards_places(planned):
    plan(planned, "amd")
    kfd(planned, 0, 0, 0)
    kfd(planned, 1, 51545, 0x4100, p100=12000, p500=1)
    kfd(planned, 2, 7000, 0xC100, p101=11000, p102=1000)
    assert held(planned) == []
    kfd(planned, 2, 7000, 0xC100, p101=11000, p102=999)
    assert held(planned) == [f"11999 MiB on GPU 1 ({SECOND})"]


def test_partitions_of_a_card_are_summed_however_they_are_numbered(planned):
    plan(planned, "amd")
    kfd(planned, 1, 10, 0x4100, p100=6000)
    kfd(planned, 2, 11, 0x4101, p100=6000)
    kfd(planned, 3, 20, 0xC100, p101=6000)
    kfd(planned, 4, 21, 0xC100 | 1 << 28, p101=5000)
    assert held(planned) == [f"11000 MiB on GPU 1 ({SECOND})"]


def test_a_card_that_is_fenced_off_is_passed_over(planned):
    plan(planned, "amd")
    (planned.root / "sys/class/kfd/kfd/topology/nodes/7").mkdir(parents=True)
    assert len(held(planned)) == 2


def client(host: HelperHost, pid: int, fd: int, address: str, number: int, **memory: str) -> None:
    lines = ["pos:\t0", "flags:\t02100002", "drm-driver:\tx", f"drm-client-id:\t{number}", f"drm-pdev:\t{address}"]
    lines += [f"drm-{key.replace('_', '-')}:\t{value}" for key, value in memory.items()]
    host.write(f"proc/{pid}/fdinfo/{fd}", "\n".join(lines) + "\n")


def test_vulkan_on_amds_cards_is_seen_by_the_graphics_driver(planned):
    plan(planned, "amd")
    for number, address in enumerate((FIRST, SECOND)):
        client(planned, 101, number, address, 7 + number, memory_vram="12288000 KiB", memory_gtt="9 KiB")
    assert held(planned) == []


def test_what_both_drivers_of_amd_tell_is_not_added(planned):
    plan(planned, "amd")
    kfd(planned, 1, 10, 0x4100, p100=8000)
    kfd(planned, 2, 20, 0xC100, p100=12000)
    client(planned, 100, 3, FIRST, 7, resident_vram="8000 MiB", memory_vram="8192000 KiB")
    assert held(planned) == [f"8000 MiB on GPU 0 ({FIRST})"]


# Intel


def test_a_client_is_counted_once_however_many_files_and_processes_share_it(planned):
    plan(planned, "intel")
    for pid, fd in ((100, 3), (100, 4), (101, 3)):
        client(planned, pid, fd, FIRST, 1, total_vram0="8 MiB", resident_vram0="7000 MiB", resident_gtt="90000 MiB")
    client(planned, 102, 9, FIRST, 2, total_vram0=str(5000 * MIB))
    client(planned, 102, 8, SECOND, 2, total_vram0="0", resident_vram0="0")
    client(planned, 500, 8, SECOND, 3, resident_vram0="24000 MiB")
    assert held(planned) == [f"0 MiB on GPU 1 ({SECOND})"]


def test_memory_that_was_only_reserved_does_not_count(planned):
    plan(planned, "intel")
    client(planned, 100, 3, FIRST, 1, resident_vram0="100 MiB", total_vram0="24000 MiB")
    client(planned, 100, 4, SECOND, 1, total_vram0="24000 MiB", resident_vram0="100 MiB")
    assert held(planned) == [f"100 MiB on GPU 0 ({FIRST})", f"100 MiB on GPU 1 ({SECOND})"]


def test_both_tiles_of_a_card_and_both_drivers_names_count(planned):
    plan(planned, "intel")
    client(planned, 100, 3, FIRST, 1, resident_vram0="6000 MiB", resident_vram1="6000 MiB")
    client(
        planned, 100, 4, SECOND, 1, resident_local0="12000 MiB", resident_system0="1 MiB", total_stolen_local0="9 MiB"
    )
    assert held(planned) == []


def test_an_old_i915_that_tells_no_memory_is_enough_to_be_open(planned):
    plan(planned, "intel")
    client(planned, 100, 3, FIRST, 1)
    assert held(planned) == [f"0 MiB on GPU 1 ({SECOND})"]


# what it goes by


def test_nothing_is_asked_where_nothing_is_to_be_checked(host):
    assert host.run("gpu-in-use").returncode == 0
    assert host.systemctl_calls == []


def test_of_a_service_that_runs_systemd_tells_the_process(planned):
    smi(planned, "GPU-a, 101, 12000", "GPU-b, 102, 12000")
    planned.state(pid=100)
    assert planned.run("gpu-in-use").returncode == 0
    planned.state("inactive", "dead", pid=0)
    assert_refused(planned.run("gpu-in-use"), f"process 0 of {UNIT} has exited")


def test_a_main_process_in_a_group_below_its_units_stands_for_the_unit(planned):
    smi(planned, "GPU-a, 101, 12000", "GPU-b, 102, 12000")
    planned.write("proc/102/cgroup", f"0::/{GROUP}/engine\n")
    assert planned.run("gpu-in-use", MAINPID="102").returncode == 0


def test_cards_that_are_not_there_are_told(planned):
    smi(planned)
    planned.service(vendor="nvidia", gpus=[0, 2], gpu_mib=1)
    assert_refused(planned.run("gpu-in-use", MAINPID="100"), "there is no GPU 2: gpu-ready has found 2")
    (planned.root / "run/rackserve/gpus.json").unlink()
    assert_refused(planned.run("gpu-in-use", MAINPID="100"), "see `systemctl status gpu-ready`")


def test_a_vendor_without_gpus_is_a_broken_file(planned):
    planned.service(vendor="none", gpus=[0], gpu_mib=1)
    assert_refused(planned.run("gpu-in-use", MAINPID="100"), "'none' is no vendor of GPUs", 66)
