"""How many examples Hypothesis tries, and by which rules.

`make test` is derandomized: it tries the same examples each time, so that no change is refused for what it did not do,
and what fails fails again. New examples are looked for in `make test-all`, by `--hypothesis-profile=many`: ten times as
many, at random, with what reproduces a failure. No example has a deadline: a busy machine is no error.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

SAME = "same"
MANY = "many"
_USUAL = 100


def register() -> None:
    """Have both profiles, with SAME in force; `--hypothesis-profile` takes another."""
    slow = [HealthCheck.too_slow]
    settings.register_profile(SAME, max_examples=_USUAL, derandomize=True, deadline=None, suppress_health_check=slow)
    # Whether the first few of random examples suit a test is chance.
    settings.register_profile(
        MANY,
        max_examples=10 * _USUAL,
        print_blob=True,
        deadline=None,
        suppress_health_check=[*slow, HealthCheck.filter_too_much],
    )
    settings.load_profile(SAME)


def examples(count: int, *suppressed: HealthCheck) -> settings:
    """`count` examples under SAME, as many times more as the profile in force has."""
    default = settings.default
    return settings(
        max_examples=count * default.max_examples // _USUAL,
        suppress_health_check=[*default.suppress_health_check, *suppressed],
    )
