"""What launchd gets for a service: these keys and no others, each word what it is, no secret, a digest of it all.

After a wanted change: RACKSERVE_WRITE_GOLDEN=1 pytest tests/rendering/test_launchd.py, then read the diff.
"""

from __future__ import annotations

import os
import plistlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from rackserve.catalog.loader import load_catalog
from rackserve.domain.errors import InputError
from rackserve.planning.fit import plan_hosts
from rackserve.planning.plans import GpuServicePlan
from rackserve.rendering import host_files, service_digest
from rackserve.rendering.launchd import account, daemon_digest, daemon_files, label, watch_label
from rackserve.rendering.units import key_path, unit_digest
from rackserve.runtimes.launch import API_KEY_FILE
from rackserve.settings import load_hosts
from tests.examples import examples
from tests.macos.planning import data_of, host_plan_of, plan_of
from tests.planning.making import planned
from tests.rendering.test_quoting import texts

GOLDEN = Path(__file__).parent / "golden" / "macos"
KEYS = {
    "Label",
    "ProgramArguments",
    "UserName",
    "GroupName",
    "WorkingDirectory",
    "EnvironmentVariables",
    "Umask",
    "RunAtLoad",
    "KeepAlive",
    "ThrottleInterval",
    "ProcessType",
    "SoftResourceLimits",
    "ExitTimeOut",
    "StandardOutPath",
    "StandardErrorPath",
}
WATCH_KEYS = {
    "Label",
    "ProgramArguments",
    "EnvironmentVariables",
    "Umask",
    "StartInterval",
    "StandardOutPath",
    "StandardErrorPath",
}
# XML cannot hold them, and no key of an inventory lets them through.
words = st.text(st.characters(exclude_categories=["Cc", "Cs", "Cn"], exclude_characters="\ufffe\uffff"), max_size=20)


def job_of(plan: GpuServicePlan, *, watch: bool = False) -> dict[str, Any]:
    wanted = f"/Library/LaunchDaemons/{(watch_label if watch else label)(plan.name)}.plist"
    (text,) = [file.text for file in daemon_files(plan) if file.path == wanted]
    return plistlib.loads(text.encode())


def known(plan: GpuServicePlan) -> dict[str, str]:
    (text,) = [file.text for file in daemon_files(plan) if file.path.endswith(".conf")]
    return dict(line.split(" ", 1) for line in text.splitlines())


# files


@pytest.mark.parametrize("name", ["io.rackserve.chat.plist", "io.rackserve.chat.health.plist", "chat.conf"])
def test_a_file_is_the_golden_one(name):
    (file,) = [file for file in host_files(host_plan_of()) if file.path.endswith(f"/{name}")]
    # The digest has tests of its own.
    text = re.sub(r"\b[0-9a-f]{64}\b", "DIGEST", file.text)
    if os.environ.get("RACKSERVE_WRITE_GOLDEN"):
        GOLDEN.mkdir(parents=True, exist_ok=True)
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_a_mac_gets_these_files_and_none_of_systemds():
    libexec = "/usr/local/libexec/rackserve"
    expected = dict.fromkeys(
        (
            "/Library/LaunchDaemons/io.rackserve.chat.plist",
            "/Library/LaunchDaemons/io.rackserve.chat.health.plist",
            "/etc/rackserve/services/chat.conf",
            f"{libexec}/common.sh",
        ),
        "644",
    ) | dict.fromkeys((f"{libexec}/{name}" for name in ("drain", "health", "wait-ready")), "755")
    files = host_files(host_plan_of())
    assert {file.path: file.mode for file in files} == expected
    assert [file.path for file in files] == sorted(expected)
    for file in files:
        assert file.text.endswith("\n")


def test_a_mac_that_is_pretended_is_served_by_systemd():
    data = data_of(gpu_simulated=True) | {"os": "debian-12"}
    (plan,) = plan_hosts(load_hosts([("h1", data)]), load_catalog())
    assert plan.services
    assert not [file for file in host_files(plan) if "Launch" in file.path]


def test_a_mac_without_services_gets_no_files():
    (plan,) = plan_hosts(load_hosts([("mac1", data_of() | {"services": []})]), load_catalog())
    assert host_files(plan) == ()


# the daemon


def test_a_daemon_has_these_keys_and_no_others():
    assert job_of(plan_of()).keys() == KEYS
    assert job_of(plan_of(), watch=True).keys() == WATCH_KEYS


def test_a_daemon_is_what_was_planned():
    plan = plan_of()
    job = job_of(plan)
    assert job["ProcessType"] == "Interactive"
    assert job["KeepAlive"] == {"SuccessfulExit": False}
    assert job["Umask"] == 0o77
    assert job["ExitTimeOut"] == plan.launch.stop_s
    assert job["UserName"] == job["GroupName"] == account(plan.name) == "_rackserve-chat"
    assert job["WorkingDirectory"] == job["EnvironmentVariables"]["HOME"] == "/var/lib/rackserve/chat"


def test_the_longest_name_of_a_service_is_a_name_of_an_account():
    # MAXLOGNAME of macOS is 255, the end of the string included.
    assert len(account("a" * 22)) < 255


def test_the_key_is_named_by_its_place_and_stands_nowhere(tmp_path):
    (tmp_path / "key").write_text("sk-this-is-the-secret\n")
    plan = plan_of({"api_key_file": str(tmp_path / "key")})
    words = job_of(plan)["ProgramArguments"]
    assert words[words.index("--api-key-file") + 1] == key_path(plan) == known(plan)["key_file"]
    for file in daemon_files(plan):
        assert API_KEY_FILE not in file.text
        assert "sk-this-is" not in file.text
        assert str(tmp_path) not in file.text


@given(st.lists(words, min_size=1, max_size=8), st.dictionaries(words, words, max_size=4), words)
@example(["&amp;", "<string>", "]]>", "a b", "", "\u0085\u2028"], {"A": '"'}, "é\U0001f600")
def test_words_and_variables_come_out_as_they_went_in(argv, environment, text):
    plan = plan_of()
    launch = replace(plan.launch, argv=tuple(argv), environment=tuple(environment.items()), files=(("/x", text),))
    job = job_of(replace(plan, launch=launch))
    assert job.keys() == KEYS
    assert job["ProgramArguments"] == [key_path(plan) if word == API_KEY_FILE else word for word in argv]
    own = {"HOME": "/var/lib/rackserve/chat"} | environment
    assert job["EnvironmentVariables"] == own | {"RACKSERVE_DIGEST": job["EnvironmentVariables"]["RACKSERVE_DIGEST"]}


@pytest.mark.parametrize("character", ["\0", "\x01", "\x1b"])
def test_a_control_character_is_refused(character):
    plan = plan_of()
    with pytest.raises(ValueError, match="control character"):
        daemon_files(replace(plan, launch=replace(plan.launch, argv=("/bin/x", f"a{character}b"))))


_data = st.fixed_dictionaries(
    {},
    optional={
        "name": st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True) | texts,
        "listen": st.ip_addresses(v=4).map(str) | texts,
        "port": st.integers(1024, 65535),
        "temperature": st.floats(0.1, 2),
        "top_p": st.floats(0.01, 1),
        "max_output_tokens": st.integers(1, 10**6),
        "api_key_file": texts,
    },
)
_paths = st.from_regex(r"(/[a-z0-9_@+-][A-Za-z0-9._@+-]{0,8}){1,4}", fullmatch=True) | texts


@examples(150)
@given(_data, _paths, st.integers(10, 7200))
@example({"listen": "127.0.0.1\nlabel x"}, "/opt", 10)
def test_whatever_an_inventory_says_changes_no_key_and_no_line(data, models_dir, start_timeout):
    try:
        plan = plan_of(data, models_dir=models_dir, start_timeout=start_timeout)
    except InputError:
        assume(condition=False)
    job = job_of(plan)
    assert job.keys() == KEYS
    assert job["ProgramArguments"] == [key_path(plan) if word == API_KEY_FILE else word for word in plan.launch.argv]
    assert known(plan).keys() == known(plan_of()).keys()
    assert known(plan)["url"] == plan.probe_url


# the digest


CHANGES: list[dict[str, Any]] = [
    {"max_model_len": 4096},
    {"concurrency": 2},
    {"kv_cache_dtype": "q8_0"},
    {"temperature": 0.5},
    {"port": 9001},
    {"listen": "10.0.0.5"},
    {"name": "b"},
    {"model": "qwen3-4b"},
]


def test_every_decided_value_has_its_own_digest():
    digests = [daemon_digest(plan_of(change)) for change in [{}, *CHANGES]]
    digests += [daemon_digest(plan_of(**change)) for change in ({"models_dir": "/opt/other"}, {"start_timeout": 100})]
    plan = plan_of()
    for beside in ({"files": (("/etc/x", "y"),)}, {"files": (("/etc/y", "y"),)}, {"links": (("/etc/z", "/y"),)}):
        digests.append(daemon_digest(replace(plan, launch=replace(plan.launch, **beside))))
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("change", [{}, {"allow_from": ["10.0.0.0/8"]}, {"api_key_file": "/elsewhere"}])
def test_what_decides_nothing_new_leaves_the_digest_alone(change):
    assert daemon_digest(plan_of(change)) == daemon_digest(plan_of())


def test_both_jobs_carry_the_digest():
    plan = plan_of()
    for watch in (False, True):
        assert job_of(plan, watch=watch)["EnvironmentVariables"]["RACKSERVE_DIGEST"] == daemon_digest(plan)
    assert re.fullmatch(r"[0-9a-f]{64}", daemon_digest(plan))


def test_a_digest_is_that_of_what_runs_the_service():
    assert service_digest(plan_of()) == daemon_digest(plan_of())
    assert service_digest(planned(65536)) == unit_digest(planned(65536))
