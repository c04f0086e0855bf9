"""Whether an engine computes a long prompt in chunks, or every prompt whole, in one step."""

from __future__ import annotations

from packaging.version import Version

from rackserve.domain.engine import Engine, WholePrompts
from rackserve.planning.request import Request


def whole_prompts(request: Request, engine: Engine) -> WholePrompts | None:
    """Why this model's prompts are computed whole on these cards; None where they are computed in chunks."""
    return next((entry for entry in engine.whole_prompts if _holds(entry, request)), None)


def _holds(entry: WholePrompts, request: Request) -> bool:
    shape, target, version = request.shape, request.gpu.target, Version(request.version)
    return (
        (not entry.families or shape.model_type in entry.families)
        and (not entry.latent or shape.latent)
        and (not entry.towers or bool(shape.extras))
        and (not entry.on or target in entry.on)
        and target not in entry.not_on
        and (entry.since is None or version >= Version(entry.since))
        and (entry.before is None or version < Version(entry.before))
    )
