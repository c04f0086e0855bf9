"""API keys: root-only files that appear in no argv, log, diff or temporary file."""

from __future__ import annotations

import hashlib
from collections.abc import Generator

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from rackserve.facts.paths import PathStates
from rackserve.keys import read_api_key
from rackserve.operations import commands

# 256 bits from the host's own random source; made on the host, it never crosses the network.
_GENERATE = (
    'f=$(dirname "$1"); mkdir -p "$f"; chmod 700 "$f" "$(dirname "$f")"; umask 077; rm -f "$f"/.rackserve.*; '
    't=$(mktemp "$f/.rackserve.XXXXXX"); '
    'printf "sk-%s\\n" "$(head -c 32 /dev/urandom | base64 | tr -d "\\n=" | tr "+/" "-_")" >"$t"; '
    'chmod 600 "$t"; sync "$t"; mv -fT "$t" "$1"'
)


@operation()
def api_key(path: str, source: str | None) -> Generator[StringCommand, None, None]:
    """Have an API key at `path`: the content of the operator's local file `source`, or a random one made once.

    A made key that others could read is replaced and not only hidden again: it may have been read.
    """
    state = host.get_fact(PathStates, paths=[path]).get(path)
    private = state is not None and (state.user, state.mode) == ("root", "600")
    if source is None:
        if private:
            host.noop("key in place")
            return
        yield StringCommand("sh", *(QuoteString(word) for word in ("-c", _GENERATE, "sh", path)))
        return
    text = f"{read_api_key(source)}\n"
    if private and state is not None and state.sha256 == hashlib.sha256(text.encode()).hexdigest():
        host.noop("key in place")
        return
    folder = commands.parent(path)
    yield StringCommand("install", "-d", "-m", "700", QuoteString(commands.parent(folder)), QuoteString(folder))
    yield commands.write_file(path, text, "600")
