"""A service in a container: a file of which podman's generator (Quadlet) makes the service's unit.

The file is what is compared and fingerprinted: in the unit that is made of it podman's arguments change their order.
Source: podman-systemd.unit(5); how much of systemd's sandbox podman can live with was tried with 5.4.2 and crun 1.21.
"""

from __future__ import annotations

from dataclasses import dataclass

from rackserve.planning.plans import AnyServicePlan
from rackserve.rendering.text import LIBEXEC, systemd_word, template_text
from rackserve.runtimes.containers import CACHE
from rackserve.runtimes.launch import STOP_GRACE_S, Container, Launch

FOLDER = "/etc/containers/systemd"
HELPER = "prepare-container"
_KFD = "/dev/kfd"
# Of an image's digest, in the name of a folder.
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a service has around it however it runs.

    credentials: folder of all keys. credential: file of its own. allow_from: networks. start_timeout: seconds.
    start_limit: seconds in which starts are counted.
    """

    credentials: str
    credential: str | None
    allow_from: list[str]
    start_timeout: int
    start_limit: int


def container_path(plan: AnyServicePlan) -> str:
    """Where a host has the file of a service."""
    return f"{FOLDER}/rackserve@{plan.name}.container"


def cache_folder(plan: AnyServicePlan, container: Container) -> str:
    """Where a host keeps what a service has compiled with this image; image.sh removes it with the image."""
    return f"/var/cache/rackserve/{plan.name}/images/{container.image.rpartition(':')[2][:_DIGITS]}"


def container_text(plan: AnyServicePlan, container: Container, around: Surroundings, digest: str) -> str:
    """The file. Raises ValueError for words that cannot stand in it."""
    launch = plan.launch
    command = launch.argv if container.entrypoint else launch.argv[1:]
    return template_text(
        "containers/systemd/rackserve@.container.j2",
        plan=plan,
        launch=launch,
        container=container,
        digest=digest,
        libexec=LIBEXEC,
        credentials=around.credentials,
        credential=around.credential,
        allow_from=around.allow_from,
        start_timeout=around.start_timeout,
        start_limit=around.start_limit,
        command=[" ".join(quadlet_word(word) for word in group) for group in _lines(command)],
        environment=[quadlet_word(f"{name}={value}") for name, value in launch.environment],
        entrypoint=None if container.entrypoint else quadlet_word(launch.argv[0]),
        volumes=container.volumes,
        cache=cache_folder(plan, container),
        cache_inside=CACHE,
        # systemd's own limit comes after podman's, which ends the container by force.
        stop_timeout=launch.shutdown_s + STOP_GRACE_S,
        devices=_devices(launch),
        allowed_devices=_allowed_devices(launch),
    )


def quadlet_word(word: str) -> str:
    """Quote one word for Quadlet, which reads quotes as systemd does and writes the word anew for systemd.

    Raises ValueError for what it does not hand on as it is (5.4.2): an empty word ends what it reads; it leaves quotes
    out that it sees no need for, so that a lone `;` ends the command; separators of lines beyond ASCII break the line.
    """
    if word in {"", ";"} or not word.isascii():
        msg = f"Quadlet does not hand this on as it is: {word!r}"
        raise ValueError(msg)
    return systemd_word(word)


def _lines(argv: tuple[str, ...]) -> list[list[str]]:
    """One option with its value to a line, so that a diff shows what changed."""
    lines: list[list[str]] = []
    for word in argv:
        if word.startswith("--") or not lines:
            lines.append([word])
        else:
            lines[-1].append(word)
    return lines


def _devices(launch: Launch) -> list[str]:
    """What podman gives the container, by the names that prepare-container has found for the cards' numbers."""
    cards = [f"${{RACKSERVE_GPU{number}}}" for number in launch.gpus]
    if launch.vendor == "nvidia":
        return [f"nvidia.com/gpu={card}" for card in cards]
    return [_KFD, *cards] if launch.vendor == "amd" else []


def _allowed_devices(launch: Launch) -> list[str]:
    """What processes of the unit may open, its own cards and no others, or make a node for (`m`) in the container.

    The Container Toolkit has nodes made that nothing here opens (nvidia-modeset, dri), by names of its own.
    """
    cards = [f"/dev/rackserve/gpu{number}" for number in launch.gpus]
    if launch.vendor == "nvidia":
        common = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")
        return ["char-* m", *(f"{node} rw" for node in (*common, *cards))]
    return [f"{node} rwm" for node in (_KFD, *cards)] if launch.vendor == "amd" else []
