"""What holds for every stack, whatever is asked for."""

from __future__ import annotations

import string
from dataclasses import replace
from typing import Any

from hypothesis import assume, event, given
from hypothesis import strategies as st

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import Problem
from rackserve.domain.gpu import Gpu
from rackserve.planning.stack import Stack, StackRequest, solve
from rackserve.planning.stack_rules import at_least, card_flavours, kernel_numbers, numbers, wish_of
from tests.examples import examples

CATALOG = load_catalog()
FACTS = CATALOG.stacks
RUNTIMES = sorted({entry.runtime for entry in FACTS.runtimes.values()})
KNOWN_VERSIONS = {
    runtime: sorted({entry.pick for entry in FACTS.runtimes.values() if entry.runtime == runtime})
    for runtime in RUNTIMES
}


@st.composite
def strange_cards(draw: st.DrawFn) -> Gpu:
    """Cards of an operator's own tags, sensible or not."""
    vendor = draw(st.sampled_from(["nvidia", "nvidia", "amd", "intel", "apple", "none"]))
    target = draw(
        st.sampled_from(
            ["5.2", "6.1", "7.0", "7.5", "8.6", "9.0", "10.0", "12.1"] if vendor == "nvidia" else ["", "gfx942"]
        )
    )
    return Gpu.model_validate(
        {
            "tag": f"own-{vendor}-{target.replace('.', '-') or 'x'}",
            "name": "own",
            "vendor": vendor,
            "vram_mib": 1024,
            "target": target,
            "kernel_module": draw(st.sampled_from(["none", "either", "open", "proprietary"])),
            "driver_min": draw(st.none() | st.sampled_from(["450", "570.10", "595", "999", "6.12", "30.20"])),
            "nvswitch": draw(st.booleans()),
            "source": "test",
            "date": "2026-11-24",
        }
    )


cards = st.sampled_from(sorted(CATALOG.gpus.values(), key=lambda gpu: gpu.tag)) | strange_cards()
words = st.text(string.printable, max_size=12)


@st.composite
def runtime_wishes(draw: st.DrawFn) -> tuple[str, str | None]:
    runtime = draw(st.sampled_from([*RUNTIMES, "tgi"]))
    known = st.sampled_from(KNOWN_VERSIONS.get(runtime, ["1.0"]))
    return runtime, draw(st.none() | known | known | words)


requests = st.builds(
    StackRequest,
    host=st.just("h1"),
    gpus=st.lists(cards, max_size=2, unique_by=lambda gpu: gpu.tag).map(tuple),
    os=st.none() | st.sampled_from([*FACTS.systems, *FACTS.systems, "beos-5"]),
    kernel=st.none() | st.none() | st.sampled_from(["5.4.0", "6.1.0-9", "6.8.0-151-generic", "6.19.1", "7.0"]) | words,
    runtimes=st.lists(runtime_wishes(), max_size=3).map(tuple),
    driver_branch=st.none() | st.none() | st.sampled_from([*FACTS.nvidia_drivers, *FACTS.amd_drivers, "555"]),
    kernel_module=st.none() | st.none() | st.sampled_from(["open", "proprietary"]),
    allow_eol=st.booleans(),
    secure_boot=st.none() | st.booleans(),
)
many = examples(300)


@many
@given(requests)
def test_there_is_a_stack_or_a_problem_and_never_an_exception(request: StackRequest) -> None:
    result = solve(request, CATALOG)
    event("solved" if isinstance(result, Stack) else "refused")
    if isinstance(result, Stack):
        assert set(result.runtimes) == {runtime for runtime, _ in request.runtimes}
        assert result.reasons
        assert (request.os is None) == any(text.startswith("os not stated") for text in result.warnings)
    else:
        assert result
        assert all(isinstance(problem, Problem) and problem.host == "h1" and problem.key for problem in result)
        assert len(set(result)) == len(result)


@many
@given(requests)
def test_the_same_request_has_the_same_answer(request: StackRequest) -> None:
    assert solve(request, CATALOG) == solve(request, CATALOG)


@many
@given(requests)
def test_the_flavour_of_the_modules_suits_every_card(request: StackRequest) -> None:
    result = solve(request, CATALOG)
    assume(isinstance(result, Stack))
    wish = wish_of(request, CATALOG)
    assert (result.kernel_module is not None) == (result.vendor == "nvidia")
    for gpu in wish.gpus if result.vendor == "nvidia" else ():
        assert result.kernel_module in card_flavours(wish, gpu)
        assert not (gpu.kernel_module == "open" and result.kernel_module == "proprietary")
        assert not ((gpu.compute_capability or (0, 0)) < (7, 5) and result.kernel_module == "open")
        assert not ((gpu.compute_capability or (0, 0)) >= (10, 0) and result.kernel_module == "proprietary")


@many
@given(requests)
def test_the_driver_is_at_every_floor(request: StackRequest) -> None:
    result = solve(request, CATALOG)
    assume(isinstance(result, Stack) and result.driver_branch is not None)
    if result.vendor == "amd":
        driver = FACTS.amd_drivers[result.driver_branch]
        for runtime in result.runtimes.values():
            assert runtime.rocm is None or numbers(driver.rocm_min) <= numbers(runtime.rocm)[:2] <= numbers(
                driver.rocm_max
            )
        return
    branch = FACTS.nvidia_drivers[result.driver_branch]
    assert branch.supported or request.allow_eol
    for gpu in request.gpus:
        assert gpu.driver_min is None or gpu.vendor == "none" or at_least(branch, gpu.driver_min)
        assert gpu.vendor == "none" or (gpu.compute_capability or (0, 0)) >= numbers(branch.capability_min)
    for runtime in result.runtimes.values():
        if runtime.cuda is not None:
            assert at_least(branch, FACTS.cuda[runtime.cuda.partition(".")[0]].driver_min)


@many
@given(requests)
def test_what_was_asked_for_is_what_comes(request: StackRequest) -> None:
    result = solve(request, CATALOG)
    assume(isinstance(result, Stack))
    assert request.driver_branch in {None, result.driver_branch}
    assert request.kernel_module in {None, result.kernel_module}
    assert request.kernel in {None, result.kernel}
    for runtime, version in request.runtimes:
        assert version in {None, result.runtimes[runtime].version}


@many
@given(requests)
def test_a_host_is_refused_only_if_no_driver_would_do(request: StackRequest) -> None:
    free = replace(request, driver_branch=None)
    policy, refused = FACTS.stack_policy, not isinstance(solve(free, CATALOG), Stack)
    vendor = wish_of(free, CATALOG).vendor
    order = {"nvidia": policy.nvidia_drivers, "amd": policy.amd_drivers}.get(vendor, ())
    pinned = [solve(replace(free, driver_branch=branch), CATALOG) for branch in order]
    if order:
        assert refused == (not any(isinstance(result, Stack) for result in pinned))


WRONG: dict[str, dict[str, Any]] = {
    "os": {"os": "beos-5"},
    "kernel": {"kernel": "?"},
    "driver_branch": {"driver_branch": "555"},
    "runtime": {"runtimes": (("tgi", None), ("vllm", "0.1"))},
}


@many
@given(
    st.sampled_from([gpu for gpu in CATALOG.gpus.values() if gpu.vendor == "nvidia"]),
    st.sets(st.sampled_from(sorted(WRONG))),
)
def test_all_that_is_wrong_is_named_at_once(gpu: Gpu, wrong: set[str]) -> None:
    settings_: dict[str, Any] = {}
    for key in wrong:
        settings_ |= WRONG[key]
    result = solve(StackRequest("h1", (gpu,), **settings_), CATALOG)
    named = set() if isinstance(result, Stack) else {problem.key for problem in result}
    assert named == wrong
    assert ("runtime" in wrong) == (not isinstance(result, Stack) and sum(p.key == "runtime" for p in result) == 2)


@given(st.text(max_size=20))
def test_any_text_can_be_a_kernel(release: str) -> None:
    found = kernel_numbers(release)
    assert found is None or len(found) >= 2
