"""What a runtime compiles while it serves: a launch that says so, for its caches and for what is asked beforehand."""

from __future__ import annotations

from dataclasses import replace

from rackserve.runtimes.job import Job
from rackserve.runtimes.launch import PLANNED, Compiling, Launch


def with_compiling(job: Job, launch: Launch) -> Launch:
    """The same, with what this version compiles on these cards. The process beside it runs the same release."""
    found = _compiling(job)
    beside = replace(launch.companion, compiling=found) if launch.companion is not None else None
    return replace(launch, compiling=found, companion=beside)


def _compiling(job: Job) -> Compiling | None:
    compiler, request = job.compiler, job.sizing.request
    capability = request.gpu.compute_capability
    if compiler is None or capability is None:
        return None
    return Compiling(
        python=f"{PLANNED}/{request.runtime}/bin/python",
        programs=compiler.programs,
        python_headers=compiler.python_headers,
        headers=compiler.headers,
        libraries=compiler.libraries,
        architecture=compiler.architecture(capability) if "nvcc" in compiler.programs else "",
        caches=tuple(compiler.caches.items()),
    )
