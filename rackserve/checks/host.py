"""Read back from a host, with testinfra, that it is what its plan says, and that it serves."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator

from testinfra.host import Host as TestinfraHost

from rackserve.checks.findings import Finding
from rackserve.checks.gpu import check_driver, driver_of
from rackserve.planning.model_source import MANIFEST, GgufSource
from rackserve.planning.plans import AnyServicePlan, HostPlan
from rackserve.rendering import host_files
from rackserve.rendering.drivers import all_files
from rackserve.rendering.text import LIBEXEC, RenderedFile
from rackserve.rendering.units import companion_unit, health_units, key_path, unit_digest

# `systemd-analyze security` prints tenths; 2.0 is what rackserve promises, and 4.0 of a unit in which podman sets up a
# container, which is what fences the server off then.
EXPOSURE_LIMIT = 20
CONTAINER_EXPOSURE_LIMIT = 40
_PROBE_S = 120
# How the kernel names a mapped file that is no longer there under its name.
_DELETED = " (deleted)"


def check_host(host: TestinfraHost, plan: HostPlan) -> Iterator[Finding]:
    """Every check of one host, in the order an admin would look: files, models, then each service."""
    driver = driver_of(host, plan)
    for file in (*(all_files(driver) if driver else ()), *host_files(plan)):
        yield _file(host, file)
    if driver is not None:
        yield from check_driver(host, driver)
    for service in plan.all_services:
        yield from _service(host, service)


def _finding(check: str, expected: str, found: str, service: str = "") -> Finding:
    return Finding(check, ok=expected == found, expected=expected, found=found, service=service)


def _file(host: TestinfraHost, file: RenderedFile) -> Finding:
    wanted = f"root {file.mode} {hashlib.sha256(file.text.encode()).hexdigest()[:12]}"
    there = host.file(file.path)
    found = f"{there.user} {there.mode:o} {there.sha256sum[:12]}" if there.is_file else "missing"
    return _finding(f"{file.path} as planned", wanted, found)


def _service(host: TestinfraHost, plan: AnyServicePlan) -> Iterator[Finding]:
    name = plan.name
    yield _model(host, plan)
    key_file = key_path(plan)
    if key_file is not None:
        key = host.file(key_file)
        found = _mode(key.user, key.mode) if key.exists else "missing"
        yield _finding("API key readable by root only", "root 600", found, name)
    user = host.user(plan.user)
    shell = user.shell if user.exists else "missing"
    yield _finding(f"user {plan.user} without a login", "/usr/sbin/nologin", shell, name)
    yield from _unit(host, plan)
    if not plan.answers:
        # Of an instance over several hosts the head answers for all.
        return
    yield _listening(host, plan)
    if key_file is not None:
        yield _refuses_strangers(host, plan)
    yield _answers(host, plan)


def _mode(user: str, mode: int) -> str:
    return f"{user} {mode:o}"


def _model(host: TestinfraHost, plan: AnyServicePlan) -> Finding:
    file, source = host.file(plan.model_path), plan.source
    if isinstance(source, GgufSource):
        found = file.sha256sum if file.is_file else "missing"
        return _finding(f"model {plan.model.name} intact", source.sha256, found, plan.name)
    return _snapshot(host, plan)


def _snapshot(host: TestinfraHost, plan: AnyServicePlan) -> Finding:
    """Every file of a repository by the checksums of its manifest, as they were verified when they came."""
    manifest = host.file(f"{plan.model_path}/{MANIFEST}")
    found = "no manifest"
    if manifest.is_file:
        try:
            listed = checksums(manifest.content_string)
            done = host.run("cd %s && printf %%s %s | sha256sum --check --quiet 2>&1", plan.model_path, listed)
            found = "intact" if done.rc == 0 else done.stdout.strip()[-300:]
        except (ValueError, KeyError, TypeError):
            found = "manifest broken"
    return _finding(f"model {plan.model.name} intact", "intact", found, plan.name)


def checksums(manifest: str) -> str:
    """The files of a manifest as sha256sum reads them. Raises ValueError, KeyError or TypeError for a broken one."""
    return "".join(f"{entry['sha256']}  {entry['file']}\n" for entry in json.loads(manifest)["files"])


def _unit(host: TestinfraHost, plan: AnyServicePlan) -> Iterator[Finding]:
    properties = host.service(plan.unit).systemd_properties
    name, contained = plan.name, plan.launch.container is not None
    state = f"{properties.get('ActiveState')} {properties.get('SubState')} {properties.get('UnitFileState')}"
    # podman makes a container's unit of its file at every boot.
    wanted = f"active running {'generated' if contained else 'enabled'}"
    yield _finding("unit running and enabled", wanted, state, name)
    most = plan.launch.memory_max_mib
    limit = "infinity" if most is None else str(most * 1024**2)
    yield _finding("memory limit as planned", limit, str(properties.get("MemoryMax", "none")), name)
    yield _active(host, "health timer", health_units(plan.unit)[0], name)
    if plan.launch.companion is not None:
        yield _active(host, "companion", companion_unit(plan), name)
    yield from _process(host, plan, properties.get("MainPID", "0"))
    most_exposed = CONTAINER_EXPOSURE_LIMIT if contained else EXPOSURE_LIMIT
    rated = host.run(f"systemd-analyze security --no-pager --threshold={most_exposed} %s", plan.unit)
    score = rated.stdout.strip().splitlines()[-1:] or ["not rated"]
    score_text = score[0].removeprefix("→ ").split(": ", 1)[-1]
    limit_text = f"at most {most_exposed / 10}"
    yield Finding("exposure by systemd-analyze security", rated.rc == 0, limit_text, score_text, name)


def _active(host: TestinfraHost, what: str, unit: str, service: str) -> Finding:
    return _finding(f"{what} active", "active", host.run("systemctl is-active %s", unit).stdout.strip(), service)


def _process(host: TestinfraHost, plan: AnyServicePlan, pid: str) -> Iterator[Finding]:
    """What runs: of a container the unit's process is podman's monitor, and the server that one's child."""
    container = plan.launch.container
    if container is not None:
        children = host.run("cat /proc/%s/task/%s/children", pid, pid).stdout.split()
        pid = children[0] if children else "0"
    environment = host.run("cat /proc/%s/environ", pid).stdout.split("\0")
    digest = next((entry.partition("=")[2] for entry in environment if entry.startswith("RACKSERVE_DIGEST=")), "none")
    yield _finding("process runs the planned digest", unit_digest(plan)[:12], digest[:12], plan.name)
    if container is not None:
        done = host.run("podman inspect --format '{{.ImageName}}' rackserve-%s", plan.name)
        yield _finding("container runs the planned image", container.image, done.stdout.strip(), plan.name)
        return
    program = host.run("readlink -f %s", plan.launch.program).stdout.strip() or plan.launch.program
    maps = host.run("grep -F -e %s /proc/%s/maps", f" {program}", pid).stdout
    yield _finding("process runs the current release", program, mapped(program, maps), plan.name)
    release = program.rpartition("/")[0]
    if host.run("ls -d %s/lib/python3*/site-packages/nvidia/*/bin/nvcc", release).rc == 0:
        there = host.run("test -x %s/cuda/bin/nvcc", release).rc == 0
        yield _finding("release has its compilers", "cuda/bin/nvcc", "cuda/bin/nvcc" if there else "missing", plan.name)


def mapped(program: str, maps: str) -> str:
    """What a process runs of a program, or of a folder that its libraries are in, by lines of its /proc/PID/maps."""
    paths = [line.split(maxsplit=5)[-1] for line in maps.splitlines()]
    own = [path for path in paths if path.removesuffix(_DELETED) == program or path.startswith(f"{program}/")]
    if not own:
        return "nothing of it"
    return "replaced on disk" if all(path.endswith(_DELETED) for path in own) else program


def _listening(host: TestinfraHost, plan: AnyServicePlan) -> Finding:
    """Exactly the planned address: a server that listens on all of them is reachable where nobody expects it."""
    addresses = host.run("ss -Hltn sport = :%s", str(plan.port)).stdout.split("\n")
    found = sorted({line.split()[3].rpartition(":")[0] for line in addresses if line.split()})
    return _finding(
        "listens where planned",
        f"{plan.service.listen}:{plan.port}",
        f"{', '.join(found) or 'nowhere'}:{plan.port}",
        plan.name,
    )


def _refuses_strangers(host: TestinfraHost, plan: AnyServicePlan) -> Finding:
    url = shlex.quote(f"{plan.probe_url}/v1/chat/completions")
    command = f"curl --noproxy '*' -s -o /dev/null -m 20 -w '%{{http_code}}' -d '{{}}' {url}"
    # check_output would read the % of curl's format as its own.
    found = host.backend.run(command).stdout.strip()
    return _finding("a request without a key is refused", "401", found, plan.name)


def _answers(host: TestinfraHost, plan: AnyServicePlan) -> Finding:
    """A real one-token completion, asked for on the host, so that the key stays there."""
    done = host.run(f"timeout {_PROBE_S} {LIBEXEC}/wait-ready %s", plan.name)
    found = "answered" if done.rc == 0 else (done.stderr or done.stdout).strip()[-300:]
    return _finding("answers a completion", "answered", found, plan.name)
