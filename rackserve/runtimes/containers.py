"""Servers that run from a container image: what a native launch becomes, and what is the same in every container."""

from __future__ import annotations

from dataclasses import replace
from pathlib import PurePosixPath

from rackserve.runtimes.job import Job
from rackserve.runtimes.launch import Container, Launch

# Where the service's own cache folder of the host is in there, the only place that outlives the container.
CACHE = "/cache"
# podman's 64 MB stop NCCL, whose processes share memory there ("No space left on device"). A limit, not a reservation.
SHM_GIB = 16
# Images have their own Python, and none that is called like a virtual environment's.
_PROGRAMS = {"python": "python3"}


def in_container(job: Job, launch: Launch) -> Launch:
    """The same server from the job's image: no program of the host, and the model where the host has it."""
    program = PurePosixPath(launch.argv[0]).name
    return replace(
        launch,
        argv=(_PROGRAMS.get(program, program), *launch.argv[1:]),
        program="",
        environment=(*launch.environment, *container_environment()),
        container=Container(
            image=job.image.name,
            disk_gib=job.image.disk_gib,
            shm_gib=SHM_GIB,
            volumes=((job.endpoint.model, job.endpoint.model),),
        ),
    )


def container_environment() -> tuple[tuple[str, str], ...]:
    """Where compiled kernels are kept, as the base unit has it for programs of the host."""
    return (
        *(("HOME", CACHE), ("XDG_CACHE_HOME", CACHE)),
        *(("TRITON_CACHE_DIR", f"{CACHE}/triton"), ("TORCHINDUCTOR_CACHE_DIR", f"{CACHE}/inductor")),
        *(("CUDA_CACHE_PATH", f"{CACHE}/cuda"), ("FLASHINFER_WORKSPACE_BASE", CACHE)),
    )
