"""Read back from a host, with testinfra, that it is what its plan says, and that it serves."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator

from testinfra.host import Host as TestinfraHost

from rackserve.checks.findings import Finding
from rackserve.checks.gpu import check_driver, driver_of
from rackserve.planning.plans import HostPlan, ServicePlan
from rackserve.rendering import LIBEXEC, RenderedFile, host_files, key_path, unit_digest
from rackserve.rendering.drivers import all_files
from rackserve.runtimes import llamacpp

# `systemd-analyze security` prints tenths; 2.0 is what rackserve promises.
EXPOSURE_LIMIT = 20
_PROBE_S = 120


def check_host(host: TestinfraHost, plan: HostPlan) -> Iterator[Finding]:
    """Every check of one host, in the order an admin would look: files, models, then each service."""
    driver = driver_of(host, plan)
    for file in (*(all_files(driver) if driver else ()), *host_files(plan)):
        yield _file(host, file)
    if driver is not None:
        yield from check_driver(host, driver)
    for service in plan.services:
        yield from _service(host, service)


def _finding(check: str, expected: str, found: str, service: str = "") -> Finding:
    return Finding(check, ok=expected == found, expected=expected, found=found, service=service)


def _file(host: TestinfraHost, file: RenderedFile) -> Finding:
    wanted = f"root {file.mode} {hashlib.sha256(file.text.encode()).hexdigest()[:12]}"
    there = host.file(file.path)
    found = f"{there.user} {there.mode:o} {there.sha256sum[:12]}" if there.is_file else "missing"
    return _finding(f"{file.path} as planned", wanted, found)


def _service(host: TestinfraHost, plan: ServicePlan) -> Iterator[Finding]:
    name = plan.name
    yield _model(host, plan)
    key = host.file(key_path(plan))
    yield _finding(
        "API key readable by root only", "root 600", _mode(key.user, key.mode) if key.exists else "missing", name
    )
    user = host.user(plan.user)
    shell = user.shell if user.exists else "missing"
    yield _finding(f"user {plan.user} without a login", "/usr/sbin/nologin", shell, name)
    yield from _unit(host, plan)
    yield _listening(host, plan)
    yield _refuses_strangers(host, plan)
    yield _answers(host, plan)


def _mode(user: str, mode: int) -> str:
    return f"{user} {mode:o}"


def _model(host: TestinfraHost, plan: ServicePlan) -> Finding:
    file = host.file(plan.model_path)
    found = file.sha256sum if file.is_file else "missing"
    return _finding(f"model {plan.model.name} {plan.gguf.quantization} intact", plan.gguf.sha256, found, plan.name)


def _unit(host: TestinfraHost, plan: ServicePlan) -> Iterator[Finding]:
    properties = host.service(plan.unit).systemd_properties
    name = plan.name
    state = f"{properties.get('ActiveState')} {properties.get('SubState')} {properties.get('UnitFileState')}"
    yield _finding("unit running and enabled", "active running enabled", state, name)
    limit = str(plan.footprint.limit_mib * 1024**2)
    yield _finding("memory limit as planned", limit, str(properties.get("MemoryMax", "none")), name)
    pid = properties.get("MainPID", "0")
    environment = host.run("cat /proc/%s/environ", pid).stdout.split("\0")
    digest = next((entry.partition("=")[2] for entry in environment if entry.startswith("RACKSERVE_DIGEST=")), "none")
    yield _finding("process runs the planned digest", unit_digest(plan)[:12], digest[:12], name)
    program = host.run("readlink -f %s", llamacpp.PROGRAM).stdout.strip()
    yield _finding(
        "process runs the current release", program, host.run("readlink /proc/%s/exe", pid).stdout.strip(), name
    )
    rated = host.run(f"systemd-analyze security --no-pager --threshold={EXPOSURE_LIMIT} %s", plan.unit)
    score = rated.stdout.strip().splitlines()[-1:] or ["not rated"]
    score_text = score[0].removeprefix("→ ").split(": ", 1)[-1]
    limit_text = f"at most {EXPOSURE_LIMIT / 10}"
    yield Finding("exposure by systemd-analyze security", rated.rc == 0, limit_text, score_text, name)


def _listening(host: TestinfraHost, plan: ServicePlan) -> Finding:
    """Exactly the planned address: a server that listens on all of them is reachable where nobody expects it."""
    addresses = host.run("ss -Hltn sport = :%s", str(plan.port)).stdout.split("\n")
    found = sorted({line.split()[3].rpartition(":")[0] for line in addresses if line.split()})
    return _finding(
        "listens where planned",
        f"{plan.service.listen}:{plan.port}",
        f"{', '.join(found) or 'nowhere'}:{plan.port}",
        plan.name,
    )


def _refuses_strangers(host: TestinfraHost, plan: ServicePlan) -> Finding:
    url = shlex.quote(f"{plan.probe_url}/v1/chat/completions")
    command = f"curl --noproxy '*' -s -o /dev/null -m 20 -w '%{{http_code}}' -d '{{}}' {url}"
    # check_output would read the % of curl's format as its own.
    found = host.backend.run(command).stdout.strip()
    return _finding("a request without a key is refused", "401", found, plan.name)


def _answers(host: TestinfraHost, plan: ServicePlan) -> Finding:
    """A real one-token completion, asked for on the host, so that the key stays there."""
    done = host.run(f"{LIBEXEC}/wait-ready %s %s {_PROBE_S} %s", plan.probe_url, plan.name, key_path(plan))
    found = "answered" if done.rc == 0 else (done.stderr or done.stdout).strip()[-300:]
    return _finding("answers a completion", "answered", found, plan.name)
