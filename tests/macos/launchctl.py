# ruff: noqa: T201 (a program)
"""What stands in for launchctl and launchd: jobs are real processes, and answers are as macOS gives them.

Jobs live in files of the folder MAC_STATE; paths that exist below MAC_ROOT are taken from there. Every call is written
to the file `calls`.
"""

from __future__ import annotations

import json
import os
import plistlib
import signal
import subprocess
import sys
import time
from pathlib import Path

STATE, ROOT = Path(os.environ["MAC_STATE"]), os.environ["MAC_ROOT"]


def file(label):
    return STATE / f"{label}.job"


def read(label):
    try:
        return json.loads(file(label).read_text())
    except FileNotFoundError:
        return None


def write(label, **changes):
    job = (read(label) or {}) | changes
    fresh = STATE / f"{label}.{os.getpid()}"
    fresh.write_text(json.dumps(job))
    fresh.rename(file(label))


def rooted(word):
    return ROOT + word if word.startswith("/") and Path(ROOT + word).exists() else word


def disabled():
    path = STATE / "disabled"
    return path.read_text().split() if path.exists() else []


def end(code, *lines):
    print("\n".join(lines), file=sys.stderr)
    sys.exit(code)


def bootstrap(_domain, plist):
    job = plistlib.loads(Path(plist).read_bytes())
    label = job["Label"]
    if label in disabled():
        end(119, f"{plist}: Service is disabled", "Bootstrap failed: 119: Service is disabled")
    if read(label) is not None:
        end(5, "Bootstrap failed: 5: Input/output error")
    write(label, plist=plist, pid=0, runs=0, wish="", state="not running", ending="last exit code = (never exited)")
    if job.get("RunAtLoad"):
        write(label, wish="start")
    environment = {"PATH": os.environ["PATH"], "MAC_STATE": str(STATE), "MAC_ROOT": ROOT}
    subprocess.Popen(
        [sys.executable, __file__, "keep", label],
        env=environment,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def keep(label):
    """launchd's part for one job, until it is taken out."""
    plist = plistlib.loads(Path(read(label)["plist"]).read_bytes())
    log = Path(ROOT + plist["StandardOutPath"])
    child = None
    while True:
        wish = read(label)["wish"]
        if child is None and wish == "out":
            file(label).unlink()
            return
        if child is None and wish in ("start", "kill"):
            with log.open("a") as out:
                child = subprocess.Popen(
                    [rooted(word) for word in plist["ProgramArguments"]],
                    env={"PATH": os.environ["PATH"]} | plist["EnvironmentVariables"],
                    stdout=out,
                    stderr=out,
                )
            write(label, wish="", pid=child.pid, state="running", runs=read(label)["runs"] + 1)
        elif child is not None and wish in ("out", "kill"):
            child.send_signal(signal.SIGTERM if wish == "out" else signal.SIGKILL)
            write(label, state="SIGTERMed")
            child.wait(30)
        if child is not None and child.poll() is not None:
            code, child = child.returncode, None
            ending = f"last exit code = {code}" if code >= 0 else f"last terminating signal = Killed: {-code}"
            again = code != 0 and "KeepAlive" in plist
            write(label, pid=0, state="spawn scheduled" if again else "not running", ending=ending)
            if wish == "out":
                # The label is free some time after its process is gone.
                time.sleep(0.3)
        time.sleep(0.02)


def bootout(target):
    label = target.partition("/")[2]
    if read(label) is None:
        end(3, "Boot-out failed: 3: No such process")
    write(label, wish="out")
    end(36, "Boot-out failed: 36: Operation now in progress")


def kickstart(*words):
    label = words[-1].partition("/")[2]
    if read(label) is None:
        end(113, f'Could not find service "{label}" in domain for system')
    write(label, wish="kill" if "-k" in words else "start")


def show(target):
    label = target.partition("/")[2]
    job = read(label)
    if job is None:
        end(113, "Bad request.", f'Could not find service "{label}" in domain for system')
    environment = plistlib.loads(Path(job["plist"]).read_bytes())["EnvironmentVariables"]
    lines = [f"{target} = {{", f"\tpath = {job['plist']}", "\ttype = LaunchDaemon", f"\tstate = {job['state']}", ""]
    lines += ["\tenvironment = {", *(f"\t\t{key} => {value}" for key, value in environment.items()), "\t}", ""]
    lines += [f"\truns = {job['runs']}", *([f"\tpid = {job['pid']}"] if job["pid"] else []), f"\t{job['ending']}"]
    lines += ["", "\tresource coalition = {", "\t\tID = 9", "\t\tstate = active", "\t\tpid = 1", "\t}", "}"]
    print("\n".join(lines))


def main():
    verb, *words = sys.argv[1:]
    if verb == "keep":
        keep(*words)
        return
    with (STATE / "calls").open("a") as calls:
        print(*sys.argv[1:], file=calls)
    if verb in ("enable", "disable"):
        label = words[0].partition("/")[2]
        others = [other for other in disabled() if other != label]
        (STATE / "disabled").write_text("\n".join([*others, label] if verb == "disable" else others))
    elif verb == "print-disabled":
        print("\n".join(["disabled services = {", *(f'\t"{label}" => disabled' for label in disabled()), "}"]))
    else:
        {"bootstrap": bootstrap, "bootout": bootout, "kickstart": kickstart, "print": show}[verb](*words)


if __name__ == "__main__":
    main()
