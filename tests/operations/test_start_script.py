"""start.sh, watch.sh and remove-service.sh: for enabled units, and for those that podman makes of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.operations.private_root import PrivateRoot, needs_private_root

pytestmark = needs_private_root
UNIT = "rackserve@chat.service"
FILE = "/etc/containers/systemd/rackserve@chat.container"
DROP_IN = f"/etc/systemd/system/{UNIT}.d/10-plan.conf"
WANTED = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"
GENERATOR = "/usr/lib/systemd/system-generators/podman-system-generator"
# As systemd: a file's unit is generated and takes the place of a template's, and neither can be enabled as the other.
SYSTEMCTL = f"""#!/bin/sh
echo "$*" >>/run/systemctl.log
generated() {{ [ -e {FILE} ] && [ ! -e /run/refused ]; }}
case "$*" in
  *UnitFileState*) if generated; then echo generated; elif [ -e {WANTED} ]; then echo enabled; else echo disabled; fi ;;
  enable*) ! generated && mkdir -p "$(dirname {WANTED})" && ln -sf ../rackserve@.service {WANTED} ;;
  disable*) generated && exit 1; rm -f {WANTED} ;;
  *ActiveState*) echo active; echo running ;;
esac
"""


@pytest.fixture
def root(tmp_path: Path) -> PrivateRoot:
    made = PrivateRoot(tmp_path / "root")
    made.program("systemctl", SYSTEMCTL)
    return made


def put(root: PrivateRoot, *paths: str) -> None:
    for path in paths:
        file = root.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("# of rackserve\n")


def calls(root: PrivateRoot) -> list[str]:
    return root.path("/run/systemctl.log").read_text().splitlines()


def left(root: PrivateRoot, *paths: str) -> list[str]:
    found = root.shell(f"ls -d {' '.join(paths)} 2>/dev/null; true")
    return found.split()


def test_a_program_is_enabled(root):
    put(root, DROP_IN)
    done = root.script("start.sh", UNIT, 10, "program")
    assert done.returncode == 0, done.stderr
    assert f"enable --quiet {UNIT}" in calls(root)
    assert left(root, DROP_IN) == [DROP_IN]


def test_a_program_takes_the_place_of_a_container(root):
    put(root, DROP_IN, FILE)
    done = root.script("start.sh", UNIT, 10, "program")
    assert done.returncode == 0, done.stderr
    assert left(root, DROP_IN, FILE) == [DROP_IN]
    assert f"enable --quiet {UNIT}" in calls(root)


def test_a_container_is_there_by_its_file_and_takes_the_place_of_a_program(root):
    put(root, DROP_IN, FILE, WANTED)
    done = root.script("start.sh", UNIT, 10, "container")
    assert done.returncode == 0, done.stderr
    assert left(root, DROP_IN, FILE, WANTED) == [FILE, DROP_IN]
    assert not [call for call in calls(root) if call.startswith("enable")]
    assert f"restart --no-block {UNIT}" in calls(root)


def test_a_file_that_podman_makes_no_unit_of_is_told_in_podmans_words(root):
    put(root, DROP_IN, FILE, "/run/refused")
    put(root, GENERATOR)
    root.path(GENERATOR).write_text("#!/bin/sh\necho '[Unit]'\necho 'unsupported key Imge in group Container' >&2\n")
    root.path(GENERATOR).chmod(0o755)
    done = root.script("start.sh", UNIT, 10, "container")
    assert done.returncode == 1
    assert done.stderr == f"podman makes no unit of {FILE}:\nunsupported key Imge in group Container\n"
    assert not [call for call in calls(root) if call.startswith("restart")]


CACHES = "/var/cache/rackserve/chat"
KEPT = (f"{CACHES}/images/0123/kernel", f"{CACHES}/releases/vllm-1/kernel", "/var/cache/rackserve/other/triton/kernel")


def test_what_nobody_reads_any_more_goes_once_it_serves(root):
    put(root, *KEPT, f"{CACHES}/triton/kernel", f"{CACHES}/.cache/vllm/graph", f"{CACHES}/-rf")
    # The folder is the service's own: what it leads to stays.
    put(root, "/var/lib/rackserve/model")
    root.path(f"{CACHES}/vllm").symlink_to("/var/lib/rackserve")
    assert root.script("start.sh", UNIT, 10, "program").returncode == 0
    assert len(left(root, f"{CACHES}/triton/kernel", f"{CACHES}/-rf", f"{CACHES}/vllm")) == 3
    done = root.script("start.sh", UNIT, 10, "program", CACHES)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in root.path(CACHES).iterdir()) == ["images", "releases"]
    assert left(root, *KEPT, "/var/lib/rackserve/model") == sorted([*KEPT, "/var/lib/rackserve/model"])


def test_a_folder_that_leads_elsewhere_is_not_followed(root):
    put(root, "/var/lib/rackserve/model")
    root.path(CACHES).parent.mkdir(exist_ok=True)
    root.path(CACHES).symlink_to("/var/lib/rackserve")
    done = root.script("start.sh", UNIT, 10, "program", CACHES)
    assert (done.returncode, done.stderr) == (0, "")
    assert left(root, "/var/lib/rackserve/model") == ["/var/lib/rackserve/model"]


def test_one_that_never_kept_anything_is_started_without_a_word(root):
    done = root.script("start.sh", UNIT, 10, "program", CACHES)
    assert (done.returncode, done.stderr) == (0, "")


def test_where_it_does_not_serve_everything_stays_for_the_way_back(root):
    put(root, f"{CACHES}/triton/kernel")
    root.program("systemctl", SYSTEMCTL.replace("echo active; echo running", "echo failed; echo failed"))
    root.program("journalctl", "#!/bin/sh\n")
    assert root.script("start.sh", UNIT, 10, "program", CACHES).returncode == 1
    assert left(root, f"{CACHES}/triton/kernel") == [f"{CACHES}/triton/kernel"]


def test_a_health_check_is_read_anew_and_started_and_the_service_left_alone(root):
    done = root.script("watch.sh", "rackserve-health@chat.timer")
    assert (done.returncode, done.stderr) == (0, "")
    assert calls(root) == ["daemon-reload", "restart rackserve-health@chat.timer"]


def test_a_health_check_that_somebody_has_masked_is_told(root):
    root.program("systemctl", "#!/bin/sh\n[ $1 = daemon-reload ] || { echo 'Unit is masked.' >&2; exit 1; }\n")
    done = root.script("watch.sh", "rackserve-health@chat.timer")
    assert (done.returncode, done.stderr) == (1, "Unit is masked.\n")


def test_a_file_that_nobody_makes_a_unit_of_any_more_is_removed(root):
    put(root, FILE)
    not_loaded = "case $1 in disable | stop) exit 5 ;; show) echo inactive ;; esac"
    root.program("systemctl", f'#!/bin/sh\necho "$*" >>/run/systemctl.log\n{not_loaded}\n')
    done = root.script("remove-service.sh", "chat")
    assert (done.returncode, done.stderr, left(root, FILE)) == (0, "", [])


@pytest.mark.parametrize("kind", [DROP_IN, FILE])
def test_a_service_is_removed_with_all_that_is_its_own(root, kind):
    own = ["/etc/rackserve/services/chat.json", "/etc/rackserve/services/chat.trtllm.yaml", "/run/rackserve/chat.env"]
    own.append("/run/rackserve-health/chat.json")
    others = [
        "/etc/rackserve/services/chat-2.json",
        "/run/rackserve/gpus.json",
        "/run/rackserve-health/chat-2.json",
        "/etc/containers/systemd/other.container",
    ]
    put(root, kind, *own, *others, "/etc/rackserve/credentials/chat/api-key", "/var/cache/rackserve/chat/kernel")
    root.program("podman", '#!/bin/sh\necho "$*" >>/run/podman.log\nexit 1\n')
    done = root.script("remove-service.sh", "chat")
    assert done.returncode == 0, done.stderr
    assert sorted(left(root, kind, *own, *others, "/etc/rackserve/credentials/*", "/var/cache/rackserve/*")) == sorted(
        others
    )
    assert f"stop {UNIT}" in calls(root) or f"disable --quiet --now {UNIT}" in calls(root)
    # Its user cannot be removed while something of it runs.
    (beside,) = (call for call in calls(root) if call.startswith("stop rackserve-health@"))
    assert beside.split()[1:] == [
        *("rackserve-health@chat.timer", "rackserve-health@chat.service", "rackserve-check@chat.service")
    ]
    assert root.path("/run/podman.log").read_text() == "secret rm rackserve-chat\n"
    # What failed last would leave the host degraded.
    assert calls(root)[-2:] == [
        "daemon-reload",
        f"reset-failed {UNIT} rackserve-health@chat.service rackserve-ray@chat.service rackserve-check@chat.service",
    ]
