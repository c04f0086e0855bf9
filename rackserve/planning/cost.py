"""What a million tokens cost on one's own GPUs, and the load from which that is less than an API takes. Pure.

Every price is the operator's, in one currency. The load is requests of one average length: p tokens of prompt and c
of completion. With B the bound on decoded tokens/s (planning.throughput), e the share of it that is reached in practice
and u the share of the time that there is work:

    cost per hour         H = GPUs x price per GPU-hour + kW x price per kWh + price per month of the host / 730 h
    requests per second   r = B x e x u / c
    cost per 10^6 tokens    = H / (r x (p + c) x 3600) x 10^6
    API price of a request  = (p x input price + c x output price) / 10^6
    break-even            r* = H / 3600 / API price of a request,   reachable where r* <= B x e / c

B leaves prompts out, so r is the more optimistic the longer prompts are against completions; e has to cover that.
"""

from __future__ import annotations

from dataclasses import dataclass

HOURS_PER_MONTH = 730
SECONDS_PER_DAY = 86_400
UTILIZATIONS = (0.1, 0.5, 1.0)
# A round number to start from, not a measurement: prompts, communication and scheduling take the rest. Measure yours.
DEFAULT_EFFICIENCY = 0.5
_MILLION = 10**6


@dataclass(frozen=True, slots=True)
class Prices:
    """The operator's prices in one currency: per GPU-hour, kWh, month of the host, and 10^6 tokens of the API.

    watts: of the whole host under load, its GPUs included.
    """

    gpu_hour: float
    api_input: float
    api_output: float
    watts: float = 0.0
    kwh: float = 0.0
    host_month: float = 0.0

    def per_hour(self, gpus: int) -> float:
        """Cost of an hour, whether there is work or not."""
        return self.gpu_hour * gpus + self.watts / 1000 * self.kwh + self.host_month / HOURS_PER_MONTH


@dataclass(frozen=True, slots=True)
class Load:
    """Tokens of an average request."""

    prompt: int
    completion: int

    @property
    def tokens(self) -> int:
        """Both together."""
        return self.prompt + self.completion

    @property
    def context(self) -> int:
        """Tokens in the KV cache on average while the completion grows."""
        return self.prompt + self.completion // 2

    def api_price(self, prices: Prices) -> float:
        """What the API takes for one request."""
        return (self.prompt * prices.api_input + self.completion * prices.api_output) / _MILLION


@dataclass(frozen=True, slots=True)
class Level:
    """One utilisation: what is then served per second, and what 10^6 tokens of prompt and completion cost."""

    utilization: float
    completion_tokens_per_s: float
    requests_per_s: float
    cost_per_mtok: float

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        return {
            "utilization": self.utilization,
            "completion_tokens_per_s": round(self.completion_tokens_per_s, 2),
            "requests_per_s": round(self.requests_per_s, 4),
            "cost_per_mtok": round(self.cost_per_mtok, 4),
        }


@dataclass(frozen=True, slots=True)
class BreakEven:
    """The load at which both cost the same. None: the API takes nothing, so there is none.

    reachable: with the stated efficiency. within_bound: physics would allow it at least.
    utilization: share of what the GPUs can serve with that efficiency.
    """

    requests_per_s: float | None
    tokens_per_day: float | None
    utilization: float | None
    reachable: bool
    within_bound: bool

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        return {
            "possible": self.reachable,
            "within_bound": self.within_bound,
            "requests_per_s": None if self.requests_per_s is None else round(self.requests_per_s, 4),
            "tokens_per_day": None if self.tokens_per_day is None else round(self.tokens_per_day),
            "utilization": None if self.utilization is None else round(self.utilization, 4),
        }


@dataclass(frozen=True, slots=True)
class Costs:
    """The whole answer. per_hour and api_per_mtok are in the operator's currency."""

    per_hour: float
    api_per_mtok: float
    levels: tuple[Level, ...]
    break_even: BreakEven

    def as_dict(self) -> dict[str, object]:
        """For --json."""
        return {
            "cost_per_hour": round(self.per_hour, 4),
            "api_cost_per_mtok": round(self.api_per_mtok, 4),
            "levels": [level.as_dict() for level in self.levels],
            "break_even": self.break_even.as_dict(),
        }


def costs(bound: float, efficiency: float, load: Load, prices: Prices, gpus: int) -> Costs:
    """Cost at each utilisation, and the break-even. `bound`: tokens/s of all requests together, above 0."""
    per_hour = prices.per_hour(gpus)
    levels = tuple(_level(bound * efficiency * share, share, load, per_hour) for share in UTILIZATIONS)
    api_per_mtok = load.api_price(prices) / load.tokens * _MILLION
    return Costs(per_hour, api_per_mtok, levels, break_even(bound, efficiency, load, prices, gpus))


def _level(tokens_per_s: float, share: float, load: Load, per_hour: float) -> Level:
    requests = tokens_per_s / load.completion
    return Level(share, tokens_per_s, requests, per_hour / (requests * load.tokens * 3600) * _MILLION)


def break_even(bound: float, efficiency: float, load: Load, prices: Prices, gpus: int) -> BreakEven:
    """Requests per second, and tokens of prompt and completion a day, from which self-hosting costs less."""
    api = load.api_price(prices)
    if api <= 0:
        return BreakEven(None, None, None, reachable=False, within_bound=False)
    requests = prices.per_hour(gpus) / 3600 / api
    most = bound / load.completion
    return BreakEven(
        requests_per_s=requests,
        tokens_per_day=requests * load.tokens * SECONDS_PER_DAY,
        utilization=requests / (most * efficiency),
        reachable=requests <= most * efficiency,
        within_bound=requests <= most,
    )


def advice(answer: Costs, bound: float, efficiency: float, load: Load, currency: str) -> tuple[str, ...]:
    """In words: from where it pays, whether that can be reached at all, and when not to self-host."""
    even = answer.break_even
    if even.requests_per_s is None or even.tokens_per_day is None:
        return ("the API takes nothing for such requests: do not self-host for the cost of it",)
    point = f"{even.requests_per_s:.3g} requests/s ({even.tokens_per_day / _MILLION:,.3g} million tokens a day)"
    most = bound / load.completion
    if not even.within_bound:
        ends = f"the memory bandwidth of these GPUs ends at {most:.3g} requests/s, even with nothing lost"
        first = f"break-even is impossible: it would take {point}, and {ends}"
        return first, "do not self-host for the cost of it: a smaller format or model, cheaper GPUs, or the API"
    if not even.reachable:
        served = f"{most * efficiency:.3g} requests/s are what {efficiency:.0%} of the bound serves"
        first = f"break-even is not reached: it would take {point}, and {served}"
        return first, "do not self-host for the cost of it, unless you have measured a higher efficiency on these GPUs"
    share = f"{even.utilization:.0%} of what these GPUs serve at {efficiency:.0%} of the bound"
    money = f"{answer.per_hour:.2f}{f' {currency}' if currency else ''} an hour"
    below = f"below {even.requests_per_s:.3g} requests/s on average, nights and weekends included"
    second = f"do not self-host for the cost of it {below}: these GPUs cost {money} whether they work or not"
    return f"break-even at {point}, {share}", second
