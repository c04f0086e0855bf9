"""A service as systemd runs it: the hardened base unit, what was planned for one service, and the watch over it."""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import replace

from rackserve.planning.plans import AnyServicePlan, GpuServicePlan
from rackserve.rendering.drivers import GROUPS
from rackserve.rendering.quadlet import HELPER, Surroundings, cache_folder, container_path, container_text
from rackserve.rendering.text import (
    LIBEXEC,
    TEMPLATES,
    UNIT_FOLDER,
    RenderedFile,
    program,
    systemd_assignment,
    systemd_word,
    template_text,
)
from rackserve.runtimes.launch import API_KEY_FILE, DRAIN_S, Launch
from rackserve.runtimes.member import Member

BASE_UNIT = f"{UNIT_FOLDER}/rackserve@.service"
HEALTH_UNIT = f"{UNIT_FOLDER}/rackserve-health@.service"
HEALTH_TIMER = f"{UNIT_FOLDER}/rackserve-health@.timer"
CREDENTIALS = "/etc/rackserve/credentials"
SERVICES = "/etc/rackserve/services"
_LIBRARY = "rackserve_helpers.py"
_HELPERS = ("drain", "gpu-in-use", "health", "launch", _LIBRARY, "wait-ready")
# The base unit's StartLimitBurst= and one more, its RestartSec=, and the shortest time that starts are counted in.
_STARTS, _PAUSE_S, _COUNTED_S = 6, 15, 3600
# The vendor's device nodes that every program on its cards opens, beside those of the cards.
_DEVICES = {
    "nvidia": ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools"),
    "amd": ("/dev/kfd",),
    "intel": (),
}


@functools.cache
def common_files() -> tuple[RenderedFile, ...]:
    """The same on every host with a service."""
    units = (
        RenderedFile(BASE_UNIT, base_text()),
        RenderedFile(HEALTH_UNIT, template_text("systemd/rackserve-health@.service.j2", libexec=LIBEXEC)),
        RenderedFile(HEALTH_TIMER, _text("rackserve-health@.timer")),
    )
    return (*units, *(program(name) for name in _HELPERS))


def service_files(plan: AnyServicePlan) -> tuple[RenderedFile, ...]:
    """What one service adds: its drop-in, what the helpers have to know of it, and its runtime's own files."""
    own = (drop_in(plan), probe_file(plan), *companion_files(plan, unit_digest(plan)))
    beside = (*_container_file(plan), *(program(name) for name in _programs(plan) if name not in _HELPERS))
    return (*own, *beside, *(RenderedFile(path, text) for path, text in plan.launch.files))


@functools.cache
def base_text(*, check: bool = False) -> str:
    """The base unit of services. check: of what asks whether a service's release compiles."""
    return template_text("systemd/rackserve@.service.j2", libexec=LIBEXEC, credentials=CREDENTIALS, check=check)


def _text(name: str) -> str:
    return (TEMPLATES / "systemd" / name).read_text(encoding="utf-8")


def _container_file(plan: AnyServicePlan) -> tuple[RenderedFile, ...]:
    """The file that a container's unit is made of."""
    if plan.launch.container is None:
        return ()
    return (RenderedFile(container_path(plan), _own_text(plan, unit_digest(plan))),)


def _programs(plan: AnyServicePlan) -> tuple[str, ...]:
    """Helper programs that become the service's process or make ready for it, and what these import."""
    if plan.launch.container is not None:
        return (HELPER, _LIBRARY)
    launches = [launch for launch in (plan.launch, plan.launch.companion) if launch is not None]
    commands = [words for launch in launches for words in (*launch.before, _command_words(launch), *launch.after)]
    named = {path.removeprefix(f"{LIBEXEC}/") for words in commands for path in words if path.startswith(f"{LIBEXEC}/")}
    return (*sorted(named), _LIBRARY) if named else ()


def drop_in(plan: AnyServicePlan) -> RenderedFile:
    """`10-plan.conf`: what was decided for one service. For a container, what podman's generator cannot be told."""
    path = f"{UNIT_FOLDER}/{plan.unit}.d/10-plan.conf"
    if plan.launch.container is not None:
        return RenderedFile(path, _text("10-plan-container.conf"))
    return RenderedFile(path, _own_text(plan, unit_digest(plan)))


def companion_files(plan: AnyServicePlan, digest: str) -> tuple[RenderedFile, ...]:
    """The unit of the process beside the service, where it needs one: the base unit again, and a drop-in of its own."""
    if plan.launch.companion is None:
        return ()
    path = f"{UNIT_FOLDER}/{companion_unit(plan)}"
    text = drop_in_text(plan, plan.launch.companion, digest)
    return (RenderedFile(path, base_text()), RenderedFile(f"{path}.d/10-plan.conf", text))


def companion_unit(plan: AnyServicePlan) -> str:
    """The unit of Ray's node beside a service, which runs as the service's user."""
    return f"rackserve-ray@{plan.name}.service"


def health_units(unit: str) -> tuple[str, str]:
    """The timer of the health check of a service, by the service's unit, and the unit that the timer starts."""
    name = unit.replace("@", "-health@", 1).removesuffix(".service")
    return f"{name}.timer", f"{name}.service"


def unit_digest(plan: AnyServicePlan) -> str:
    """SHA-256 over all text that decides how the service's process runs.

    The running process carries it in its environment, so that a run sees whether a restart is still owed, whatever an
    earlier, interrupted run did or did not do. What only looks at the process or waits for it is left out: a mended
    helper restarts no server that is in use.
    """
    member, contained = _member(plan), plan.launch.container is not None
    texts = [
        _text("10-plan-container.conf") if contained else base_text(),
        _own_text(plan, ""),
        *(file.text for file in companion_files(plan, "")),
        *(program(name).text for name in _programs(plan)),
        *(text for _, text in plan.launch.files),
        # A part of an instance begins anew with any other part.
        *([json.dumps(member.as_dict())] if member is not None else []),
    ]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def key_path(plan: AnyServicePlan) -> str | None:
    """Where a host keeps the API key of a service, for root only; None for servers that know no keys."""
    return None if plan.launch.key == "none" else f"{CREDENTIALS}/{plan.name}/api-key"


def probe_file(plan: AnyServicePlan) -> RenderedFile:
    """What wait-ready, drain and health have to know of a service."""
    launch, probe, member = plan.launch, plan.launch.probe, _member(plan)
    facts: dict[str, object] = {
        "name": plan.name,
        "unit": plan.unit,
        "url": plan.probe_url if plan.answers else None,
        "health": probe.health,
        "key_file": key_path(plan),
        "start_s": plan.start_timeout,
        "drain_s": DRAIN_S,
        "metrics": probe.metrics,
        "metrics_key": probe.metrics_key,
        "in_flight": list(probe.in_flight),
        "progress": list(probe.progress),
        "vendor": launch.vendor,
        "gpus": list(launch.gpus),
        "gpu_mib": launch.gpu_mib,
    }
    if launch.container is not None:
        facts["cache"] = cache_folder(plan, launch.container)
    if member is not None:
        # A node of Ray ends by itself when its head has gone; a process of vLLM's does not (measured with 0.32).
        joins = not member.is_head and member.distributed == "native"
        facts["joins"] = member.meeting_point if joins else None
    return RenderedFile(f"{SERVICES}/{plan.name}.json", json.dumps(facts, indent=2) + "\n")


def _own_text(plan: AnyServicePlan, digest: str) -> str:
    container = plan.launch.container
    if container is None:
        return drop_in_text(plan, plan.launch, digest)
    around = Surroundings(
        CREDENTIALS, key_path(plan), _allowed(plan), _start_timeout(plan), _start_limit(plan, plan.launch)
    )
    return container_text(plan, container, around, digest)


def _start_timeout(plan: AnyServicePlan) -> int:
    # systemd's own limit comes after the probe's, which says what it was still waiting for.
    return plan.start_timeout + 30


def _start_limit(plan: AnyServicePlan, launch: Launch) -> int:
    """Seconds in which starts are counted: long enough for starts that take all of their time before they fail."""
    # systemd times each command of a start by itself.
    commands = len(launch.before) + 1 + len(launch.after)
    return max(_COUNTED_S, _STARTS * (commands * _start_timeout(plan) + launch.stop_s + _PAUSE_S))


def _member(plan: AnyServicePlan) -> Member | None:
    return plan.member if isinstance(plan, GpuServicePlan) else None


def drop_in_text(plan: AnyServicePlan, launch: Launch, digest: str, *, command: tuple[str, ...] | None = None) -> str:
    """A drop-in of what this launch is. command: what asks whether its release compiles, run in its place."""
    member, beside, check = _member(plan), launch is plan.launch.companion, command is not None
    if check:
        launch = replace(launch, before=(), after=(), companion=None)
    return template_text(
        "systemd/10-plan.conf.j2",
        plan=plan,
        launch=launch,
        digest=digest,
        libexec=LIBEXEC,
        companion=companion_unit(plan),
        beside=beside,
        check=check,
        silent=beside or not (plan.answers or check),
        member=member,
        groups=GROUPS.get(launch.vendor, ()),
        credential=key_path(plan) if not beside else None,
        environment=[systemd_assignment(name, value) for name, value in launch.environment],
        before=[_command(words) for words in launch.before],
        caches=launch.compiling.caches if launch.compiling is not None else (),
        command=[_option(group) for group in _grouped(command or _command_words(launch))],
        after=[_command(words) for words in launch.after],
        devices=_devices(launch),
        allow_from=_allowed(plan),
        start_timeout=_start_timeout(plan),
        start_limit=_start_limit(plan, launch),
    )


def _command_words(launch: Launch) -> tuple[str, ...]:
    return (*launcher(launch), *launch.argv)


def launcher(launch: Launch) -> tuple[str, ...]:
    """What finds the cards by their numbers, and hands a key over without showing it to others."""
    gpus = card_options(launch)
    key = ("--key", launch.key_variable) if launch.key == "variable" else ()
    return (f"{LIBEXEC}/launch", *gpus, *key, "--") if gpus or key else ()


def card_options(launch: Launch) -> tuple[str, ...]:
    """How the launcher is told the cards of a launch."""
    numbers = ",".join(map(str, launch.gpus))
    how = ("--by-number",) if launch.by_number else ()
    return ("--gpus", numbers, *how) if numbers and launch.vendor in _DEVICES else ()


def _devices(launch: Launch) -> list[str]:
    """The vendor's common nodes, and the service's own cards, which gpu-ready has linked by number."""
    if launch.vendor not in _DEVICES or not launch.gpus:
        return []
    if launch.neighbours:
        # The group's name is another in older drivers (nvidia-frontend).
        return ["char-nvidia*"]
    return [*_DEVICES[launch.vendor], *(f"/dev/rackserve/gpu{number}" for number in launch.gpus)]


def _allowed(plan: AnyServicePlan) -> list[str]:
    """Networks that may talk to the service; its own addresses too, which the probe and its processes connect to."""
    own = [] if plan.service.listen in ("127.0.0.1", "0.0.0.0") else [plan.service.listen]  # noqa: S104 (compared)
    member = _member(plan)
    others = member.addresses if member is not None else ()
    return [systemd_word(network) for network in ("localhost", *own, *plan.service.allow_from, *others)]


def _grouped(argv: tuple[str, ...]) -> list[list[str]]:
    """The program, then each option with its value: one line each in the unit, so that a diff shows what changed."""
    groups: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not groups or groups[-1][-1] == "--":
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def _option(words: list[str]) -> str:
    return " ".join(_word(word) for word in words)


def _command(words: tuple[str, ...]) -> str:
    return _option(list(words))


def _word(word: str) -> str:
    return systemd_word(word, specifiers=word == API_KEY_FILE)
