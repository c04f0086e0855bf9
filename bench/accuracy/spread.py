"""How far predictions are from the truth, as the tables show it."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Spread:
    """Sizes of errors in percent: median, mean, the one that 95 of 100 stay below, and the worst."""

    count: int
    median: float
    mean: float
    p95: float
    worst: float

    def cells(self) -> list[str]:
        """As cells of a table."""
        if not self.count:
            return ["0", "", "", "", ""]
        return [str(self.count), *(f"{value:.2f} %" for value in (self.median, self.mean, self.p95, self.worst))]


SPREAD_HEAD = ["cases", "median", "mean", "95th percentile", "worst"]


def percent(predicted: float, actual: float) -> float:
    """The error in percent of the truth; positive: predicted too much."""
    return (predicted - actual) / actual * 100


def spread(errors: Iterable[float]) -> Spread:
    """The spread of the sizes of these errors."""
    sizes = sorted(abs(error) for error in errors)
    if not sizes:
        return Spread(0, 0, 0, 0, 0)
    rank = math.ceil(0.95 * len(sizes)) - 1
    return Spread(len(sizes), statistics.median(sizes), statistics.fmean(sizes), sizes[rank], sizes[-1])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
