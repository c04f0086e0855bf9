"""Every limit that was planned is on the command line, under the runtime's own name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import HostPlan
from rackserve.runtimes.commands import argv
from rackserve.runtimes.endpoint import Endpoint, endpoint_of
from rackserve.settings import load_hosts
from tests.planning.sizing import sized

# Which versions have which option: dumped from the option tables of 19 vLLM releases, 0.8.5 to 0.33.0.
KNOWN = Path(__file__).parent / "vllm-options.json"


def pairs(words: tuple[str, ...]) -> dict[str, str]:
    return {word: words[index + 1] for index, word in enumerate(words[:-1]) if word.startswith("--")}


def test_vllm_is_told_length_sequences_batch_share_and_split():
    words = argv(sized(gpus=2, max_model_len=16384, kv_cache_dtype="fp8"), Endpoint("chat", "org/model"))
    told = pairs(words)
    assert words[:3] == ("vllm", "serve", "org/model")
    assert told["--max-model-len"] == "16384"
    assert (told["--max-num-seqs"], told["--max-num-batched-tokens"]) == ("1024", "8192")
    assert told["--gpu-memory-utilization"] == "0.85"
    assert (told["--tensor-parallel-size"], told["--pipeline-parallel-size"]) == ("2", "1")
    assert told["--kv-cache-dtype"] == "fp8"
    assert "--quantization" not in words


def test_processes_on_several_cards_of_a_host_meet_on_the_loopback_interface():
    for runtime in ("vllm", "sglang"):
        (one,), (two,) = (launched(runtime, gpus).gpu_services for gpus in (1, 2))
        assert "NCCL_SOCKET_IFNAME" not in dict(one.launch.environment)
        assert dict(two.launch.environment)["NCCL_SOCKET_IFNAME"] == "=lo"
        assert dict(two.launch.environment)["GLOO_SOCKET_IFNAME"] == "lo"


def launched(runtime: str, gpus: int) -> HostPlan:
    service = {"name": "chat", "model": "qwen3-8b", "runtime": runtime, "gpus": gpus, "max_model_len": 4096}
    (plan,) = plan_hosts(
        load_hosts([("h1", {"gpu_tag": "l40s", "gpu_count": 2, "services": [service]})]), load_catalog()
    )
    assert not plan.errors
    return plan


def test_vllm_converts_only_what_is_not_published_in_fp8():
    model = load_catalog().models["llama-3.1-8b-instruct"]
    published = {checkpoint.quantization: checkpoint.repo for checkpoint in model.checkpoints}
    for offered, converted in ((("none", "fp8"), False), (("none",), True)):
        plan = sized(model="llama-3.1-8b-instruct", quantization="fp8", offered=offered)
        words = argv(plan, endpoint_of(plan, "chat", model, "127.0.0.1", 8001))
        assert ("--quantization" in words) is converted
        assert plan.converted is converted
        assert words[2] == ("meta-llama/Llama-3.1-8B-Instruct" if converted else published["fp8"])


def test_tensorrt_serves_fp8_from_a_checkpoint_in_it_only():
    assert sized(runtime="tensorrt-llm", offered=("none",)).quantization == "none"
    assert sized(runtime="tensorrt-llm", offered=("none", "fp8")).quantization == "fp8"


def test_prefix_caching_that_is_off_is_said_to_be_off():
    plan = sized(max_model_len=4096, shared_prompts=False)
    assert "--no-enable-prefix-caching" in argv(plan, Endpoint("chat", "m"))
    assert "--disable-radix-cache" in argv(
        sized(runtime="sglang", max_model_len=4096, shared_prompts=False), Endpoint("chat", "m")
    )


def test_sglang_is_told_its_static_share():
    plan = sized(runtime="sglang")
    told = pairs(argv(plan, Endpoint("chat", "m")))
    assert told["--mem-fraction-static"] == f"{plan.utilization:g}"
    assert told["--context-length"] == str(plan.max_model_len)


def test_tensorrt_is_told_the_share_of_what_is_free():
    plan = sized(runtime="tensorrt-llm")
    assert pairs(argv(plan, Endpoint("chat", "m")))["--free_gpu_memory_fraction"] == f"{plan.utilization:g}"


def test_llama_server_counts_the_output_matrix_as_a_layer():
    plan = sized("rtx-4090", model="qwen3-8b", runtime="llama.cpp", quantization="Q4_K_M", concurrency=3)
    told = pairs(argv(plan, Endpoint("chat", "/m.gguf")))
    assert told["--n-gpu-layers"] == "37"
    assert told["--ctx-size"] == str(3 * plan.max_model_len)
    assert told["--parallel"] == "3"


def test_ollama_is_told_by_its_environment():
    plan = sized("rtx-4090", model="qwen3-8b", runtime="ollama", quantization="Q4_K_M")
    words = argv(plan, Endpoint("chat", "m", port=8005))
    assert words[0] == "env"
    assert f"OLLAMA_CONTEXT_LENGTH={plan.max_model_len}" in words
    assert "OLLAMA_HOST=127.0.0.1:8005" in words


@pytest.mark.parametrize("version", ["0.19.1", "0.33.0"])
def test_vllm_knows_every_option_in_this_version(version):
    known = json.loads(KNOWN.read_text())
    words = argv(sized(version=version, quantization="fp8"), Endpoint("chat", "m"))
    options = {word for word in words if word.startswith("--")} - {"--enable-prefix-caching"}
    assert {option for option in options if version not in known.get(option, [])} == set()
