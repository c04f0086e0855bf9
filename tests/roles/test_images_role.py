"""roles/images.py and roles/services.py on hosts that only pretend, with a service in a container."""

from __future__ import annotations

from typing import Any

import pytest
from pyinfra.api.exceptions import PyinfraError

from rackserve.fleet import plan_fleet
from rackserve.rendering import host_files
from tests.roles.fakes import Answers, Command, Run, bare, converged, deploy

IMAGE = f"registry.example/mirror/trtllm@sha256:{'a' * 64}"
SERVICE = {
    "name": "chat",
    "model": "qwen3-8b",
    "runtime": "tensorrt-llm",
    "runtime_version": "1.2.1",
    "max_model_len": 8192,
}
DATA = {"gpu_tag": "l40s", "gpu_count": 2, "images": {"tensorrt-llm": IMAGE}, "_sudo": True}
TWO = DATA | {"services": [SERVICE, SERVICE | {"name": "code"}]}
NODE = """id={}
version={}
codename=x
arch=x86_64
glibc=glibc 2.41
mem_kib=99999999
init=systemd
pci=0x10de 0x26b9 0x030200"""
SCRIPT = "from roles.preflight import preflight\nfrom roles.images import images\nfrom roles.services import services\n"


def run(monkeypatch: Any, tmp_path: Any, data: dict[str, Any], answer: Answers) -> Run:
    script = tmp_path / "serve.py"
    script.write_text(f"{SCRIPT}\npreflight()\nimages()\nservices()\n")
    return deploy(str(script), {"h1": data}, {"h1": answer}, monkeypatch)


def scripts(made: Run) -> list[str]:
    """The scripts that the host was sent, by the first line of each, with their arguments."""
    names = ("image.sh", "packages.sh", "start.sh")
    return [name for command in made.changes["h1"] for name in names if f"# {name} " in command.stdin]


def debian(command: Command) -> str | None:
    return bare(NODE.format("debian", "13"))(command)


def test_images_are_there_before_any_service_is_touched(monkeypatch, tmp_path):
    made = run(monkeypatch, tmp_path, TWO, lambda command: "" if command.fact == "Podman" else debian(command))
    # Two services and one image.
    assert scripts(made) == ["packages.sh", "image.sh", "start.sh", "start.sh"]
    started = [command for command in made.changes["h1"] if "# start.sh " in command.stdin]
    folders = ["/var/cache/rackserve/chat", "/var/cache/rackserve/code"]
    assert [command.split()[-2:] for command in started] == [["container", folder] for folder in folders]
    # Two minutes more than a service may take: its unit says first what it was waiting for.
    (plan,) = plan_fleet([("h1", TWO)])
    assert [int(command.split()[-3]) for command in started] == [one.start_timeout + 120 for one in plan.all_services]


def test_a_host_that_serves_its_plan_is_sent_nothing(monkeypatch, tmp_path):
    made = run(monkeypatch, tmp_path, TWO, converged("h1", TWO, NODE.format("debian", "13"), "", []))
    assert made.changes == {"h1": []}


@pytest.mark.parametrize(("system", "version"), [("debian", "12"), ("ubuntu", "22.04")])
def test_a_host_whose_podman_is_too_old_is_refused_before_anything_is_changed(monkeypatch, tmp_path, system, version):
    said: list[str] = []

    def answer(command: Command) -> str | None:
        if "ships podman" in command:
            said.append(command)
        return bare(NODE.format(system, version))(command)

    with pytest.raises(PyinfraError, match="No hosts remaining"):
        run(monkeypatch, tmp_path, TWO, answer)
    (command,) = said
    assert "podman 4.7 is needed" in command
    assert "debian-13" in command


def test_the_file_of_the_unit_is_among_what_the_host_gets():
    (plan,) = plan_fleet([("@fake/h1", TWO)])
    paths = [file.path for file in host_files(plan)]
    assert len(paths) == len(set(paths))
    assert {f"/etc/containers/systemd/rackserve@{name}.container" for name in ("chat", "code")} <= set(paths)
