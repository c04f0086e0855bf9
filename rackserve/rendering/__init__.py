"""Templates to text. systemd quoting lives here, once."""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import jinja2

from rackserve.planning.plans import HostPlan, ServicePlan
from rackserve.runtimes import llamacpp

TEMPLATES = Path(__file__).resolve().parents[2] / "templates"
UNIT_FOLDER = "/etc/systemd/system"
BASE_UNIT = f"{UNIT_FOLDER}/rackserve@.service"
LIBEXEC = "/usr/libexec/rackserve"
CREDENTIALS = "/etc/rackserve/credentials"
# Seconds that a stopping service waits for requests in flight, and that systemd then grants the server itself.
DRAIN_S = 30
STOP_GRACE_S = 20
# Nothing in it that systemd would expand, split at or take for a quote.
_HARMLESS = re.compile(r"[A-Za-z0-9._/@:+=,-]+")
_HELPERS = ("wait-ready", "drain")


@dataclass(frozen=True, slots=True)
class RenderedFile:
    """A text file as it lands on a host, byte for byte; owned by root."""

    path: str
    text: str
    mode: str = "644"


def systemd_word(word: str, *, specifiers: bool = False) -> str:
    r"""Quote one word of a command line or one assignment for a unit file.

    Words of harmless characters stay as they are. `%` and `$` are doubled, because systemd expands both; with
    `specifiers` the word keeps its `%` (our own constants only). Raises ValueError for control characters: a newline
    would start a new directive.
    Source: systemd.syntax(7), "Quoting", and systemd.service(5), "Command lines".
    """
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in word):  # noqa: PLR2004 (ASCII controls)
        msg = f"a control character cannot stand in a unit file: {word!r}"
        raise ValueError(msg)
    if _HARMLESS.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("$", "$$")
    return f'"{escaped if specifiers else escaped.replace("%", "%%")}"'


def host_files(plan: HostPlan) -> tuple[RenderedFile, ...]:
    """Every text file of a host, sorted by path."""
    files = [_base_unit(), *_helpers(), *(drop_in(service) for service in plan.services)]
    return tuple(sorted(files, key=lambda file: file.path)) if plan.services else ()


def drop_in(plan: ServicePlan) -> RenderedFile:
    """`10-plan.conf`: what was decided for one service."""
    path = f"{UNIT_FOLDER}/rackserve@{plan.name}.service.d/10-plan.conf"
    return RenderedFile(path, _drop_in_text(plan, unit_digest(plan)))


def unit_digest(plan: ServicePlan) -> str:
    """SHA-256 over all text that decides how the service runs.

    The running process carries it in its environment, so that a run sees whether a restart is still owed, whatever an
    earlier, interrupted run did or did not do.
    """
    texts = [_base_unit().text, _drop_in_text(plan, ""), *(file.text for file in _helpers())]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def key_path(plan: ServicePlan) -> str:
    """Where a host keeps the API key of a service, for root only."""
    return f"{CREDENTIALS}/{plan.name}/api-key"


def _drop_in_text(plan: ServicePlan, digest: str) -> str:
    key_file = key_path(plan)
    options = [_option(group) for group in _grouped(llamacpp.argv(plan))]
    return (
        _environment()
        .get_template("systemd/10-plan.conf.j2")
        .render(
            plan=plan,
            digest=digest,
            command=options,
            libexec=LIBEXEC,
            wait_ready=[systemd_word(word) for word in (plan.probe_url, plan.name, str(plan.start_timeout), key_file)],
            drain=[systemd_word(word) for word in (plan.probe_url, str(DRAIN_S), key_file)],
            allow_from=_allowed(plan),
            stop_timeout=DRAIN_S + STOP_GRACE_S,
            # systemd's own limit comes after the probe's, which says what it was still waiting for.
            start_timeout=plan.start_timeout + 30,
        )
    )


def _allowed(plan: ServicePlan) -> list[str]:
    """Networks that may talk to the service; its own address too, which the probe connects to."""
    own = [] if plan.service.listen in ("127.0.0.1", "0.0.0.0") else [plan.service.listen]  # noqa: S104 (compared)
    return [systemd_word(network) for network in ("localhost", *own, *plan.service.allow_from)]


def _grouped(argv: tuple[str, ...]) -> list[list[str]]:
    """The program, then each option with its value: one line each in the unit, so that a diff shows what changed."""
    groups: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not groups:
            groups.append([word])
        else:
            groups[-1].append(word)
    return groups


def _option(words: list[str]) -> str:
    return " ".join(
        word
        if word.startswith(("--", "/opt/rackserve/"))
        else systemd_word(word, specifiers=word == llamacpp.API_KEY_FILE)
        for word in words
    )


@functools.cache
def _base_unit() -> RenderedFile:
    return RenderedFile(
        BASE_UNIT,
        _environment().get_template("systemd/rackserve@.service.j2").render(libexec=LIBEXEC, credentials=CREDENTIALS),
    )


@functools.cache
def _helpers() -> tuple[RenderedFile, ...]:
    return tuple(
        RenderedFile(f"{LIBEXEC}/{name}", (TEMPLATES / "libexec" / name).read_text(encoding="utf-8"), "755")
        for name in _HELPERS
    )


def template_text(name: str, **values: object) -> str:
    """A template of ours filled in; a value that it lacks is an error."""
    return _environment().get_template(name).render(**values)


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # noqa: S701 (unit files, not HTML; values are quoted by systemd_word)
    )
