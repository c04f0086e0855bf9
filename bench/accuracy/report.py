"""Write the tables of docs/accuracy.md with the planner of this working tree.

    tools/model_configs.sh                                    # once: the configs and hf-mem, into build/
    .venv/bin/python -m bench.accuracy.report                 # from the checkout's root

Each table stands between `<!-- table: NAME -->` and `<!-- end -->`; what is between them is replaced.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.accuracy import decisions, llama_cases, measured, oracle, others
from bench.accuracy.spread import GIB, SPREAD_HEAD, percent, spread, table
from bench.accuracy.truth import Question, measured_questions, oracle_questions

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "accuracy.md"
CONFIGS = ROOT / "build" / "model-configs"
_WORST = 8
_QUOTED = "llm-d-planner, as published"
_PLAIN = "KV tokens, 16-bit models with full attention everywhere"


def spreads(rows: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """A table of errors: method, quantity, errors."""
    cells = [[method, what, *spread(errors).cells()] for method, what, errors in rows]
    return table(["method", "what", *SPREAD_HEAD], cells)


def measured_table(compared: Sequence[measured.Compared]) -> str:
    """Errors over the start logs."""
    rows = [
        ("rackserve", "weights", [row.weights_error for row in compared]),
        ("rackserve", "KV cache", [row.kv_error for row in compared if row.kv_error is not None]),
        ("hf-mem, GPUStack", "weights", [_file_error(row) for row in compared]),
        ("hf-mem", "KV cache", [error for row in compared if (error := _hf_mem_error(row)) is not None]),
    ]
    lines = [spreads(rows)]
    for revision, runs, weights, kv in others.LLM_D_PLANNER:
        for what, mean in (("weights", weights), ("KV cache", kv)):
            lines.append(f"| {_QUOTED} ({revision}) | {what} | {runs} |  | {mean:.2f} % |  |  |")
    return "\n".join(lines)


def _file_error(row: measured.Compared) -> float:
    per_gpu = others.weights_per_gpu(_serving(row)) / GIB
    return percent(per_gpu, row.case.number("weights_gib_per_gpu") or 0)


def _serving(row: measured.Compared) -> others.Serving:
    return decisions.serving_of(row.case, CONFIGS, {})


def _hf_mem_error(row: measured.Compared) -> float | None:
    """What is left of the share after hf-mem's weights, in tokens at hf-mem's rate."""
    case, serving = row.case, _serving(row)
    tokens, total, share = case.number("kv_tokens"), case.number("gpu_total_gib"), case.number("gpu_mem_util")
    if row.sizing is None or not tokens or not total or not share:
        return None
    left = share * total * GIB - others.weights_per_gpu(serving)
    predicted = others.hf_mem_tokens(serving, left, int(case.row["max_model_len"]))
    return None if predicted is None else percent(predicted, tokens)


def oracle_table(cases: Sequence[oracle.OracleCase], configs: Path, checkpoints: Mapping[str, int]) -> str:
    """Errors over vLLM's own code: weights of each case, and tokens of each amount of free memory."""
    parallel = [case for case in cases if case.gpus > 1 and not case.row["quantization"]]
    files = [percent(checkpoints[case.row["config"]] / case.gpus, case.weights_bytes) for case in parallel]
    plain = [case for case in cases if case.plain]

    def hf_mem(some: Sequence[oracle.OracleCase]) -> list[float]:
        return [error for case in some for error in _hf_mem_errors(case, configs, checkpoints)]

    rows = [
        ("rackserve", "weights", [case.weights_error for case in cases]),
        ("rackserve", "weights, several GPUs, as stored", [case.weights_error for case in parallel]),
        ("hf-mem, GPUStack", "weights, several GPUs, as stored", files),
        ("rackserve", "KV tokens", [error for case in cases for _, error in case.kv_errors()]),
        ("hf-mem", "KV tokens", hf_mem(cases)),
        ("rackserve", _PLAIN, [error for case in plain for _, error in case.kv_errors()]),
        ("hf-mem", _PLAIN, hf_mem(plain)),
    ]
    return spreads(rows)


def _hf_mem_errors(case: oracle.OracleCase, configs: Path, checkpoints: Mapping[str, int]) -> Iterator[float]:
    serving = decisions.serving_of(case, configs, checkpoints)
    for capacity in case.row["capacities"]:
        if "error" in capacity:
            continue
        tokens = others.hf_mem_tokens(serving, capacity["free_gib"] * GIB, capacity["max_model_len"])
        if tokens is not None:
            yield percent(tokens, capacity["tokens"])


def worst_table(errors: Mapping[str, float]) -> str:
    """The largest errors by name."""
    ordered = sorted(errors.items(), key=lambda entry: -abs(entry[1]))[:_WORST]
    return table(["case", "error"], [[name, f"{error:+.2f} %"] for name, error in ordered])


def oracle_kv_worst(cases: Sequence[oracle.OracleCase]) -> dict[str, float]:
    """Each case's largest error of tokens."""
    return {case.name: max((error for _, error in case.kv_errors()), key=abs, default=0.0) for case in cases}


def decision_table(questions: Sequence[Question], methods: Mapping[str, decisions.Method]) -> str:
    """Right and wrong answers of each method."""
    head = ["method", "asked", "false fits", "by at most", "false refusals", "by at most"]
    head += ["undecided: yes, no", "no answer"]
    fits = sum(question.truth is True for question in questions)
    misfits = sum(question.truth is False for question in questions)
    rows = []
    for name, method in methods.items():
        result = decisions.score(questions, method)
        count = result.counts
        cells = [name, str(len(questions))]
        cells += [_of(count["false fit"], misfits), f"{result.worst_false_fit_gib:.2f} GiB"]
        cells += [_of(count["false refusal"], fits), f"{result.worst_false_refusal_gib:.2f} GiB"]
        cells += [f"{count['undecided, yes']}, {count['undecided, no']}", str(count["no answer"])]
        rows.append(cells)
    return table(head, rows)


def _of(part: int, whole: int) -> str:
    return f"{part} of {whole} ({part / max(1, whole):.2%})"


def refused_table(refused: Sequence[oracle.Refused]) -> str:
    """Configs that one side does not know."""
    rows = [[row.name, row.by_planner or "sized", _short(row.by_vllm) or "built"] for row in refused]
    return table(["config", "rackserve", f"vLLM {oracle.VERSION}"], rows)


def _short(error: str) -> str:
    return error.replace("ValidationError: Value error, ", "").split(" but ")[0][:100].replace("|", " ")


def llama_table(cases: Sequence[llama_cases.LlamaCase]) -> str:
    """Errors over llama-fit-params."""
    estimated = [error for case in cases if (error := case.weights_error) is not None]
    rows = [
        ("rackserve", "weights, estimated without a file", estimated),
        ("rackserve", "KV cache and states", [case.context_error for case in cases]),
        ("rackserve", "everything, the file's size known", [case.total_error for case in cases]),
    ]
    compute = [case.compute_mib for case in cases]
    short = sum(mib < 0 for mib in compute)
    text = f"Working memory: {min(compute):.0f} to {max(compute):.0f} MiB above llama-server's"
    return f"{spreads(rows)}\n\n{text}, too little in {short} cases."


def counts_text(
    compared: Sequence[measured.Compared], cases: Sequence[oracle.OracleCase], llama: Sequence[llama_cases.LlamaCase]
) -> str:
    """How much was compared."""
    sized = sum(row.sizing is not None for row in compared)
    configs = len({case.row["config"] for case in cases})
    models = len({case.row["model"] for case in llama})
    lines = [
        f"- start logs: {len(compared)}, {sized} of them with a share of memory and a version that the planner knows",
        f"- vLLM {oracle.VERSION}: {len(cases)} cases of {configs} configs",
        f"- llama.cpp {llama_cases.version()}: {len(llama)} cases of {models} models",
        f"- hf-mem {others.HF_MEM_VERSION}; GPUStack's formula as of {others.GPUSTACK_REVISION}",
    ]
    return "\n".join(lines)


def tables(configs: Path, csv: Path) -> dict[str, Callable[[], str]]:
    """Every table by its name."""
    compared = list(measured.compare(csv))
    cases = oracle.cases(configs)
    llama = list(llama_cases.cases(configs))
    checkpoints = oracle.checkpoints()

    methods = decisions.methods(configs, checkpoints)
    return {
        "counts": lambda: counts_text(compared, cases, llama),
        "measured": lambda: measured_table(compared),
        "measured-worst": lambda: worst_table({f"{row.case.name}: weights": row.weights_error for row in compared}),
        "decisions-measured": lambda: decision_table(list(measured_questions(measured.read_cases(csv))), methods),
        "oracle": lambda: oracle_table(cases, configs, checkpoints),
        "oracle-worst-weights": lambda: worst_table({case.name: case.weights_error for case in cases}),
        "oracle-worst-kv": lambda: worst_table(oracle_kv_worst(cases)),
        "decisions-oracle": lambda: decision_table(list(oracle_questions(cases)), methods),
        "refused": lambda: refused_table(oracle.refused(configs)),
        "llamacpp": lambda: llama_table(llama),
    }


def fill(page: str, name: str, content: str) -> str:
    """The page with one table replaced."""
    pattern = re.compile(rf"(<!-- table: {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    if not pattern.search(page):
        message = f"the page has no <!-- table: {name} -->"
        raise SystemExit(message)
    return pattern.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", page)


def main(argv: Sequence[str]) -> int:
    """Make all tables and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--configs", type=Path, default=CONFIGS, help="folder of *_config.json files")
    parser.add_argument("--cases", type=Path, default=measured.CASES, help="CSV of start logs")
    parser.add_argument("--page", type=Path, default=PAGE, help="page whose tables are replaced")
    options = parser.parse_args(argv)
    if not any(options.configs.glob("*_config.json")):
        message = f"{options.configs} holds no configs: run tools/model_configs.sh"
        raise SystemExit(message)
    page = options.page.read_text(encoding="utf-8")
    for name, make in tables(options.configs, options.cases).items():
        content = make()
        sys.stdout.write(f"## {name}\n\n{content}\n\n")
        page = fill(page, name, content)
    options.page.write_text(page, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
