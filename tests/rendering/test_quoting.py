"""No value ever becomes anything but the word it is, whatever is in it."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import ServicePlan
from rackserve.rendering.text import systemd_word
from rackserve.rendering.units import drop_in
from rackserve.settings import load_hosts
from tests.examples import examples
from tests.planning.making import SMALL, planned
from tests.rendering.units import analyze, directives, needs_systemd, words_by_manual, words_by_systemd

# All of Unicode but what UTF-8 cannot hold and ASCII's control characters.
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=[*map(chr, range(0x20)), "\x7f"])
    | st.sampled_from("\\\"'$%{};#=!@:+-*?~`&|<>()[] "),
    max_size=12,
)
TRICKY = [
    "",
    " ",
    ";",
    "\\",
    "\\\\",
    '"',
    "'",
    '\\"',
    "a b",
    " a",
    "a ",
    "$HOME",
    "${HOME}",
    "$$",
    "%n",
    "%%",
    "%",
    "$",
    "\\x41",
    "\\n",
    "#",
    "a#b",
    "\u0085",
    "\u2028",
    "\u00a0",
    "é",
    "\U0001f600",
    "--flag=a b",
    "end\\",
    "{}",
    "*",
    "~",
    "-",
    "@x",
    "+x",
    "!!x",
]


@given(texts)
def test_a_word_is_read_back_by_the_manuals_rules(text):
    assert words_by_manual(f"before {systemd_word(text)} after") == ["before", text, "after"]


@needs_systemd
@examples(25)
@given(st.lists(texts, min_size=1, max_size=30))
@example(TRICKY)
def test_a_word_is_read_back_by_systemd_itself(words):
    with tempfile.TemporaryDirectory() as folder:
        read = words_by_systemd(Path(folder), [systemd_word(word) for word in words])
    assert read == [[word] for word in words]


@needs_systemd
def test_systemd_has_nothing_to_say_about_the_quoted_words(tmp_path):
    lines = "".join(f"ExecStart=/bin/echo {systemd_word(word)}\n" for word in TRICKY)
    (tmp_path / "words.service").write_text(f"[Service]\nType=oneshot\n{lines}", encoding="utf-8", newline="")
    done = analyze("verify", "./words.service", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_parser_of_these_tests_agrees_with_systemd(tmp_path):
    written = ["a 'b c' \"d\\te\"", '"x""y"', "a\\x41b", '"\\u00e9 %% $$"', "''", 'mixed"q"']
    assert words_by_systemd(tmp_path, written) == [words_by_manual(text) for text in written]


@pytest.mark.parametrize("code", [*range(0x20), 0x7F])
def test_a_control_character_is_refused(code):
    for text in (chr(code), f"a{chr(code)}b", f"a{chr(code)}"):
        with pytest.raises(ValueError, match="control character"):
            systemd_word(text)
        with pytest.raises(ValueError, match="control character"):
            systemd_word(text, specifiers=True)


@pytest.mark.parametrize("word", ["--port", "8001", "/srv/models/a@0/b.gguf", "http://127.0.0.1:8001", "q8_0"])
def test_ordinary_words_stay_readable(word):
    assert systemd_word(word) == word


def test_only_our_own_constants_keep_their_specifiers():
    assert systemd_word("%d/api key", specifiers=True) == '"%d/api key"'
    assert systemd_word("%d/api-key") == '"%%d/api-key"'


# drop-ins

_service_data = st.fixed_dictionaries(
    {"name": st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)},
    optional={
        "listen": st.ip_addresses(v=4).map(str),
        "allow_from": st.lists(st.ip_addresses().map(str), max_size=3),
        "port": st.integers(1024, 65535),
        "threads": st.integers(1, 1024),
        "kv_cache_dtype": st.sampled_from(["f16", "q8_0", "q4_0"]),
        "concurrency": st.integers(1, 8),
    },
)
_networks = st.text("0123456789abcdef.:/%\n []=x", max_size=20) | st.builds(
    "fe80::1%{}".format, texts | st.just("x\nMemoryMax=infinity")
)
# One value at a time is anything at all: most of what is drawn is refused, and two of them nearly always.
_hostile = (
    st.fixed_dictionaries({"name": texts})
    | st.fixed_dictionaries({"listen": texts})
    | st.fixed_dictionaries({"allow_from": st.lists(_networks, min_size=1, max_size=2)})
    | st.fixed_dictionaries({"api_key_file": texts})
)
_services = _service_data | st.builds(lambda good, bad: good | bad, _service_data, _hostile)
_good_paths = st.from_regex(r"(/[a-z0-9_@+-][A-Za-z0-9._@+-]{0,8}){1,4}", fullmatch=True)
_paths = _good_paths | _good_paths | texts


def _accepted(service: dict[str, Any], **data: Any) -> ServicePlan:
    inventory = {"gpu_tag": "cpu", "memory_mib": 65536, "services": [{"model": SMALL} | service]} | data
    try:
        (plan,) = plan_hosts(load_hosts([("h1", inventory)]), load_catalog())
    except InputError:
        assume(condition=False)
    return plan.services[0]


def _keys(text: str) -> Counter[tuple[str, str]]:
    return Counter((section, key) for section, key, _ in directives(text))


@examples(300)
@given(_services, _paths, st.integers(10, 7200))
@example({"name": "a", "allow_from": ["fe80::1%x\nMemoryMax=infinity"]}, "/srv", 10)
def test_a_drop_in_has_the_templates_directives_and_no_others(service, models_dir, start_timeout):
    plan = _accepted(service, models_dir=models_dir, start_timeout=start_timeout)
    expected = _keys(drop_in(planned(65536)).text)
    own = plan.service.listen not in ("127.0.0.1", "0.0.0.0")  # noqa: S104
    expected["Service", "IPAddressAllow"] += len(plan.service.allow_from) + own
    assert _keys(drop_in(plan).text) == expected


@examples(100)
@given(_services, _paths)
def test_the_command_line_in_a_drop_in_is_the_planned_one(service, models_dir):
    plan = _accepted(service, models_dir=models_dir)
    commands = [value for _, key, value in directives(drop_in(plan).text) if key == "ExecStart"]
    assert commands[0] == ""
    read = words_by_manual(commands[1].replace("%d/api-key", "%%d/api-key"))
    assert tuple(read) == plan.launch.argv
