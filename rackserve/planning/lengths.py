"""Whether the average request fits into the longest one. Pure."""

from __future__ import annotations


def avg_tokens_problem(avg_tokens: int | None, max_model_len: int | None, nominal: int) -> str:
    """Why requests of this length on average cannot be served, empty if they can. All lengths are tokens."""
    if avg_tokens is None or avg_tokens <= (max_model_len or nominal):
        return ""
    limit = f"max_model_len {max_model_len}" if max_model_len else f"the {nominal} tokens that the model was made for"
    return f"avg_tokens {avg_tokens} is more than {limit}"
