"""rackserve: bare GPU hosts to LLM servers, over SSH."""

__version__ = "0.1.0"
