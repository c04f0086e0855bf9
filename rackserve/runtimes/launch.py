"""What a runtime module makes of a planned service: everything that its unit has to say. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rackserve.domain.gpu import Vendor

RELEASES = "/opt/rackserve/releases"
CURRENT = "/opt/rackserve/current"
# Beside the link to the release in use, one to the release that is planned: what is asked of it before it is used.
PLANNED = "/opt/rackserve/planned"
# systemd expands %d to the unit's private credentials folder.
API_KEY_FILE = "%d/api-key"
# Seconds that a stopping service waits for requests in flight, and that systemd then grants the server itself.
DRAIN_S = 30
STOP_GRACE_S = 20


@dataclass(frozen=True, slots=True)
class Probe:
    """How a running server is asked how it is.

    health: path that is 200 once the server is up. metrics: path of its Prometheus metrics, None where it has none;
    metrics_key: it wants the API key for them. in_flight: gauges whose sum is the requests running or queued.
    progress: counters that grow as long as the engine computes.
    """

    health: str = "/health"
    metrics: str | None = "/metrics"
    metrics_key: bool = False
    in_flight: tuple[str, ...] = ()
    progress: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Container:
    """An image that is run in place of a program on the host.

    image: its full name with its digest; empty where none is known, which is planned and never installed. disk_gib:
    what pulling it takes, 0 where nobody has told. entrypoint: the image's own is run and handed the command; else the
    command is the program. volumes: what is shown in there, for reading, as path on the host and path inside.
    shm_gib: size of its /dev/shm.
    """

    image: str
    shm_gib: int
    volumes: tuple[tuple[str, str], ...]
    disk_gib: int = 0
    entrypoint: bool = False


@dataclass(frozen=True, slots=True)
class Compiling:
    """What a server compiles while it serves, and is asked for before it is started.

    python: the interpreter of the planned release. programs, python_headers, headers, libraries: see domain.Compiler.
    architecture: of the host's cards, as nvcc calls it; empty where it compiles nothing for them.
    caches: variables of the environment, and folders below the service's own.
    """

    python: str
    programs: tuple[str, ...]
    python_headers: bool
    headers: tuple[str, ...]
    libraries: tuple[str, ...]
    architecture: str
    caches: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Launch:
    """One server process and what it needs around it.

    title: what is served on what, for people. argv: one word per element; `%d` stands in API_KEY_FILE only.
    environment: no secrets, which any user of the host can read there.
    key: how the server takes its API key: from a file it is told of, from an environment variable (`key_variable`)
    that is set in its own process only, or not at all.
    program: the file that the running process has to be an image of, or a folder that it has libraries from.
    before, after: commands that are run by the service's user before the server starts, and once it runs, before
    anybody is told that it serves; each has to succeed.
    writes_code: it makes machine code at run time (PyTorch, Triton), which forbids MemoryDenyWriteExecute.
    shutdown_s: seconds that the server itself takes to finish requests once it was told to stop.
    by_number: the cards are named by number instead of UUID, for runtimes that cannot read one. neighbours: it may open
    all of the vendor's cards, because it would count wrong if it saw some of them only.
    vendor, gpus: the cards that it may open, by their numbers in PCI order. gpu_mib: least memory, in MiB, that it
    holds on each of them once it serves; 0 where that is not checked.
    memory_max_mib: limit of the host's memory; None where the GPU is what runs out.
    files: configuration files beside the unit, as path and text. links: symbolic links beside them, as path and target.
    companion: another process that has to run for this one, in a unit of its own beside it.
    compiling: None for what comes compiled, or has its own tools in an image.
    """

    title: str
    argv: tuple[str, ...]
    program: str
    probe: Probe
    environment: tuple[tuple[str, str], ...] = ()
    key: Literal["file", "variable", "none"] = "none"
    key_variable: str = ""
    before: tuple[tuple[str, ...], ...] = ()
    after: tuple[tuple[str, ...], ...] = ()
    writes_code: bool = False
    shutdown_s: int = 0
    vendor: Vendor = "none"
    gpus: tuple[int, ...] = ()
    by_number: bool = False
    neighbours: bool = False
    gpu_mib: int = 0
    memory_max_mib: int | None = None
    memory_reason: str = ""
    files: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    container: Container | None = None
    companion: Launch | None = None
    compiling: Compiling | None = None
    warnings: tuple[str, ...] = ()

    @property
    def stop_s(self) -> int:
        """Seconds until systemd gives up on a clean stop: waiting for requests, the server's own shutdown, grace."""
        return DRAIN_S + self.shutdown_s + STOP_GRACE_S
