"""What trtllm-serve is told, in its command line, its configuration file and its environment."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest

from rackserve.planning.plans import GpuServicePlan
from rackserve.runtimes.commands import argv
from rackserve.runtimes.endpoint import Endpoint
from rackserve.runtimes.launch import Launch
from tests.lab.image.trtllm_serve import arguments, refusal
from tests.planning.sizing import CATALOG, sized
from tests.rendering.fleet import SERVICE, plan_of

# Options of 1.2.1 (commands/serve.py): 1.4 has renamed none of them, and added some.
OPTIONS = {
    *("--host", "--port", "--max_seq_len", "--max_batch_size", "--max_num_tokens", "--tp_size", "--pp_size"),
    *("--fail_fast_on_attention_window_too_large", "--enable_chunked_prefill", "--extra_llm_api_options", "--config"),
}
VERSIONS = ("1.2.1", "1.4.0rc1")


def service_of(tag: str = "l40s", **service: object) -> GpuServicePlan:
    plan = plan_of(tag, "tensorrt-llm", **service)
    assert plan is not None
    (planned,) = plan.gpu_services
    return planned


def launch(tag: str = "l40s", **service: object) -> Launch:
    return service_of(tag, **service).launch


def taken(argv: Sequence[str], tokens: int) -> str:
    """What the stand-in says to a prompt of so many tokens, empty where it takes it."""
    return refusal(arguments(list(argv[1:])), [{"role": "user", "content": "word " * tokens}])


def config(**service: object) -> dict[str, object]:
    ((path, text),) = launch(**service).files
    assert path == "/etc/rackserve/services/chat.trtllm.yaml"
    return json.loads(text)


@pytest.mark.parametrize("version", VERSIONS)
def test_only_options_that_the_version_has_are_said(version):
    argv = launch(runtime_version=version).argv
    assert {word for word in argv if word.startswith("-")} <= OPTIONS
    assert ("--config" in argv) == (version == "1.4.0rc1")


# The whole of a long one does not fit on an L40S.
LONG = {"llama-3.1-8b-instruct": "l40s", "gpt-oss-20b": "l40s", "gemma-3-12b-it": "h200"}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("length", [8192, 16384, 104_857])
@pytest.mark.parametrize("model", LONG)
def test_a_prompt_as_long_as_was_promised_is_taken(model, length, version):
    told = launch(LONG[model], model=model, max_model_len=length, concurrency=1, runtime_version=version)
    assert told.argv[told.argv.index("--max_seq_len") + 1] == str(length)
    assert taken(told.argv, length - 1) == ""


@pytest.mark.parametrize("tag", ["a100-80gb-sxm", "h200", "b300", "rtx-pro-6000-blackwell-server"])
@pytest.mark.parametrize("model", sorted(CATALOG.models))
def test_what_size_prints_takes_the_longest_prompt_of_every_model(model, tag):
    planned = sized(tag, model, runtime="tensorrt-llm", gpus=8)
    words = argv(planned, Endpoint("chat", "/models/chat"))
    assert taken(words, planned.max_model_len - 1) == ""


def test_the_stand_in_refuses_in_the_servers_own_words_what_a_step_does_not_hold():
    words = [word for word in launch(max_model_len=16384).argv if word != "--enable_chunked_prefill"]
    assert taken(words, 8192) == ""
    message = "The sum of prompt length (8193.0), query length (0) should not exceed max_num_tokens (8192)"
    assert taken(words, 8193) == message


def test_what_it_cannot_cut_into_chunks_it_is_not_told_to():
    assert "--enable_chunked_prefill" not in launch("h200", model="gemma-3-12b-it").argv
    assert "--enable_chunked_prefill" in launch("h200", model="llama-3.1-8b-instruct").argv


def test_the_model_lies_in_a_folder_with_the_name_that_it_is_served_under():
    planned = service_of()
    container = planned.launch.container
    assert planned.launch.argv[:2] == ("trtllm-serve", "/models/chat")
    assert dict(container.volumes)[planned.model_path] == "/models/chat"
    assert re.fullmatch(r"nvcr\.io/nvidia/tensorrt-llm/release@sha256:[0-9a-f]{64}", container.image)
    assert container.entrypoint


def test_the_configuration_file_is_where_the_command_line_says():
    told = launch()
    ((path, _),) = told.files
    assert dict(told.container.volumes)[path] == told.argv[told.argv.index("--extra_llm_api_options") + 1]


def test_the_share_of_memory_is_said_once():
    told = launch()
    assert not [word for word in told.argv if "fraction" in word]
    assert 0 < config()["kv_cache_config"]["free_gpu_memory_fraction"] < 1


@pytest.mark.parametrize(("service", "group"), [({}, {}), ({"kv_cache_dtype": "fp8"}, {"dtype": "fp8"})])
def test_the_cache_is_as_planned(service, group):
    told = config(**service)["kv_cache_config"]
    assert {key: value for key, value in told.items() if key != "free_gpu_memory_fraction"} == {
        "enable_block_reuse": True,
        **group,
    }


def test_a_cache_that_nothing_is_found_in_again_is_switched_off():
    assert config(shared_prompts=False)["kv_cache_config"]["enable_block_reuse"] is False


def test_its_metrics_are_on_and_asked_for_where_they_are():
    told = launch()
    assert config()["return_perf_metrics"] is True
    assert told.probe.metrics == "/prometheus/metrics"
    assert told.probe.in_flight == ("trtllm_num_requests_running", "trtllm_num_requests_waiting")


def test_grammars_are_held_to_by_what_was_asked_for():
    assert "guided_decoding_backend" not in config()
    assert config(structured_output="llguidance")["guided_decoding_backend"] == "llguidance"


def test_what_each_request_has_to_say_for_itself_is_told():
    told = " ".join(launch().warnings)
    assert {key for key in SERVICE if key in told} >= {"max_output_tokens", "temperature", "top_p"}
    # Every service has one, and nobody asked for it.
    assert "repetition_penalty" not in told
    assert "repetition_penalty" in " ".join(launch(repetition_penalty=1.2).warnings)


def test_it_fetches_nothing_and_tells_nobody():
    environment = dict(launch(runtime_version="1.4.0rc1").environment)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["TRTLLM_NO_USAGE_STATS"] == "1"


def test_it_has_no_key_and_serves_its_own_host_alone():
    told = launch()
    assert told.key == "none"
    assert told.argv[told.argv.index("--host") + 1] == "127.0.0.1"
