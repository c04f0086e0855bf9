"""The planner's memory figures do not get worse: guards over the comparisons that docs/accuracy.md publishes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.accuracy import llama_cases, measured, oracle
from bench.accuracy.others import gpustack_claim
from bench.accuracy.report import fill
from bench.accuracy.spread import GIB, Spread, spread
from bench.accuracy.truth import Question, measured_questions, oracle_questions

ROOT = Path(__file__).resolve().parents[2]
CONFIGS_VARIABLE = "RACKSERVE_MODEL_CONFIGS"


def model_configs() -> Path:
    folder = Path(os.environ.get(CONFIGS_VARIABLE) or ROOT / "build" / "model-configs")
    if not any(folder.glob("*_config.json")):
        pytest.fail(f"{folder} holds no model configs: run tools/model_configs.sh, or name them in {CONFIGS_VARIABLE}")
    return folder


@pytest.fixture(scope="module")
def compared() -> list[measured.Compared]:
    return list(measured.compare())


@pytest.fixture(scope="module")
def oracle_cases() -> list[oracle.OracleCase]:
    return oracle.cases(model_configs())


def false_fits(questions: list[Question]) -> list[str]:
    return [f"{one.name}: {-one.margin_gib:.2f} GiB short" for one in questions if one.truth is False and one.planner]


def test_weights_are_those_of_the_start_logs(compared: list[measured.Compared]) -> None:
    found = spread(row.weights_error for row in compared)
    assert found.count >= 43
    assert found.median <= 0.5, found
    assert found.p95 <= 2, found


def test_kv_cache_is_that_of_the_start_logs(compared: list[measured.Compared]) -> None:
    found = spread(row.kv_error for row in compared if row.kv_error is not None)
    assert found.count >= 40
    assert found.median <= 3, found
    assert found.p95 <= 8, found


def test_what_started_is_not_refused(compared: list[measured.Compared]) -> None:
    refused = [row.case.name for row in compared if row.sizing and row.case.starts and not row.sizing.fits]
    assert refused == []


def test_nothing_is_said_to_fit_where_the_engine_would_not_start() -> None:
    questions = list(measured_questions(measured.read_cases()))
    assert len(questions) > 5000
    assert false_fits(questions) == []


def test_few_starts_are_refused() -> None:
    questions = list(measured_questions(measured.read_cases()))
    refused = [one for one in questions if one.truth and not one.planner]
    assert len(refused) <= 0.01 * len(questions)
    assert max((one.margin_gib for one in refused), default=0) < 2


def test_spread_ignores_signs_and_counts_ranks() -> None:
    assert spread([-3.0, 1.0, 2.0]) == Spread(3, 2.0, 2.0, 3.0, 3.0)
    assert spread([]).count == 0


def test_gpustack_claims_what_its_source_gives_as_examples() -> None:
    # The docstring of its estimate_model_vram: "using bfloat16, 7B requires 19.0 GiB".
    qwen = next(case for case in measured.read_cases() if case.row["model"] == "Qwen/Qwen2.5-7B-Instruct")
    assert gpustack_claim(qwen.checkpoint_bytes()) / GIB == pytest.approx(19.0, abs=0.05)


def test_a_table_is_put_between_its_markers_only() -> None:
    page = "a\n<!-- table: x -->\nold\n<!-- end -->\nb\n<!-- table: y -->\n<!-- end -->\n"
    filled = fill(page, "x", "new")
    assert filled == "a\n<!-- table: x -->\n\nnew\n\n<!-- end -->\nb\n<!-- table: y -->\n<!-- end -->\n"
    assert fill(filled, "x", "new") == filled
    with pytest.raises(SystemExit, match="table: z"):
        fill(page, "z", "new")


@pytest.mark.accuracy
def test_weights_are_those_of_vllm(oracle_cases: list[oracle.OracleCase]) -> None:
    found = spread(case.weights_error for case in oracle_cases)
    assert found.count >= 480
    assert found.median <= 0.5, found
    assert found.p95 <= 2, found


@pytest.mark.accuracy
def test_kv_tokens_are_those_of_vllm(oracle_cases: list[oracle.OracleCase]) -> None:
    found = spread(error for case in oracle_cases for _, error in case.kv_errors())
    assert found.median <= 3, found
    assert found.p95 <= 8, found


@pytest.mark.accuracy
def test_nothing_is_said_to_fit_that_vllm_would_refuse(oracle_cases: list[oracle.OracleCase]) -> None:
    questions = list(oracle_questions(oracle_cases))
    assert len(questions) > 5000
    assert false_fits(questions) == []


@pytest.mark.accuracy
def test_gguf_figures_are_those_of_llama_cpp() -> None:
    cases = list(llama_cases.cases(model_configs()))
    assert len(cases) >= 300
    assert spread(case.context_error for case in cases).worst <= 1
    assert min(case.compute_mib for case in cases) >= 0
    assert spread(case.total_error for case in cases).worst <= 5
