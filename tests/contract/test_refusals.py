"""The harness says no where vLLM and SGLang do, and yes to every checkpoint of the catalogue."""

from __future__ import annotations

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.runtimes.options import Options
from tests.contract import harness
from tests.contract.harness import MARKS, SGLANG, VLLM, check_sglang, check_vllm
from tests.contract.models import model_folder

pytestmark = MARKS
CATALOG = load_catalog()
VLLM_SERVE = ("/opt/rackserve/current/vllm/bin/vllm", "serve", "/srv/models/m")
SGLANG_SERVE = ("python", "-m", "sglang.launch_server", "--model-path", "/srv/models/m")


@pytest.fixture
def folder(tmp_path):
    # 32 query heads, 40960 tokens at most.
    return model_folder(CATALOG.models["qwen3-8b"], "none", tmp_path / "m")


@pytest.mark.parametrize("version", VLLM)
@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("--quantization", "fp9"), "Unknown quantization method: fp9"),
        (("--quantization", "awq"), "Cannot find the config file for awq"),
        (("--kv-cache-dtype", "fp9"), "fp9"),
        (("--max-model-len", "40961"), "is greater than the derived max_model_len"),
        (("--tensor-parallel-size", "3"), "must be divisible by tensor parallel size"),
        (("--gpu-memory-utilization", "1.5"), "less than or equal to 1"),
        (("--no-enable-chunked-prefill", "--max-num-batched-tokens", "512"), "max_num_batched_tokens"),
        (("--max-modle-len", "512"), "no such options: --max-modle-len"),
        # An abbreviation, which vLLM itself takes as long as there is no other.
        (("--max-model", "512"), "no such options: --max-model"),
        (("--max-num-seqs", "many"), "many"),
        (("--structured-outputs-config", '{"backend":"nonsense"}'), "nonsense"),
        (("--override-generation-config", "{temperature"), "override-generation-config"),
        (("--max-num-batched-tokens", "128", "--max-num-seqs", "256"), "greater than or equal to max_num_seqs"),
        (("--tensor-parallel-size", "2", "--nnodes", "2", "--node-rank", "2"), "must be between 0 and 1"),
        (("surplus",), "surplus"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_vllm_refuses(folder, version, words, refusal):
    assert refusal in (check_vllm((*VLLM_SERVE, *words), folder, version) or "accepted")


@pytest.mark.parametrize("version", VLLM)
def test_vllm_refuses_a_checkpoint_for_another_method(tmp_path, version):
    folder = model_folder(CATALOG.models["qwen3-8b"], "awq", tmp_path / "m")
    assert "does not match" in str(check_vllm((*VLLM_SERVE, "--quantization", "fp8"), folder, version))


@pytest.mark.parametrize("version", VLLM)
def test_vllm_refuses_variables(folder, version):
    unknown = check_vllm(VLLM_SERVE, folder, version, [("VLLM_MAX_SEQUENCES", "64")])
    assert unknown == "ValueError: unknown environment variables: VLLM_MAX_SEQUENCES"
    assert "many" in str(check_vllm(VLLM_SERVE, folder, version, [("VLLM_MAX_N_SEQUENCES", "many")]))
    assert check_vllm(VLLM_SERVE, folder, version, [("VLLM_MAX_N_SEQUENCES", "64")]) is None


@pytest.mark.parametrize("version", VLLM)
def test_vllm_takes_what_ends_elsewhere(folder, version):
    tensor = ("--tensor-parallel-size", "2", "--nnodes", "2", "--master-addr", "10.0.0.1", "--master-port", "29500")
    assert check_vllm((*VLLM_SERVE, *tensor, "--node-rank", "1", "--headless"), folder, version) is None
    assert check_vllm((*VLLM_SERVE, "--distributed-executor-backend", "ray"), folder, version) is None


@pytest.mark.parametrize("version", VLLM)
def test_vllm_takes_what_the_table_says_for_converting(folder, version):
    words = Options(CATALOG, "vllm", version).words("convert_fp8")
    assert words == ("--quantization", "fp8_per_tensor")
    assert check_vllm((*VLLM_SERVE, *words), folder, version) is None


@pytest.mark.parametrize("version", SGLANG)
@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("--quantization", "fp9"), "invalid choice: 'fp9'"),
        (("--kv-cache-dtype", "fp9"), "invalid choice: 'fp9'"),
        (("--context-length", "40961"), "is greater than the derived context_length"),
        (("--grammar-backend", "nonsense"), "invalid choice: 'nonsense'"),
        (("--max-running-requests", "many"), "invalid int value: 'many'"),
        (("--chunked-prefill-size", "-1"), "prompts are computed whole"),
        (("--contxt-length", "512"), "no such options: --contxt-length"),
        (("--tp", "2"), "no such options: --tp"),
        (("surplus",), "surplus"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else "",
)
def test_sglang_refuses(folder, version, words, refusal):
    assert refusal in (check_sglang((*SGLANG_SERVE, *words), folder, version) or "accepted")


@pytest.mark.parametrize("version", [*VLLM, *SGLANG])
def test_every_checkpoint_of_the_catalogue_is_taken(tmp_path, version):
    check, serve = (check_sglang, SGLANG_SERVE) if version in SGLANG else (check_vllm, VLLM_SERVE)
    refused = {}
    for model in CATALOG.models.values():
        for checkpoint in model.checkpoints:
            target = tmp_path / f"{model.name}-{checkpoint.quantization}"
            error = check(serve, model_folder(model, checkpoint.quantization, target), version)
            if error is not None:
                refused[target.name] = error
    assert refused == {}


def test_what_differs_in_places_alone_is_asked_once(tmp_path, monkeypatch):
    asked = []
    worker = harness._worker("sglang", SGLANG[0])
    monkeypatch.setattr(worker, "ask", asked.append)
    # What is answered here is no answer for others.
    monkeypatch.setattr(worker, "_known", {})
    for name, port in (("one", "8001"), ("two", "8002")):
        folder = model_folder(CATALOG.models["qwen3-14b"], "none", tmp_path / name)
        words = ("--served-model-name", name, "--port", port, "--context-length", "4096", "--random-seed", "12345")
        check_sglang((*SGLANG_SERVE, *words), folder, SGLANG[0])
    assert len(asked) == 1
    check_sglang((*SGLANG_SERVE, *words[:-1], "54321"), folder, SGLANG[0])
    assert len(asked) == 2
