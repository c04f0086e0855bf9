"""Models that are repositories of many files, complete and verified before their folder has its name."""

from __future__ import annotations

from collections.abc import Generator
from importlib import resources

from pyinfra import host
from pyinfra.api import QuoteString, StringCommand, operation

from rackserve.facts.snapshots import Snapshot
from rackserve.keys import read_hub_token
from rackserve.planning.model_source import MAIN


@operation()
def snapshot(
    hub: str, repo: str, revision: str | None, path: str, token_file: str | None = None
) -> Generator[StringCommand, None, None]:
    """Have what a server needs of a hub's repository at `path`. An interrupted download goes on where it stopped.

    revision: a commit; None is `main` as it was when this host first fetched it, whatever it is by now. token_file: of
    the operator's, for repositories that ask who fetches them. As with single files, a second run compares sizes only.
    """
    state = host.get_fact(Snapshot, path=path)
    if state is not None and not state.damaged:
        host.noop(f"{path} in place")
        return
    token = read_hub_token(token_file) if token_file else ""
    yield fetching(hub, repo, revision or MAIN, path, token)


def fetching(hub: str, repo: str, revision: str, path: str, token: str) -> StringCommand:
    """Run snapshot.py on the host. It travels on standard input with the token, which is in no argv and no file."""
    scripts = resources.files("rackserve.operations") / "scripts"
    parts = ((scripts / name).read_text(encoding="utf-8") for name in ("hub.py", "snapshot.py"))
    # A line of its own: where the program fails, Python may show the line with the call.
    call = f"TOKEN = {token!r}\nsys.exit(main(sys.argv[1:], TOKEN))\n"
    words = (QuoteString(word) for word in (hub, repo, revision, path))
    return StringCommand("python3", "-I", "-", *words, _stdin=["".join(parts) + call])
