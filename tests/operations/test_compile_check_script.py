"""compile-check.sh and forget-check.sh: a check is asked anew every time, and leaves no failed unit behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operations.private_root import PrivateRoot, needs_private_root

pytestmark = needs_private_root
CHECK, UNIT = "rackserve-check@chat.service", "rackserve@chat.service"
DROP_IN = f"/etc/systemd/system/{CHECK}.d/10-plan.conf"
# As systemd: a unit that failed is known by its last run until that is reset.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>/run/systemctl.log
case "$*" in
  start*) [ ! -e /run/refused ] || { touch /run/failed; exit 1; } ;;
  reset-failed*) rm -f /run/failed ;;
  *InvocationID*) [ ! -e /run/failed ] || echo the-run ;;
esac
"""
JOURNALCTL = """#!/bin/sh
[ "$1" = _SYSTEMD_INVOCATION_ID=the-run ] || exit 0
cat /run/refused
"""


@pytest.fixture
def root(tmp_path: Path) -> PrivateRoot:
    made = PrivateRoot(tmp_path / "root")
    made.program("systemctl", SYSTEMCTL)
    made.program("journalctl", JOURNALCTL)
    return made


def calls(root: PrivateRoot) -> list[str]:
    return root.path("/run/systemctl.log").read_text().splitlines()


def test_one_that_still_runs_for_another_plan_is_ended_before_units_are_read_and_it_is_asked_anew(root):
    done = root.script("compile-check.sh", CHECK, UNIT)
    assert (done.returncode, done.stderr) == (0, "")
    assert calls(root) == [f"stop {CHECK}", "daemon-reload", f"reset-failed {CHECK}", f"start {CHECK}"]


def test_a_refusal_is_told_and_leaves_no_failed_unit(root):
    root.path("/run/refused").write_text("compiling\ncompile-check: gcc says: no\nFailed with result 'exit-code'.\n")
    done = root.script("compile-check.sh", CHECK, UNIT)
    assert done.returncode == 1
    assert done.stderr == (
        f"{UNIT} is left as it is, its planned release does not compile: compile-check: gcc says: no\n"
    )
    assert not root.path("/run/failed").exists()


def test_what_is_asked_no_more_goes_with_what_systemd_knows_of_it(root):
    drop_in = root.path(DROP_IN)
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\n")
    root.path("/run/failed").touch()
    done = root.script("forget-check.sh", CHECK)
    assert (done.returncode, done.stderr) == (0, "")
    assert root.shell(f"ls -d {Path(DROP_IN).parent} 2>/dev/null; true") == ""
    assert not root.path("/run/failed").exists()
    # The folder is what the next run knows by that something is left to do: all else comes before.
    assert calls(root) == [f"stop {CHECK}", f"reset-failed {CHECK}", "daemon-reload"]


def test_what_systemd_does_not_know_is_no_reason_to_keep_it(root):
    root.program("systemctl", "#!/bin/sh\n[ $1 = daemon-reload ] || { echo 'Unit not loaded.' >&2; exit 5; }\n")
    done = root.script("forget-check.sh", CHECK)
    assert (done.returncode, done.stderr) == (0, "")
