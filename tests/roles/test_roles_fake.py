"""deploys/serve.py on hosts that only pretend: order, refusals, and silence where there is nothing to do."""

from __future__ import annotations

from typing import Any

import pytest
from pyinfra.api.exceptions import PyinfraError

from tests.roles.fakes import Run, bare, converged, deploy

FORKY = "id=debian\ncodename=forky\narch=x86_64\nglibc=glibc 2.43\nmem_kib=8388608\ninit=systemd\nflags=avx2"
BOOKWORM = "id=debian\ncodename=bookworm\narch=x86_64\nglibc=glibc 2.36\nmem_kib=8388608\ninit=systemd\nflags=avx2"
H100 = f"{BOOKWORM}\npci=0x10de 0x2331 0x030200"
HELPERS = ["ca-certificates", "curl", "python3"]


def host(*names: str, **data: Any) -> dict[str, Any]:
    services = [{"name": name, "model": "smollm2-135m-instruct"} for name in names or ("chat",)]
    return {"gpu_tag": "cpu", "memory_mib": 8192, "services": services, "_sudo": True} | data


UNLIKE = {"forky": host("chat"), "bookworm": host("chat", "second", llamacpp_install="archive")}
BARE = {"forky": bare(FORKY), "bookworm": bare(BOOKWORM)}


@pytest.fixture
def serve(monkeypatch):
    def run(hosts: dict[str, Any], answers: dict[str, Any]) -> Run:
        return deploy("serve.py", hosts, answers, monkeypatch)

    return run


def operation_names(run: Run) -> list[str]:
    return ["/".join(sorted(names)) for names in run.names]


def test_operations_come_in_the_order_of_the_deploy(serve):
    run = serve({"forky": UNLIKE["forky"]}, {"forky": bare(FORKY)})
    assert run.failed == set()
    assert operation_names(run) == [
        "Preflight | Host is what its tag says",
        "llama.cpp | Packages for llama.cpp installed",
        "llama.cpp | Release of llama-server current",
        "Models | Model in place",
        "Services | Services that are not planned gone",
        "Services | Service user present",
        "Services | API key in place",
        "Services | Units and helpers as planned",
        "Services | Service serving its plan",
    ]


def test_unlike_hosts_do_not_change_the_order(serve):
    run = serve(UNLIKE, BARE)
    assert run.failed == set()
    kinds = [name.split(" | ")[0] for name in operation_names(run)]
    assert kinds == sorted(kinds, key=["Preflight", "llama.cpp", "Models", "Services"].index)
    assert len(run.operations["bookworm"]) == len(run.operations["forky"]) + 3


def test_unlike_operations_never_share_a_hash(serve):
    # pyinfra tells operations apart by line numbers: those that share one are run as one, with the settings of either.
    for names in serve(UNLIKE, BARE).names:
        assert len({tuple(name.split()[:4]) if "Release" not in name else "Release" for name in names}) == 1, names


def test_an_operation_has_one_name_on_all_hosts(serve):
    # Where it has several, pyinfra prints them all for each host, and nobody can tell which is meant.
    for names in serve(UNLIKE, BARE).names:
        assert len(names) == 1, names


def test_a_bare_host_is_sent_what_it_lacks_in_order(serve):
    run = serve({"bookworm": UNLIKE["bookworm"]}, {"bookworm": bare(BOOKWORM)})
    sent = run.changes["bookworm"]
    marks = [
        "llama-b11429-bin-ubuntu-x64",
        "SmolLM2",
        "useradd",
        "credentials/chat",
        "10-plan.conf",
        "@chat.service 10",
    ]
    positions = [next(index for index, command in enumerate(sent) if mark in command) for mark in marks]
    assert positions == sorted(positions)


def test_hosts_that_are_as_planned_are_sent_nothing(serve):
    pinned = "llama.cpp-f6d25dde8f51"
    answers = {
        "forky": converged("forky", UNLIKE["forky"], FORKY, "llama.cpp-llama.cpp-tools", [*HELPERS, "llama.cpp-tools"]),
        "bookworm": converged("bookworm", UNLIKE["bookworm"], BOOKWORM, pinned, [*HELPERS, "libgomp1"]),
    }
    run = serve(UNLIKE, answers)
    assert run.failed == set()
    assert run.changes == {"forky": [], "bookworm": []}


def test_a_host_with_the_wrong_tag_is_refused_and_the_other_goes_on(serve):
    run = serve(UNLIKE, {"forky": bare(FORKY), "bookworm": bare(H100)})
    assert run.failed == {"bookworm"}
    (refusal,) = run.changes["bookworm"]
    assert "h100-pcie" in refusal
    assert any("@chat.service" in command for command in run.changes["forky"])


def test_a_host_that_does_not_tell_what_it_is_fails_alone(serve):
    run = serve(UNLIKE, {"forky": bare(FORKY), "bookworm": bare("id=debian")})
    assert run.failed == {"bookworm"}
    assert not any("useradd" in command for command in run.changes["bookworm"])
    assert any("@chat.service" in command for command in run.changes["forky"])


def test_an_inventory_with_problems_runs_nothing_and_tells_them_all(monkeypatch):
    asked: list[str] = []
    hosts = {"one": host(gpu_tags="cpu", memory_mib="much"), "two": host("Not-A-Name"), "fine": host()}
    answers = dict.fromkeys(hosts, asked.append)
    with pytest.raises(PyinfraError) as caught:
        deploy("serve.py", hosts, answers, monkeypatch)
    told = str(caught.value)
    assert all(word in told for word in ("@fake/one", "gpu_tags", "memory_mib", "@fake/two", "Not-A-Name"))
    assert "fine" not in told
    assert not [command for command in asked if "os-release" not in command]


def test_a_service_that_fits_nowhere_runs_nothing_on_any_host(monkeypatch):
    asked: list[str] = []
    hosts = {"small": host(memory_mib=128), "fine": host(), "missing": host(gpu_tag="cpu", services=[])}
    answers = dict.fromkeys(hosts, asked.append)
    with pytest.raises(PyinfraError, match="does not fit"):
        deploy("serve.py", hosts, answers, monkeypatch)
    assert asked == []


def test_a_host_without_services_loses_those_it_has_and_gets_no_runtime(serve):
    def answer(command: str) -> str | None:
        return "/etc/systemd/system/rackserve@old.service.d" if "ls -1d" in command else bare(FORKY)(command)

    run = serve({"forky": host(services=[])}, {"forky": answer})
    assert [command.rpartition("sh -s -- ")[2].strip("'") for command in run.changes["forky"]] == ["old"]


def test_uninstalling_a_clean_host_changes_nothing(monkeypatch):
    run = deploy("uninstall.py", {"forky": host()}, {"forky": bare(FORKY)}, monkeypatch)
    assert run.changes == {"forky": []}
    assert len(run.operations["forky"]) == 5
