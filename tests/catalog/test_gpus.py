"""The GPU catalogue: every tag that has to be there, and what has to hold for each of them."""

from __future__ import annotations

import datetime as dt
import itertools
from pathlib import Path

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.domain.gpu import Gpu

GPUS = tuple(load_catalog().gpus.values())
NVIDIA = tuple(gpu for gpu in GPUS if gpu.vendor == "nvidia")
ON_THE_BUS = tuple(gpu for gpu in GPUS if gpu.vendor not in {"none", "apple"})

REQUIRED = (
    *("cpu", "rtx-3060-12gb", "rtx-3090", "rtx-4060-ti-16gb", "rtx-4070", "rtx-4090", "rtx-5090"),
    *("arc-b580", "apple-m4-max", "apple-m3-ultra"),
    *("l40s", "rtx-6000-ada", "a100-80gb-sxm", "h100-pcie", "h200", "b200", "mi300x"),
)
PCI_VENDORS = {"nvidia": "10de", "amd": "1002", "intel": "8086"}
# CDNA3, CDNA4 and RDNA4.
AMD_WITH_FP8 = {"gfx942", "gfx950", "gfx1200", "gfx1201"}
OWN = """
[gpus.rtx-4090-48gb]
name = "NVIDIA GeForce RTX 4090"
vendor = "nvidia"
vram_mib = 49140
target = "8.9"
source = "nvidia-smi on our own host"
date = "2026-11-24"
"""


def every(gpus: tuple[Gpu, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("gpu", gpus, ids=lambda gpu: gpu.tag)


def gpu_of(tag: str) -> Gpu:
    return load_catalog().gpus[tag]


# which there are


@pytest.mark.parametrize("tag", [*REQUIRED, "a100-40gb", "h100-sxm-80gb"])
def test_a_tag_that_inventories_use_is_listed(tag):
    assert tag in load_catalog().gpus


def test_no_pci_id_stands_for_two_tags():
    for one, other in itertools.combinations(GPUS, 2):
        assert not set(one.pci_ids) & set(other.pci_ids), (one.tag, other.tag)


@every(GPUS)
def test_an_entry_names_no_pci_id_twice(gpu):
    assert len(set(gpu.pci_ids)) == len(gpu.pci_ids)


@pytest.mark.parametrize(
    ("tags", "name"),
    [
        (("rtx-4060-ti-8gb", "rtx-4060-ti-16gb"), "NVIDIA GeForce RTX 4060 Ti"),
        (("rtx-3080-10gb", "rtx-3080-12gb"), "NVIDIA GeForce RTX 3080"),
    ],
)
def test_cards_of_one_name_are_told_apart_by_their_pci_ids(tags, name):
    one, other = (gpu_of(tag) for tag in tags)
    assert {one.name, other.name} == {name}
    assert one.vram_mib < other.vram_mib


@pytest.mark.parametrize(
    ("pci_id", "tag"),
    [
        ("10de:2803", "rtx-4060-ti-8gb"),
        ("10de:2805", "rtx-4060-ti-16gb"),
        ("10de:2504", "rtx-3060-12gb"),
        ("10de:24c7", None),  # the RTX 3060 with 8 GB
        ("10de:2685", None),  # the RTX 4090 D
        ("10de:20b0", "a100-40gb-sxm"),
        ("10de:20f1", "a100-40gb"),
        ("10de:20b2", "a100-80gb-sxm"),
        ("10de:20b5", "a100-80gb-pcie"),
        ("10de:2330", "h100-sxm-80gb"),
        ("10de:2331", "h100-pcie"),
        ("10de:2335", "h200"),
        ("10de:233b", "h200-nvl"),
        ("10de:2901", "b200"),
        ("10de:2909", None),  # the board with 168 GB
        ("1002:74a1", "mi300x"),
        ("1002:74a5", "mi325x"),
        ("8086:e20b", "arc-b580"),
        ("8086:e20c", None),  # the Arc B570
    ],
)
def test_a_pci_id_means_the_card_it_is_sold_as(pci_id, tag):
    assert [gpu.tag for gpu in GPUS if pci_id in gpu.pci_ids] == ([tag] if tag else [])


# what is said of each


@every(GPUS)
def test_every_entry_has_a_source_and_an_iso_date(gpu):
    assert gpu.source.strip()
    assert dt.date.fromisoformat(gpu.date) >= dt.date(2026, 11, 23)


@every(ON_THE_BUS)
def test_a_card_says_its_memory_ids_target_formats_and_bandwidth(gpu):
    assert gpu.vram_mib >= 8000
    assert gpu.pci_ids
    assert {pci_id.split(":")[0] for pci_id in gpu.pci_ids} == {PCI_VENDORS[gpu.vendor]}
    assert gpu.target
    assert "fp16" in gpu.formats
    assert gpu.bandwidth_gb_s is not None
    assert gpu.link != "none"
    assert gpu.unified_share == 0


@every(ON_THE_BUS)
def test_a_runtime_sees_no_more_than_the_card_has(gpu):
    assert 0.93 * gpu.vram_mib < gpu.usable_mib <= gpu.vram_mib


@every(NVIDIA)
def test_nvidias_driver_keeps_some_memory_for_itself(gpu):
    assert gpu.usable_mib < gpu.vram_mib


@every(NVIDIA)
def test_an_nvidia_card_says_which_driver_and_kernel_module_it_needs(gpu):
    assert gpu.driver_min is not None
    assert gpu.kernel_module != "none"


@every(tuple(gpu for gpu in GPUS if gpu.vendor != "nvidia"))
def test_only_nvidia_cards_have_a_kernel_module_flavour_and_nvswitches(gpu):
    assert (gpu.kernel_module, gpu.nvswitch) == ("none", False)


@every(NVIDIA)
def test_the_kernel_module_follows_the_generation(gpu):
    capability = gpu.compute_capability
    if capability >= (10, 0):
        expected = "open"
    elif capability >= (7, 5):
        expected = "either"
    else:
        expected = "proprietary"
    assert gpu.kernel_module == expected


@every(NVIDIA)
def test_no_card_is_older_than_its_generations_first_driver(gpu):
    floors = [((10, 0), 570), ((8, 9), 525), ((8, 0), 450), ((7, 0), 418)]
    floor = next(branch for capability, branch in floors if gpu.compute_capability >= capability)
    assert int(gpu.driver_min.split(".")[0]) >= floor


@every(tuple(gpu for gpu in GPUS if gpu.vendor == "intel"))
def test_an_intel_card_says_which_kernel_it_needs(gpu):
    assert [int(part) for part in gpu.driver_min.split(".")] >= [6, 2]


@every(GPUS)
def test_fp8_is_claimed_only_where_the_silicon_has_it(gpu):
    has_it = gpu.target in AMD_WITH_FP8 or (gpu.compute_capability or (0, 0)) >= (8, 9)
    assert ("fp8" in gpu.formats) == has_it


@every(GPUS)
def test_four_bit_floats_are_claimed_only_where_the_silicon_has_them(gpu):
    blackwell = (gpu.compute_capability or (0, 0)) >= (10, 0)
    assert ("nvfp4" in gpu.formats) == blackwell
    assert ("mxfp4" in gpu.formats) == (blackwell or gpu.target == "gfx950")


@every(NVIDIA)
def test_bf16_begins_with_ampere(gpu):
    assert ("bf16" in gpu.formats) == (gpu.compute_capability >= (8, 0))


@every(tuple(gpu for gpu in GPUS if gpu.nvswitch))
def test_boards_with_nvswitches_join_data_centre_cards_by_nvlink(gpu):
    assert (gpu.link, gpu.data_centre) == ("nvlink", True)


@every(tuple(gpu for gpu in GPUS if gpu.vendor == "apple"))
def test_an_apple_chip_has_a_share_of_the_hosts_memory_and_none_of_its_own(gpu):
    assert (gpu.vram_mib, gpu.usable_mib, gpu.unified_share) == (0, 0, 0.75)
    assert (gpu.link, gpu.target, gpu.pci_ids) == ("none", "metal3", ())
    assert gpu.bandwidth_gb_s is not None


def test_a_host_without_a_gpu_has_none_of_it():
    cpu = gpu_of("cpu")
    assert (cpu.vendor, cpu.vram_mib, cpu.usable_mib, cpu.formats, cpu.pci_ids) == ("none", 0, 0, (), ())
    assert cpu.link == "none"


@pytest.mark.parametrize("tag", ["l40s", "l40", "a40"])
def test_a_data_centre_card_with_gddr6_is_listed_with_ecc_on(tag):
    assert gpu_of(tag).vram_mib == 46068


# the operator's own


def own_file(folder: Path, text: str) -> str:
    path = folder / "own.toml"
    path.write_text(text)
    return str(path)


def test_a_small_entry_of_ones_own_is_enough(tmp_path):
    gpu = load_catalog((own_file(tmp_path, OWN),)).gpus["rtx-4090-48gb"]
    assert (gpu.vram_mib, gpu.usable_mib, gpu.compute_capability) == (49140, 48157, (8, 9))
    assert (gpu.link, gpu.formats, gpu.pci_ids, gpu.bandwidth_gb_s) == ("pcie", (), (), None)


def test_an_entry_of_ones_own_replaces_ours(tmp_path):
    text = OWN.replace("rtx-4090-48gb", "rtx-6000-ada").replace("49140", "46068")
    assert load_catalog((own_file(tmp_path, text),)).gpus["rtx-6000-ada"].vram_mib == 46068
    assert gpu_of("rtx-6000-ada").vram_mib == 49140


@pytest.mark.parametrize("broken", [OWN.replace('target = "8.9"\n', ""), OWN + "runtime_mib = 49141\n"])
def test_an_entry_that_cannot_be_true_is_refused(tmp_path, broken):
    with pytest.raises(InputError) as caught:
        load_catalog((own_file(tmp_path, broken),))
    assert [problem.key for problem in caught.value.problems] == ["gpus.rtx-4090-48gb"]
