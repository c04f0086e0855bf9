"""A folder that is a Mac as far as our scripts can tell: its file system, and what stands in for its tools on PATH.

What is real: the shell (dash, and bash as macOS has it: posix mode), curl, tar, awk, sed and the processes. What stands
in: launchctl, dscl, shasum, BSD's stat, xattr, chown, install. None of it was compared with a real Mac by these tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from rackserve.operations.commands import script_text
from rackserve.rendering.text import RenderedFile
from tests import needs

HERE = Path(__file__).parent
SHELLS = {"dash": ["dash"], "bash": ["bash", "--posix"]}
each_shell = pytest.mark.parametrize("shell", needs.each_of(*SHELLS))
SERVER = "/opt/rackserve/current/llama.cpp/bin/llama-server"

# Records are folders below `ds`, attributes files in them.
_DSCL = r"""#!/bin/sh
ds=$MAC_STATE/ds
echo "$@" >>"$MAC_STATE/dscl"
case $2 in
  -list) for f in "$ds$3"/*/"$4"; do [ ! -f "$f" ] || echo "$(basename "$(dirname "$f")")     $(cat "$f")"; done ;;
  -read)
    [ -d "$ds$3" ] || { echo "<dscl_cmd> DS Error: -14136 (eDSRecordNotFound)" >&2; exit 56; }
    path=$3; shift 3
    for key; do
      if [ -f "$ds$path/$key" ]; then echo "$key: $(cat "$ds$path/$key")"; else echo "No such key: $key"; fi
    done ;;
  -create)
    guarded=$(cat "$MAC_STATE/guarded" 2>/dev/null)
    case $guarded$3/$4 in
      all/Users/* | some/Users/*/NFSHomeDirectory)
        echo "<main> attribute status: eDSPermissionError" >&2
        echo "<dscl_cmd> DS Error: -14120 (eDSPermissionError)" >&2
        exit 40 ;;
    esac
    mkdir -p "$ds$3"; [ $# -lt 5 ] || printf %s "$5" >"$ds$3/$4" ;;
  -delete)
    if [ -e "$MAC_STATE/guarded" ]; then
      echo "<main> delete status: eDSPermissionError" >&2
      echo "<dscl_cmd> DS Error: -14120 (eDSPermissionError)" >&2
      exit 40
    fi
    rm -r "$ds$3" ;;
esac
"""
_STAT = """
import os, stat, sys, grp, pwd
form, names = sys.argv[2], sys.argv[3:]
owners = {}
if os.path.exists(os.environ["MAC_STATE"] + "/owners"):
    for line in open(os.environ["MAC_STATE"] + "/owners"):
        owner, _, path = line.rstrip("\\n").partition(" ")
        owners[path] = owner
for name in names:
    try:
        found = os.lstat(name)
    except OSError:
        print(f"stat: {name}: stat: No such file or directory", file=sys.stderr)
        sys.exit(1)
    user, _, group = owners.get(os.path.realpath(name), "root:wheel").partition(":")
    told = {"%Lp": format(stat.S_IMODE(found.st_mode), "o"), "%Su": user, "%Sg": group}
    told |= {"%z": str(found.st_size), "%m": str(int(found.st_mtime))}
    print(" ".join(told[word] for word in form.split()))
"""
# What connections this machine has, in the words of macOS.
_NETSTAT = """
import sys
if sys.argv[1:] != ["-an", "-p", "tcp"]:
    sys.exit(64)
print("Active Internet connections (including servers)")
print("Proto Recv-Q Send-Q  Local Address          Foreign Address        (state)    ")
STATES = {"01": "ESTABLISHED", "06": "TIME_WAIT", "08": "CLOSE_WAIT", "0A": "LISTEN"}
for line in open("/proc/net/tcp").readlines()[1:]:
    _, *ends, state = line.split()[:4]
    places = []
    for end in ends:
        address, _, port = end.partition(":")
        number = int(port, 16) or "*"
        places.append(".".join(map(str, bytes.fromhex(address)[::-1])) + f".{number}")
    print(f"tcp4       0      0  {places[0]:<22} {places[1]:<22} {STATES.get(state, 'CLOSED'):<11}")
"""
_TOOLS = {
    "dscl": _DSCL,
    "shasum": '#!/bin/sh\n[ $# -eq 2 ] && [ "$1" = -a ] || exit 64\nexec "sha${2}sum"\n',
    # What a boot of this Mac is called.
    "sysctl": '#!/bin/sh\n[ "$*" = "-n kern.bootsessionuuid" ] || exit 1\ncat "$MAC_STATE/boot"\n',
    "dscacheutil": "#!/bin/sh\n",
    # Ten times as fast: what is waited for here is not a Mac.
    "sleep": '#!/bin/sh\nexec /bin/sleep "$(awk "BEGIN { print $1 / 10 }")"\n',
    "xattr": '#!/bin/sh\n[ -e "$MAC_STATE/quarantine" ] || exit 1\necho "0083;5991b778;Safari;"\n',
    # Its users are none of this machine's: who owns what is written down.
    "chown": '#!/bin/sh\nid=$(cat "$MAC_STATE/ds/Users/${1%%:*}/UniqueID" 2>/dev/null)\n'
    '[ "${1%%:*}" = root ] || [ -n "$id" ] || { echo "chown: ${1%%:*}: illegal user name" >&2; exit 1; }\n'
    'echo "$1 $(realpath "$2")" >>"$MAC_STATE/owners"\n',
    # -d -m MODE [-o OWNER -g GROUP] FOLDER
    "install": "#!/bin/sh\nmode=$3; [ $# -eq 4 ] || { owner=$5:$7; shift 4; }\n"
    'mkdir -p "$4" && chmod "$mode" "$4"; [ -z "$owner" ] || echo "$owner $(realpath "$4")" >>"$MAC_STATE/owners"\n',
}


@dataclass
class Mac:
    """`root`: its file system. `state`: what its tools remember."""

    folder: Path

    def __post_init__(self) -> None:
        self.root, self.state, self.tools = (self.folder / name for name in ("root", "state", "tools"))
        for folder in (self.root, self.state, self.tools):
            folder.mkdir()
        for name, text in _TOOLS.items():
            self.tool(name, text)
        self.tool("stat", f"#!{sys.executable}\n{_STAT}")
        self.tool("netstat", f"#!{sys.executable}\n{_NETSTAT}")
        self.tool("launchctl", f'#!/bin/sh\nexec {sys.executable} -IS {HERE / "launchctl.py"} "$@"\n')
        (self.state / "boot").write_text(f"{uuid.uuid4()}\n")
        for folder in ("Library/LaunchDaemons", "var/log", "var/run", "opt"):
            self.path(f"/{folder}").mkdir(parents=True)

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.tools}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        return {"PATH": path, "LC_ALL": "C", "MAC_STATE": str(self.state), "MAC_ROOT": str(self.root)}

    @property
    def boot(self) -> str:
        """What it calls the time since it was started."""
        return (self.state / "boot").read_text().strip()

    def path(self, name: str) -> Path:
        return self.root / name.lstrip("/")

    def tool(self, name: str, text: str) -> None:
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def put(self, *files: RenderedFile) -> None:
        for file in files:
            self.path(file.path).parent.mkdir(parents=True, exist_ok=True)
            self.path(file.path).write_text(file.text)
            self.path(file.path).chmod(int(file.mode, 8))

    def put_server(self, **mood: Any) -> None:
        """The program that is served with, and how it is to behave."""
        self.put(RenderedFile(SERVER, f"#!{sys.executable}\n{(HERE / 'llama_server.py').read_text()}", "755"))
        self.set_mood(**mood)

    def set_mood(self, **mood: Any) -> None:
        path = self.path(SERVER).with_name("mood")
        path.with_suffix(".new").write_text(json.dumps(mood))
        path.with_suffix(".new").rename(path)

    def put_account(self, account: str, number: int = 499) -> None:
        for kind, key in (("Users", "UniqueID"), ("Groups", "PrimaryGroupID")):
            record = self.state / "ds" / kind / account
            record.mkdir(parents=True)
            (record / key).write_text(str(number))

    def script(self, shell: str, name: str, *words: object) -> subprocess.CompletedProcess[str]:
        """One of our scripts, as a host gets it."""
        return self.run(*SHELLS[shell], "-s", "--", *words, stdin=script_text(name))

    def program(self, shell: str, name: str, *words: object) -> subprocess.CompletedProcess[str]:
        """One of the programs that lie beside a daemon."""
        return self.run(*SHELLS[shell], self.path(f"/usr/local/libexec/rackserve/{name}"), *words, self.root)

    def run(self, *words: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, words)),
            env=self.environment,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def launchctl(self, *words: str) -> str:
        return self.run(self.tools / "launchctl", *words).stdout

    def pid(self, label: str) -> int:
        """Of a job's process, 0 for none."""
        lines = [line for line in self.launchctl("print", f"system/{label}").splitlines() if line.startswith("\tpid")]
        return int(lines[0].rpartition(" ")[2]) if lines else 0

    def calls(self, *verbs: str) -> list[str]:
        """What launchctl was told, of these verbs."""
        path = self.state / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line.split()[0] in verbs]

    def owners(self) -> dict[str, str]:
        """Who was given what, by path on the Mac."""
        lines = (self.state / "owners").read_text().splitlines()
        return {path.removeprefix(str(self.root)): owner for owner, _, path in (line.partition(" ") for line in lines)}

    def end(self) -> None:
        """Take every job out."""
        for job in list(self.state.glob("*.job")):
            self.launchctl("bootout", f"system/{job.stem}")
        until(lambda: not list(self.state.glob("*.job")), "jobs are gone")


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"{what}: did not come about"
        time.sleep(0.02)
