"""How the planner and the other methods answer the questions of truth.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bench.accuracy import others
from bench.accuracy.measured import Case
from bench.accuracy.oracle import OracleCase
from bench.accuracy.truth import Question

Method = Callable[[Question], bool | None]


@dataclass(frozen=True, slots=True)
class Score:
    """How one method answered: right and wrong answers, and how far off the worst wrong ones are."""

    counts: Counter[str]
    worst_false_fit_gib: float
    worst_false_refusal_gib: float


def score(questions: Iterable[Question], method: Method) -> Score:
    """Right and wrong answers of one method."""
    counts: Counter[str] = Counter()
    fit = refusal = 0.0
    for question in questions:
        answer = method(question)
        if answer is None:
            counts["no answer"] += 1
        elif question.truth is None:
            counts["undecided, yes" if answer else "undecided, no"] += 1
        elif answer == question.truth:
            counts["right"] += 1
        elif answer:
            counts["false fit"] += 1
            fit = max(fit, -question.margin_gib)
        else:
            counts["false refusal"] += 1
            refusal = max(refusal, question.margin_gib)
    return Score(counts, fit, refusal)


def methods(configs: Path, checkpoints: Mapping[str, int]) -> dict[str, Method]:
    """Every method by its name. `checkpoints`: bytes of each config's files."""

    @lru_cache(maxsize=1024)
    def serving(subject: Case | OracleCase) -> others.Serving:
        return serving_of(subject, configs, checkpoints)

    def at(question: Question) -> others.Serving:
        return serving(question.subject).within(question.budget)

    return {
        "rackserve": lambda question: question.planner,
        "hf-mem": lambda question: others.hf_mem_fits(at(question), question.length),
        "GPUStack": lambda question: others.gpustack_fits(at(question)),
    }


def serving_of(subject: Case | OracleCase, configs: Path, checkpoints: Mapping[str, int]) -> others.Serving:
    """A case as the other methods see it; its budget is still open."""
    if isinstance(subject, Case):
        kv = "fp8" if subject.row["kv_dtype"] == "fp8" else "auto"
        fp8 = subject.quantization == "fp8"
        return others.Serving(subject.config(), subject.checkpoint_bytes(), subject.gpus, kv, fp8_checkpoint=fp8)
    row = subject.row
    config, size = others.read_json(configs / row["config"]), checkpoints[row["config"]]
    fp8 = "float8_e4m3fn" in row["params_by_dtype"] and not row["quantization"]
    return others.Serving(config, size, subject.gpus, row["kv_cache_dtype"], fp8_checkpoint=fp8)
