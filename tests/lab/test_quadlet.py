"""TensorRT-LLM on a lab host: pulled by digest, run by podman as a Quadlet unit with a card, watched, drained, removed.

The image is this machine's Python with a server that takes what the real one takes. The card is a simulated one: the
container gets /dev/null under its name, by a real CDI specification with a hook as the Container Toolkit's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from rackserve.catalog.loader import load_catalog
from rackserve.facts.units import Unit
from rackserve.lab.gpu import CATALOG, GpuChoice
from rackserve.lab.tiny_checkpoint import CONTEXT
from rackserve.planning.fit import plan_hosts
from rackserve.rendering.quadlet import quadlet_word
from rackserve.rendering.units import key_path, service_files, unit_digest
from rackserve.settings import load_hosts
from tests.lab import shortened
from tests.lab.checkpoints import MODEL, offer_checkpoint
from tests.lab.conftest import LabFactory
from tests.lab.deploying import main_pid
from tests.lab.gpu_sites import UNINSTALL, GpuSite
from tests.lab.registry import PYTHON, Image, layer, program, python_layer, registry
from tests.lab.talking import unit_state, wait_for
from tests.rendering.fleet import host_of
from tests.rendering.test_quoting import TRICKY

pytestmark = pytest.mark.lab
ENTRY = "/opt/nvidia/nvidia_entrypoint.sh"
STANDINS = Path(__file__).parent / "image"
# As NVIDIA's: a word to people, then what it is given.
ENTRYPOINT = "import os, sys\nprint('== TensorRT-LLM ==', flush=True)\nos.execvp(sys.argv[1], sys.argv[1:])\n"
# podman inside a host that is a container itself: no keyring, no limits of its own, no overlay over an overlay.
PODMAN = """mkdir -p /etc/containers/registries.conf.d
printf '[containers]\\nkeyring=false\\npids_limit=0\\ndefault_sysctls=[]\\n' >/etc/containers/containers.conf
printf '[storage]\\ndriver="vfs"\\nrunroot="/run/containers/storage"\\ngraphroot="/var/lib/containers/storage"\\n' \
>/etc/containers/storage.conf
printf '[[registry]]\\nlocation="{registry}"\\ninsecure=true\\n' >/etc/containers/registries.conf.d/lab.conf
printf '%s\\n' '#!/bin/sh' 'case $1 in --query-compute-apps=*)' \
'for pid in $(pgrep -f trtllm-serve); do for gpu in /proc/driver/nvidia/gpus/*; do' \
'sed -n "s/^GPU UUID: *\\t *\\(GPU-.*\\)/\\1, $pid, 500/p" "$gpu/information"; done; done; exit ;; esac' \
'exec /usr/bin/nvidia-smi "$@"' >/usr/local/bin/nvidia-smi
chmod 755 /usr/local/bin/nvidia-smi"""
FILE = "/etc/containers/systemd/rackserve@chat.container"
TRICKY_VALUE = "a \"b\" $HOME %n \\\\ ${X} 'c'"
# That the stand-in counts as.
VERSION = "1.2.1"
CHANGES = [
    "Images | podman installed",
    "Images | Image in place",
    "Models | Model's files in place",
    "Services | Service user present",
    "Services | Units and helpers as planned",
    "Services | Service serving its plan",
]


class ContainerSite(GpuSite):
    """A host with cards and their driver, and a registry with two builds of the image."""

    images: list[str]

    def until(self, metric: str) -> None:
        """Wait for a line of the metrics."""
        deadline = time.monotonic() + 30
        while metric not in self.ask("/prometheus/metrics")[1].splitlines():
            assert time.monotonic() < deadline, metric
            time.sleep(0.1)

    def put(self, path: str, text: str, mode: str) -> None:
        """Write a file of the host."""
        self.lab.ssh(self.name, f"mkdir -p $(dirname {path}); cat >{path}; chmod {mode} {path}", input=text)


@pytest.fixture(scope="module")
def site(lab_factory: LabFactory, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerSite]:
    lab, folder = lab_factory("quadlet"), tmp_path_factory.mktemp("quadlet")
    lab.up(1, "trixie", gpus=GpuChoice("l40s", 2))
    made = ContainerSite(lab, folder, "h1")
    catalogue = folder / "models.toml"
    # The stand-in computes nothing: its model may be one of longer prompts than a step has tokens.
    offered = offer_checkpoint(lab, folder)
    catalogue.write_text(offered.replace(f"max_position_embeddings = {CONTEXT}", "max_position_embeddings = 32768"))
    programs = {ENTRY: program(ENTRYPOINT), **standins()}
    base, builds = python_layer(), [layer(programs | {"/build": number}) for number in (b"1", b"2")]
    images = [Image([base, build], [ENTRY]) for build in builds]
    with registry(lab.state().gateway, images) as name:
        made.on(PODMAN.replace("{registry}", name))
        made.images = [f"{name}/lab/trtllm@{build.digest}" for build in images]
        made.data |= {
            "catalog": [str(lab.names.folder / CATALOG), str(catalogue)],
            "model_hub": lab.depot_url,
            "images": {"tensorrt-llm": made.images[0]},
            "services": [
                {"name": "chat", "model": MODEL, "runtime": "tensorrt-llm", "runtime_version": VERSION, "gpus": [1]}
            ],
        }
        assert made.run().code == 0
        yield made


def standins() -> dict[str, bytes]:
    """The programs of both runtimes."""
    files = {"trtllm-serve": "trtllm_serve.py", "vllm": "vllm.py"}
    return {f"/usr/local/bin/{name}": program((STANDINS / file).read_text()) for name, file in files.items()}


def test_a_bare_host_serves_from_the_image_and_a_second_run_changes_nothing(site: ContainerSite) -> None:
    run = site.served()
    assert run.changed(site.name) == CHANGES
    before = main_pid(site.lab, site.name)
    assert site.served().changed(site.name) == []
    assert main_pid(site.lab, site.name) == before
    assert site.on("systemctl show -p UnitFileState -p FragmentPath -p Result --value rackserve@chat").split() == [
        "success",
        "/run/systemd/generator/rackserve@chat.service",
        "generated",
    ]
    assert site.on("systemctl is-active rackserve-health@chat.timer").strip() == "active"
    assert "== TensorRT-LLM ==" in site.on("journalctl -u rackserve@chat -t rackserve-chat -o cat --no-pager")


def test_the_server_is_given_what_was_planned(site: ContainerSite) -> None:
    told = site.told("/told")
    argv = told["argv"]
    assert argv[:5] == ["/models/chat", "--host", "127.0.0.1", "--port", "8001"]
    assert told["config"]["kv_cache_config"]["free_gpu_memory_fraction"] > 0.5
    environment = told["environment"]
    digest = site.on(f"sed -n 's/^# Plan digest //p' {FILE}").strip()
    assert environment["RACKSERVE_DIGEST"] == digest
    assert (environment["HOME"], environment["HF_HUB_OFFLINE"]) == ("/cache", "1")
    assert told["shm_mib"] == 16 * 1024
    assert site.on("cat /var/cache/rackserve/chat/images/*/compiled") == "kernels"


def test_a_prompt_of_more_tokens_than_a_step_has_is_answered(site: ContainerSite) -> None:
    argv = site.told("/told")["argv"]
    longest, step = (int(argv[argv.index(option) + 1]) for option in ("--max_seq_len", "--max_num_tokens"))
    assert step < longest - 1
    message = {"role": "user", "content": "word " * (longest - 1)}
    status, text = site.ask("/v1/chat/completions", {"model": "chat", "max_tokens": 1, "messages": [message]})
    assert status == 200, text


def test_the_server_has_its_own_card_and_no_rights(site: ContainerSite) -> None:
    told = site.told("/told")
    user = [int(number) for number in site.on("id -u rackserve-chat; id -g rackserve-chat").split()]
    assert told["ids"] == user
    assert told["capabilities"]
    assert told["no_new_privileges"]
    # GPU 1 was asked for; the specification names it so.
    assert told["cards"] == ["nvidia1", "nvidiactl"]
    # The hook has been there, from within the unit's sandbox.
    assert told["libraries"] == ["00-nvcr.conf"]
    assert "nothing" not in told["forbidden"].values(), told["forbidden"]
    assert set(told["allowed"].values()) == {"nothing"}, told["allowed"]
    assert len(told["processes"]) == 1


def test_systemd_verifies_the_unit_and_rates_its_exposure_at_most_4(site: ContainerSite) -> None:
    verified = site.on("systemd-analyze verify --man=no /run/systemd/generator/rackserve@chat.service 2>&1")
    assert verified == ""
    rated = site.on("systemd-analyze security --no-pager --threshold=40 rackserve@chat.service | tail -n 1")
    assert "Overall exposure level" in rated
    site.on("systemd-analyze security --no-pager --threshold=40 rackserve@chat.service >/dev/null")


def test_the_host_is_verified(site: ContainerSite) -> None:
    done = site.rackserve("verify", str(site.write()))
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_starts_only_on_cards_that_are_as_planned(site: ContainerSite) -> None:
    site.on("systemctl stop rackserve@chat; cp /etc/rackserve/gpus.json /root")
    site.on('sed -i \'s/"count": 2/"count": 3/\' /etc/rackserve/gpus.json')
    site.on("sed -i 's/^WAIT_S = .*/WAIT_S = 1/' /usr/libexec/rackserve/gpu-ready")
    assert "ependency" in site.on("systemctl start rackserve@chat 2>&1; true")
    assert unit_state(site.lab, site.name)["ActiveState"] == "inactive"
    site.on("mv /root/gpus.json /etc/rackserve/gpus.json")
    assert CHANGES[-1] in site.served().changed(site.name)


def test_a_request_in_flight_is_answered_before_the_container_goes(site: ContainerSite) -> None:
    body = {"model": "chat", "max_tokens": 60, "messages": []}
    with ThreadPoolExecutor(1) as pool:
        request = pool.submit(site.ask, "/v1/chat/completions", body)
        site.until("trtllm_num_requests_running 1")
        assert not request.done(), request.result()
        site.on("systemctl stop rackserve@chat")
        assert request.result()[0] == 200
    state = unit_state(site.lab, site.name)
    assert (state["ActiveState"], state["Result"]) == ("inactive", "success")
    assert site.on("podman ps -aq; pgrep -f [t]rtllm-serve; true") == ""
    site.on("systemctl start rackserve@chat")


def test_a_server_that_dies_is_started_again(site: ContainerSite) -> None:
    before = main_pid(site.lab, site.name)
    with shortened.restarts(site.lab, site.name):
        site.on("podman kill -s KILL rackserve-chat")
        wait_for(site.lab, site.name, 60, ActiveState="active", SubState="running", NRestarts="1")
    assert main_pid(site.lab, site.name) != before


def test_it_is_back_after_a_reboot(site: ContainerSite) -> None:
    site.lab.reboot(site.name)
    wait_for(site.lab, site.name, 60, ActiveState="active", SubState="running")
    assert site.told("/told")["cards"] == ["nvidia1", "nvidiactl"]
    assert site.served().changed(site.name) == []


def test_every_word_reaches_the_container_as_it_is(site: ContainerSite) -> None:
    tell = "import json, os, sys; print(json.dumps([sys.argv[1:], os.environ['TRICKY']]))"
    tricky = [word for word in TRICKY if word not in {"", ";"} and word.isascii()]
    words = " ".join(quadlet_word(word) for word in (str(PYTHON), "-c", tell, *tricky))
    lines = ["[Container]", f"Image={site.images[0]}", "Pull=never", "User=0", "Network=host", "PidsLimit=0"]
    lines += [
        f"Exec={words}",
        f"Environment={quadlet_word(f'TRICKY={TRICKY_VALUE}')}",
        "PodmanArgs=--entrypoint=",
        "LogDriver=passthrough",
    ]
    site.put("/etc/containers/systemd/words.container", "\n".join([*lines, "[Service]", "Type=oneshot", ""]), "644")
    site.on("systemctl daemon-reload; systemctl start words")
    told = site.on("journalctl -u words -o cat --no-pager | grep '^\\[\\['")
    assert json.loads(told) == [tricky, TRICKY_VALUE]
    site.on("rm /etc/containers/systemd/words.container; systemctl daemon-reload")


def test_a_key_is_in_the_servers_process_alone(site: ContainerSite) -> None:
    """As vLLM on AMD's cards has it, without the cards."""
    data = host_of("mi300x", "vllm", name="keyed", runtime_version="0.31.0", port=8002) | {"os": "rocky-9"}
    (host,) = plan_hosts(load_hosts([("h1", data | {"images": {"vllm": site.images[0]}})]), load_catalog())
    (service,) = host.gpu_services
    plan = replace(service, launch=replace(service.launch, vendor="none", gpus=(), gpu_mib=0))
    for file in service_files(plan):
        site.put(file.path, file.text, file.mode)
    site.put("/etc/rackserve/credentials/keyed/api-key", "sk-of-the-test-alone\n", "600")
    site.on(f"mkdir -p {plan.model_path}; useradd -r rackserve-keyed; systemctl daemon-reload")
    # It returns when it has answered with the key.
    site.on("systemctl start rackserve@keyed")
    fact = Unit()
    state = fact.process(site.on(fact.command(plan.unit, None, key_path(plan))).splitlines())
    assert state.runs(unit_digest(plan)), state
    told = (
        "podman inspect rackserve-keyed; systemctl show rackserve@keyed; journalctl -u rackserve@keyed; ps ax -o args"
    )
    assert "sk-of-the" not in site.on(told)
    site.on("systemctl stop rackserve@keyed")
    assert site.on("podman secret ls --noheading; grep -rl sk-of-the /var/lib/containers /run; true") == ""
    assert site.served().changed(site.name) == ["Services | Services that are not planned gone"]


def test_another_image_is_pulled_and_the_service_moves_to_it(site: ContainerSite) -> None:
    site.data["images"] = {"tensorrt-llm": site.images[1]}
    assert site.served().changed(site.name) == [CHANGES[1], *CHANGES[4:]]
    assert site.on("podman inspect --format '{{.ImageName}}' rackserve-chat").strip() == site.images[1]
    assert site.on("cat /var/lib/rackserve/images").split() == site.images


def test_an_image_that_the_registry_has_not_is_told(site: ContainerSite) -> None:
    site.data["images"] = {"tensorrt-llm": site.images[1][:-4] + "0000"}
    run = site.deploy()
    assert run.failed(site.name) == [CHANGES[1]]
    assert f"not pulled: {site.images[1][:-4]}0000" in run.said_of(site.name)
    assert unit_state(site.lab, site.name)["ActiveState"] == "active"
    site.data["images"] = {"tensorrt-llm": site.images[1]}


def test_it_is_taken_off_the_host_with_its_images(site: ContainerSite) -> None:
    services, site.data["services"] = site.data["services"], []
    assert site.served().changed(site.name) == ["Services | Services that are not planned gone"]
    places = f"{FILE} /etc/rackserve/services/chat.* /var/cache/rackserve/chat /run/rackserve/chat.env"
    assert site.on(f"ls -d {places} 2>/dev/null; true") == ""
    assert unit_state(site.lab, site.name)["ActiveState"] == "inactive"
    site.data["services"] = services
    run = site.deploy(script=UNINSTALL)
    assert run.code == 0, run.text
    assert "Uninstall | Container images of rackserve's gone" in run.changed(site.name)
    assert site.on("command -v podman; ls /var/lib/rackserve 2>/dev/null; true") == ""
