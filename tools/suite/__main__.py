"""python -m tools.suite test | all [PART] | report | record: what the Makefile calls; see docs/testing.md."""

from __future__ import annotations

import fcntl
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from io import TextIOWrapper
from pathlib import Path
from typing import cast

from tools.suite import parts, shares
from tools.suite.code import code_of, commit_of, touched_since, uncommitted
from tools.suite.inotify import room_for_labs
from tools.suite.jobs import LINT, Job, jobs_of, longest_first, with_preparations
from tools.suite.results import Result, closing_code, closing_line
from tools.suite.running import Run, remove_labs, show_failures
from tools.suite.schedule import Room

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
LANES = 3


def main() -> None:
    """Do what the first word says."""
    known: dict[str, Callable[..., int]] = {"test": run_test, "all": run_all, "report": report, "record": record}
    word, *others = sys.argv[1:] or [""]
    if word not in known:
        sys.exit(__doc__)
    # Read while it goes on, through a pipe too.
    cast("TextIOWrapper", sys.stdout).reconfigure(line_buffering=True)
    try:
        with nullcontext() if word == "report" else _alone():
            code = known[word](*others)
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit("interrupted")
    except OSError as error:
        # What the interpreter has still to write goes nowhere either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(f"the run was broken off, and what ran was ended: {error}")
    sys.exit(code)


@contextmanager
def _alone() -> Iterator[None]:
    """One run at a time in this checkout: they write the same files."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "suite.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("the tests are run in this checkout already: wait for them, or use another checkout")
        yield


def _lanes() -> int:
    said = os.environ.get("LANES") or str(LANES)
    if not said.isdecimal() or not int(said):
        sys.exit(f"LANES={said}: how many labs at once, 1 or more")
    return int(said)


def _go(kind: str, jobs: Sequence[Job], run: Callable[[Room], Run]) -> list[Result]:
    """Run the jobs and what they wait for, the longest first."""
    seconds = shares.load(ROOT).of(kind)
    with room_for_labs(_lanes()) as lanes:
        remove_labs(ROOT)
        this = run(Room(lanes, len(os.sched_getaffinity(0))))
        results = this.do(longest_first(with_preparations(jobs), seconds))
    show_failures(results, this.folder)
    if this.interrupted:
        missing = len({job.name for job in jobs} - {result.name for result in results})
        results.append(_failure(f"interrupted: what ran was ended, and {missing} jobs were not begun"))
    return results


def _failure(sentence: str) -> Result:
    """Something that makes the run a failed one, beside its jobs."""
    print(f"\n{sentence}")
    return Result("run", 0.0, problem=sentence)


def run_test() -> int:
    """What has to pass before a change lands."""
    folder = BUILD / "suite" / "test"
    jobs = [*jobs_of(ROOT, "test"), LINT]
    results = _go("test", jobs, lambda room: Run(ROOT, "test", folder, room))
    found = shares.folders(jobs, results)
    recorded = shares.load(ROOT).tests
    print(f"\n{shares.table(found, recorded)}\n")
    if closing_code(results) == 0:
        kept = parts.Kept(folder / "kept")
        kept.clear()
        for result in results:
            kept.put(result, "1/1")
        results += [_failure(sentence) for sentence in shares.grown(shares.seconds_of(jobs, results), recorded)]
    print(closing_line(results))
    return closing_code(results)


def _part(text: str) -> tuple[int, int]:
    part, _, count = text.partition("/")
    if not (part.isdecimal() and count.isdecimal() and 1 <= int(part) <= int(count)):
        sys.exit(f"PART={text}: which part of how many, such as 2/4")
    return int(part), int(count)


def run_all(text: str = "1/1") -> int:
    """One part of everything but what needs a GPU, without what has passed already for this code."""
    part, count = _part(text)
    code = code_of(ROOT)
    kept = parts.Kept(BUILD / "test-all" / code)
    seconds = shares.load(ROOT).of("all")
    mine = parts.divide([*jobs_of(ROOT, "all"), LINT], seconds, count, _lanes())[part - 1]
    before = {job.name: found[0] for job in mine if (found := kept.get(job.name)) and found[0].good}
    left = [job for job in mine if job.name not in before]
    took = parts.estimate(left, seconds, _lanes())
    print(
        f"part {text} of code {code}: {len(left)} jobs in about {took / 60:.0f} min, {len(before)} have passed before"
    )
    if took > parts.LONGEST_PART:
        print(f"that is longer than {parts.LONGEST_PART / 60:.0f} minutes: more parts, such as PART=1/{count + 1}")
    begun = time.monotonic()

    touched = []

    def keep(job: Job, result: Result) -> None:
        if touched_since(ROOT, time.time() - result.seconds) or code_of(ROOT) != code:
            touched.append(job.name)
        elif job in left:
            kept.put(result, text)

    results = _go("all", left, lambda room: Run(ROOT, "all", kept.folder / "logs", room, keep))
    kept.add_wall(text, time.monotonic() - begun)
    if touched:
        sentence = f"the code was written to while it was tested: {len(touched)} results are not kept"
        results.append(_failure(f"{sentence} ({', '.join(touched)})"))
    every = [*before.values(), *results]
    print(closing_line(every))
    # A part may have no test; that something passed is for the report to say.
    return 0 if all(result.good for result in every) else 1


def report() -> int:
    """Everything that `make test-all` found out about this code."""
    code = code_of(ROOT)
    jobs = [*jobs_of(ROOT, "all"), LINT]
    kept = parts.Kept(BUILD / "test-all" / code)
    text, problems = parts.report(jobs, kept)
    commit = commit_of(ROOT)
    problems += [f"{name}: not as in commit {commit}" for name in uncommitted(ROOT)]
    print(f"make test-all of commit {commit}, code {code}\n{text}")
    if problems:
        print("not complete:", *problems, sep="\n  ")
    every = [found[0] for job in jobs if (found := kept.get(job.name))]
    print(closing_line(every))
    return 1 if problems else closing_code(every)


def record() -> int:
    """Write tests/shares.toml from the last runs in which everything passed."""
    jobs = [*jobs_of(ROOT, "all"), LINT]
    places = {"test": BUILD / "suite" / "test" / "kept", "all": BUILD / "test-all" / code_of(ROOT)}
    found = {
        kind: {job.name: entry[0] for job in jobs if (entry := parts.Kept(path).get(job.name))}
        for kind, path in places.items()
    }
    missing = [job.name for job in jobs if job.name not in found["test"]]
    if found["test"] and missing:
        sys.exit(f"the last `make test` that passed had no {', '.join(missing)}: `make test` first, then record it")
    before = shares.load(ROOT).seconds
    seconds = {
        kind: shares.merged(
            {} if kind == "test" and results else before.get(kind, {}),
            {name: result.seconds for name, result in results.items() if result.good and not result.idle},
            jobs,
        )
        for kind, results in found.items()
    }
    shares.save(ROOT, shares.Recorded(seconds))
    print(f"{shares.FILE} is written anew from " + " and ".join(f"{len(found[kind])} jobs of {kind}" for kind in found))
    return 0


if __name__ == "__main__":
    main()
