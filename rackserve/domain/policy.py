"""The operating rules that planning builds in, as numbers."""

# Long prompts degrade before the nominal window ends; an operator may set max_model_len to the full window.
USABLE_SHARE = 0.8
# KV cache is provisioned for 1.2 times the tokens that the peak of concurrent requests holds on average. Each of them
# has a slot of max_model_len tokens, so this is a lower limit for max_model_len.
KV_HEADROOM = 1.2
# Share of a GPU's memory that planning leaves alone, for what no formula knows.
# With it none of 16,000 decisions in bench/accuracy was a false yes; without it one was, by 18 MiB.
RESERVE = 0.005
# Share of a GPU's or a host's memory that is planned with where nobody states another.
DEFAULT_CEILING = 0.85
# The largest share of a GPU's memory that an inventory may state, and the largest that a refusal offers: above the
# latter a neighbour's context, a display or fragmentation is enough for an out-of-memory error.
MOST_CEILING = 0.95
HIGHEST_CEILING = 0.92
# Folders that a hardened unit does not see (ProtectHome, PrivateTmp) or that a reboot empties.
UNSEEN_FOLDERS = ("/home", "/root", "/tmp", "/var/tmp", "/run", "/dev", "/proc", "/sys")  # noqa: S108 (refused, not used)
