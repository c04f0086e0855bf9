"""llama.cpp's split by layers: which GPU holds which layers, and what the fullest one holds."""

from __future__ import annotations

import bisect
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackserve.planning.gguf_split import layer_sums, runs
from rackserve.planning.gguf_weights import GgufWeights
from rackserve.planning.memory import context_bytes
from tests.planning.sizing import request, sized

GIB = 1024**3
RECORDED = Path(__file__).resolve().parents[2] / "bench" / "accuracy" / "results" / "llamacpp.json"
# Names in the recorded files, and in the catalogue.
MODELS = {
    "Llama 3.1 8B": "llama-3.1-8b-instruct",
    "Qwen3 30B A3B": "qwen3-30b-a3b",
    "DeepSeek V3": "deepseek-v3",
    "Command R 35B": "command-r-35b",
    "Gemma 4 26B A4B": "gemma-4-26b-a4b-it",
    "gpt-oss 20B": "gpt-oss-20b",
}


def llamacpp_places(on_gpus: int, gpus: int) -> list[int]:
    """The GPU of each layer and of the output matrix as load_tensors finds it, upper_bound over equal splits."""
    splits = [(number + 1) / gpus for number in range(gpus)]
    return [bisect.bisect_right(splits, entry / (on_gpus + 1)) for entry in range(on_gpus + 1)]


@given(layers=st.integers(1, 128), part=st.floats(0, 1), gpus=st.integers(1, 16))
def test_every_layer_is_where_llamacpp_puts_it(layers, part, gpus):
    on_gpus = max(1, int(layers * part))
    found = {}
    for run in runs(layers, on_gpus, gpus):
        found |= dict.fromkeys(range(run.first, run.end), run)
        found |= {layers: run} if run.output else {}
    assert sorted(found) == list(range(layers - on_gpus, layers + 1))
    places = llamacpp_places(on_gpus, gpus)
    groups = [[entry for entry, place in enumerate(places, layers - on_gpus) if place == gpu] for gpu in range(gpus)]
    ours = [list(range(run.first, run.end)) + ([layers] if run.output else []) for run in runs(layers, on_gpus, gpus)]
    assert ours == [group for group in groups if group]


def test_the_first_of_eight_gpus_holds_six_of_forty_layers_and_the_last_the_output():
    found = list(runs(40, 40, 8))
    assert [run.end - run.first for run in found] == [6, 5, 5, 5, 5, 5, 5, 4]
    assert [run.output for run in found] == [False] * 7 + [True]


def test_the_fullest_gpu_counts_and_not_the_average():
    # 6 of 40 layers with 8 slots of 92160 tokens: 135 GiB of context, which an H200 has not.
    long = sized("h200", model="command-r-35b", runtime="llama.cpp", gpus=8, concurrency=8, max_model_len=92160)
    assert not long.fits
    assert long.used_bytes / GIB == pytest.approx(139, abs=0.5)
    chosen = sized("h200", model="command-r-35b", runtime="llama.cpp", gpus=8, concurrency=8)
    assert chosen.fits
    assert chosen.max_model_len == 78336


@pytest.mark.parametrize(("recorded", "listed"), MODELS.items())
@pytest.mark.parametrize("gpus", [2, 3, 8])
def test_weights_of_the_fullest_gpu_are_those_of_the_files(recorded, listed, gpus):
    shape = request(model=listed).shape
    for name, file in json.loads(RECORDED.read_text("utf-8"))["models"][recorded]["tensor_bytes"].items():
        layers = file["layers"]
        sums = layer_sums(shape, name, GgufWeights(sum(layers), 0, 0, tied=False))
        places = list(runs(len(layers), len(layers), gpus))
        true = max(sum(layers[run.first : run.end]) for run in places)
        planned = max(sums.weights_of(run.first, run.end) for run in places)
        assert planned == pytest.approx(true, rel=0.01), name


@pytest.mark.parametrize("model", ["llama-3.1-8b-instruct", "gemma-3-27b-it", "deepseek-v3", "qwen3-30b-a3b"])
def test_the_runs_together_are_the_whole_context(model):
    shape = request(model=model).shape
    sums = layer_sums(shape, "Q8_0", GgufWeights(10**9, 0, 0, tied=False))
    cells = sums.cells("q8_0", 5000, 512)
    parts = [sums.context_of(run.first, run.end, cells, 3) for run in runs(len(shape.layers), len(shape.layers), 5)]
    assert sum(parts) == pytest.approx(context_bytes(shape, "q8_0", 5000, 3, 512), rel=1e-9)


def test_what_stays_in_ram_are_the_first_layers():
    # The first three of DeepSeek V3's 61 layers are dense and small: far less stays behind than three average ones.
    asked = {"model": "deepseek-v3", "runtime": "llama.cpp", "gpus": 4, "max_model_len": 4096, "total_mib": 115_000}
    found = sized("h200", **asked, host_mib=900_000)
    assert found.fits
    assert found.offload is not None
    left = found.offload.layers - found.offload.gpu_layers
    assert left > 3
    whole = sized("h200", **asked | {"gpus": 8}).weights_bytes * 8
    assert found.offload.host_bytes < (left - 2) * whole / 61
