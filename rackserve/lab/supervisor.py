"""The process that stands for a host's power supply: mounts its disk, boots it, boots it again when it reboots.

Started by path with `python -I` in a mount namespace of its own, so it uses the standard library alone and everything
it mounts goes with it. Its one argument is a JSON file with the fields of `nspawn.BootPlan`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

REBOOT_EXIT_CODE = 133  # what nspawn with --keep-unit exits with when the container asked for a reboot
ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"'


def mount(*arguments: str) -> None:
    """Mount inside this process's own namespace."""
    subprocess.run(["mount", *arguments], check=True)


def boot_argv(plan: dict[str, Any], boottime: float, monotonic: float) -> list[str]:
    """One boot: join the host's cgroup, then nspawn, in a time namespace where uptime starts at zero.

    pyinfra tells a reboot by /proc/uptime going back, which in a plain container shows the machine's.
    """
    clock = ["unshare", "--time", f"--boottime={-int(boottime)}", f"--monotonic={-int(monotonic)}", "--fork"]
    prefix = clock if Path("/proc/self/ns/time").exists() else []
    return [*prefix, "sh", "-c", ENTER, "enter", *plan["box_cgroups"], "--", *plan["nspawn"]]


def main(plan_file: str) -> int:
    """Run the host until it powers off; its exit code is nspawn's."""
    plan: dict[str, Any] = json.loads(Path(plan_file).read_text())
    for group in plan["sup_cgroups"]:
        Path(group, "cgroup.procs").write_text(str(os.getpid()))
    mount("-t", "overlay", "overlay", "-o", plan["overlay"], plan["root"])
    # nspawn keeps files in /run/systemd; the machine's own systemd, where there is one, must not see them.
    mount("-t", "tmpfs", "tmpfs", "/run/systemd")
    environment = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_LOCK": "0"}
    while True:
        argv = boot_argv(plan, time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic())
        code = subprocess.run(argv, env=environment, check=False).returncode
        print(f"[lab] {plan['name']}: nspawn exit code {code}", flush=True)  # noqa: T201  the console log
        if code != REBOOT_EXIT_CODE:
            return code
        time.sleep(plan["reboot_seconds"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
