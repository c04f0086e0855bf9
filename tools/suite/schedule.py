"""Which job begins next. Lab jobs wait for hosts most of their time, so more of them run than there are cores."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tools.suite.jobs import PREPARATIONS, Job, Lane


@dataclass(frozen=True, slots=True)
class Room:
    """How many jobs of a kind run at once. lanes: of labs. cores: of the machine."""

    lanes: int
    cores: int

    def holds(self, job: Job, running: Collection[Job], waiting: Collection[Job]) -> bool:
        """Whether one more job begins beside those that run."""
        if job.machines and any(one.machines for one in running):
            return False
        beside = sum(one.lane is job.lane for one in running)
        if job.lane is Lane.PREPARE:
            return True
        if job.lane is Lane.LAB:
            return beside < self.lanes
        # All labs together take about one core.
        labs = any(one.lane is Lane.LAB for one in (*running, *waiting))
        return beside < (max(1, self.cores - 1) if labs else self.cores)


def next_job(waiting: Sequence[Job], running: Collection[Job], prepared: Mapping[str, bool], room: Room) -> Job | None:
    """The first of `waiting` that may begin now. prepared: the preparations that are over, and whether they went well.

    One that waits for a preparation which failed may begin too: it is for the caller to say so in its place.
    """
    for job in waiting:
        needed = {PREPARATIONS[need].name for need in job.needs}
        if needed <= prepared.keys() and room.holds(job, running, waiting):
            return job
    return None
