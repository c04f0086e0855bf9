"""LM Studio without a screen: llmster's server in the foreground, under a unit of ours, with one model loaded.

The vendor's own unit is a oneshot that stays "active" when the server has crashed. `lms` exits 0 whatever happened and
starts a daemon of its own where it finds none, so it is run by the service's user alone, while the server runs, and
what it did is read back from the server. Sources: lmstudio-ai/lms, and notes of those who run llmster 0.0.23 to 0.0.25.
"""

from __future__ import annotations

import json

from rackserve.planning.sized import Sizing
from rackserve.runtimes.endpoint import Endpoint
from rackserve.runtimes.job import Job
from rackserve.runtimes.launch import CURRENT, Launch, Probe

RELEASE = f"{CURRENT}/lmstudio"
SETTINGS = "/etc/rackserve/lmstudio"
HELPER = "/usr/libexec/rackserve/lmstudio"
# Any path that it does not know is 200 too, with an error in the body; this one only says that it is up.
PROBE = Probe(health="/lmstudio-greeting", metrics=None)


def planned_words(sizing: Sizing, endpoint: Endpoint) -> tuple[str, ...]:
    """The options of `lms load` that planning decides."""
    return (
        *("load", endpoint.model, "--identifier", endpoint.name),
        # Requests share one context.
        *("--context-length", str(sizing.max_model_len * sizing.max_num_seqs), "--parallel", str(sizing.max_num_seqs)),
        *("--gpu", gpu_share(sizing), "--yes"),
    )


def gpu_share(sizing: Sizing) -> str:
    """The part of the layers that the GPUs hold, as `lms load --gpu` takes it."""
    share = sizing.offload.share if sizing.offload else 1.0
    return "max" if share >= 1 else f"{share:.2f}"


def launch(job: Job) -> Launch:
    """The server, what has to be in its home before, and the model loaded after."""
    name, version = job.endpoint.name, job.sizing.request.version
    program = f"/var/lib/rackserve/{name}/.lmstudio/llmster/{version}/llmster"
    return Launch(
        title=job.title,
        # The helper becomes the program, in the program's own folder.
        argv=(HELPER, "serve", name),
        program=program,
        probe=PROBE,
        environment=(("LMS_DAEMON_DISABLE_UPDATES", "1"),),
        before=((HELPER, "prepare", name),),
        after=((HELPER, "load", name),),
        # Its own runtime is Node's, which compiles while it runs.
        writes_code=True,
        vendor=job.sizing.request.gpu.vendor,
        gpus=job.gpus,
        gpu_mib=job.gpu_mib,
        files=((f"{SETTINGS}/{name}.json", _settings(job)),),
        warnings=tuple(_warnings(job)),
    )


def _settings(job: Job) -> str:
    """What the helper writes into the home of the service, and how it loads the model."""
    sizing, endpoint = job.sizing, job.endpoint
    settings = {
        "release": RELEASE,
        "version": sizing.request.version,
        "port": endpoint.port,
        "model": endpoint.model,
        "identifier": endpoint.name,
        "context_length": sizing.max_model_len * sizing.max_num_seqs,
        "parallel": sizing.max_num_seqs,
        "gpu": gpu_share(sizing),
        "engine": job.backend,
    }
    return json.dumps(settings, indent=2) + "\n"


def _warnings(job: Job) -> list[str]:
    service = job.service
    # Every service has a penalty against repetition; only who has asked for one is told.
    return [
        f"{key} cannot be told to LM Studio: every request states it"
        for key in ("max_output_tokens", "temperature", "top_p", "repetition_penalty")
        if key in service.model_fields_set and getattr(service, key) is not None
    ]
