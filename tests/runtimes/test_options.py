"""What a version calls a setting, and what is said where it has no name for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rackserve.catalog.loader import load_catalog
from rackserve.runtimes.options import Options, version_advice, version_problem

CATALOG = load_catalog()
VLLM, LLAMA = "0.8.5 to 0.33.0", "0.5 to 0.7.0"


def options(runtime: str, version: str) -> Options:
    return Options(CATALOG, runtime, version)


def test_a_setting_that_was_renamed_has_the_name_of_the_version():
    old, new = options("vllm", "0.10.2"), options("vllm", "0.11.0")
    assert old.words("structured_output_backend", "xgrammar") == ("--guided-decoding-backend", "xgrammar")
    assert new.words("structured_output_backend", "xgrammar") == (
        "--structured-outputs-config",
        '{"backend":"xgrammar"}',
    )
    assert options("vllm", "0.19.1").words("convert_fp8") == ("--quantization", "fp8")
    assert options("vllm", "0.20.0").words("convert_fp8") == ("--quantization", "fp8_per_tensor")
    assert options("vllm", "0.10.0").words("request_log_off") == ("--disable-log-requests",)
    assert options("vllm", "0.33.0").words("request_log_off") == ("--no-enable-log-requests",)


def test_what_a_version_lacks_is_left_out_and_told_once():
    old = options("vllm", "0.17.1")
    assert not old.has("shutdown_timeout")
    assert old.missing == ()
    for _ in range(2):
        assert old.words("shutdown_timeout", "30") == ()
    assert old.variable("max_completions", "64") is None
    assert old.missing == (
        "vllm 0.17.1 cannot be told shutdown_timeout: --shutdown-timeout came with 0.18.0",
        "vllm 0.17.1 cannot be told max_completions: VLLM_MAX_N_SEQUENCES came with 0.19.0",
    )


def test_what_a_runtime_has_no_option_for_is_told_too():
    found = options("ollama", "0.32.15")
    assert found.words("tensor_parallel", "2") == ()
    assert found.missing == ("ollama 0.32.15 cannot be told tensor_parallel: it has no such option",)


def test_what_a_runtime_does_anyway_needs_no_words_and_is_not_missing():
    found = options("sglang", "0.5.23")
    assert found.has("usage_stats_off")
    assert found.words("usage_stats_off") == ()
    assert found.variable("usage_stats_off", "1") is None
    assert found.missing == ()


def test_a_setting_is_told_where_the_runtime_takes_it():
    assert options("vllm", "0.33.0").variable("offline", "1") == ("HF_HUB_OFFLINE", "1")
    assert options("vllm", "0.33.0").words("offline") == ()
    assert options("llama.cpp", "0.7.0").words("offline") == ("--offline",)
    assert options("llama.cpp", "0.7.0").variable("offline", "1") is None
    assert options("vllm", "0.33.0").words("model", "/srv/m") == ("/srv/m",)
    assert options("sglang", "0.5.23").words("model", "/srv/m") == ("--model-path", "/srv/m")
    assert options("tensorrt-llm", "1.2.1").key("kv_cache_dtype") == "kv_cache_config.dtype"
    assert options("ollama", "0.32.15").key("repetition_penalty") == "repeat_penalty"
    assert options("ollama", "0.32.15").key("host") is None


def test_a_value_that_is_always_the_same_needs_not_be_given():
    assert options("sglang", "0.5.23").words("access_log_off") == ("--log-level-http", "error")
    assert options("sglang", "0.5.23").words("chunked_prefill_off") == ("--chunked-prefill-size", "-1")


def test_an_option_without_its_value_is_a_mistake_of_ours():
    with pytest.raises(ValueError, match="max_model_len needs a value"):
        options("vllm", "0.33.0").words("max_model_len")


def test_a_setting_that_no_runtime_has_is_a_mistake_of_ours():
    with pytest.raises(KeyError, match="shutdwn_timeout"):
        options("vllm", "0.33.0").has("shutdwn_timeout")


@pytest.mark.parametrize("version", ["0.18.0rc1", "0.18.0.post1", "0.18.0+cpu"])
def test_candidates_rebuilds_and_local_builds_have_their_releases_options(version):
    assert options("vllm", version).has("shutdown_timeout")


@pytest.mark.parametrize(
    ("runtime", "version"),
    [
        *(("vllm", "0.8.5"), ("vllm", "0.33.0"), ("vllm", "0.32.0+cpu"), ("sglang", "0.5.10.post1")),
        *(("llama.cpp", "0.5.0"), ("llama.cpp", "b11429"), ("llama.cpp", "b11500"), ("llama.cpp", "b11669")),
        *(("ollama", "0.33.0"), ("lmstudio", "0.0.25-1"), ("tensorrt-llm", "1.4.0rc1")),
    ],
)
def test_versions_within_the_table_are_no_problem(runtime, version):
    assert version_problem(CATALOG, runtime, version) is None


@pytest.mark.parametrize(
    ("runtime", "version", "problem"),
    [
        ("vllm", "0.40.0", f"is not in the option table ({VLLM}): its options may have been renamed"),
        ("vllm", "0.8.4", f"is not in the option table ({VLLM}): it may lack options"),
        ("llama.cpp", "b12000", f"is newer than the option table ({LLAMA}, which is b11669)"),
        ("llama.cpp", "b9000", "is older than any tag of the option table (b11429)"),
        ("llama.cpp", "beta", "is neither a version nor a release tag such as b11669"),
        ("vllm", "main", f"is no version that can be compared with the option table's ({VLLM})"),
    ],
)
def test_versions_outside_the_table_are_told(runtime, version, problem):
    assert version_problem(CATALOG, runtime, version) == f"{runtime} {version} {problem}"


def test_a_runtime_without_a_table_is_told():
    assert version_problem(CATALOG, "mlx", "1.0") == "mlx has no option table"
    assert version_advice(CATALOG, "mlx") == "add [options.mlx] in a catalogue file of your own"
    assert version_advice(CATALOG, "vllm") == f"set allow_unknown_versions, or take one of {VLLM}"


def test_unknown_versions_are_told_everything_as_their_nearest_neighbours_are():
    for version in ("0.40.0", "main"):
        assert options("vllm", version).words("shutdown_timeout", "30") == ("--shutdown-timeout", "30")
    assert options("vllm", "0.1.0").words("request_log_off") == ("--disable-log-requests",)
    for version in ("b1", "b99999"):
        assert options("llama.cpp", version).words("slots_off") == ("--no-slots",)


@given(st.sampled_from(sorted(CATALOG.options)), st.text(max_size=20) | st.from_regex(r"b?[0-9.rcpost+-]{1,12}"))
def test_no_version_text_breaks_it(runtime, version):
    problem = version_problem(CATALOG, runtime, version)
    assert problem is None or runtime in problem
    found = options(runtime, version)
    for setting in CATALOG.options["vllm"].settings:
        assert len(found.words(setting, "1")) <= 2


def test_every_version_that_the_catalogue_picks_is_in_the_option_table():
    for entry in [entry for entry in CATALOG.stacks.runtimes.values() if entry.runtime in CATALOG.options]:
        for version in (entry.first, entry.pick, *entry.also):
            assert version_problem(CATALOG, entry.runtime, version) is None
