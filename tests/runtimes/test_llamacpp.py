"""The command line of a plan."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from tests.planning.making import planned


def options(**service: Any) -> dict[str, str]:
    words = planned(8192, **service).launch.argv
    return {one: other for one, other in pairwise(words) if one.startswith("--")}


def test_the_command_line_states_every_limit_of_the_plan():
    plan = planned(8192, max_model_len=2048, concurrency=6, kv_cache_dtype="q8_0", port=9000)
    words = plan.launch.argv
    stated = dict(pairwise(words))
    assert words[0] == "/opt/rackserve/current/llama.cpp/bin/llama-server"
    assert (stated["--ctx-size"], stated["--parallel"]) == (str(2048 * 6), "6")
    assert (stated["--cache-type-k"], stated["--cache-type-v"]) == ("q8_0", "q8_0")
    assert (stated["--port"], stated["--host"], stated["--alias"]) == ("9000", "127.0.0.1", "a")
    assert stated["--model"] == plan.model_path


def test_nothing_is_left_to_defaults_that_take_memory_or_open_a_door():
    words = planned(8192).launch.argv
    stated = dict(pairwise(words))
    assert (stated["--fit"], stated["--cache-ram"], stated["--ubatch-size"]) == ("off", "0", "512")
    assert {"--no-slots", "--no-ui", "--offline", "--metrics", "--no-kv-unified"} <= set(words)


def test_the_api_key_is_given_as_a_file_and_never_as_a_word():
    stated = options()
    assert stated["--api-key-file"] == "%d/api-key"
    assert "--api-key" not in planned(8192).launch.argv


def test_threads_are_stated_only_where_asked_for():
    assert "--threads" not in options()
    assert options(threads=6)["--threads"] == "6"


def test_every_word_is_a_word():
    assert all(word and word == word.strip() for word in planned(8192, threads=2).launch.argv)
