"""refresh-deb.sh and driver-deb.sh with real apt and dpkg: what went wrong is named, and nothing is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rackserve.lab.repository import Package, SigningKey
from tests.operations.package_bench import LOG, PackageBench, holding, working_bench
from tests.operations.private_root import finished, needs_private_root, until

pytestmark = needs_private_root
FAILING = "#!/bin/sh\necho once >>/run/postinst\n[ ! -e /run/broken ] || exit 7\n"


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[PackageBench]:
    with working_bench(tmp_path) as made:
        yield made


# refresh


def test_lists_are_read_anew(bench):
    bench.publish(Package("nv-driver", "580.95.05-1"))
    bench.refresh()
    assert "580.95.05-1" in bench.root.shell("apt-cache madison nv-driver")


def test_lists_that_are_not_signed_as_pinned_are_no_success(bench, tmp_path):
    bench.refresh()
    other = SigningKey(tmp_path / "other", "somebody else")
    bench.repository.key = other
    bench.publish(Package("nv-driver", "580.95.05-1"))
    done = bench.root.script("refresh-deb.sh", 5)
    assert done.returncode == 1
    assert done.stderr.startswith("package lists not refreshed\n")
    assert f"NO_PUBKEY {other.fingerprint[-16:]}" in done.stderr
    other.close()


def test_a_mirror_without_lists_is_no_success(bench):
    bench.refresh()
    bench.mirror.status = 404
    done = bench.root.script("refresh-deb.sh", 5)
    assert done.returncode == 1
    assert bench.mirror.url.rstrip("/") in done.stderr


def test_a_mirror_in_the_middle_of_its_update_is_asked_once_more(bench):
    bench.publish(Package("nv-driver", "580.95.05-1"))
    bench.mirror.once = dict.fromkeys(("/Packages", "/Packages.gz"), b"of another day")
    bench.refresh()
    assert "580.95.05-1" in bench.root.shell("apt-cache madison nv-driver")


def test_a_mirror_that_stays_wrong_is_told(bench):
    bench.publish(Package("nv-driver", "580.95.05-1"))
    for name in ("Packages", "Packages.gz"):
        (bench.mirror.folder / name).write_bytes(b"of another day")
    done = bench.root.script("refresh-deb.sh", 5)
    assert done.returncode == 1
    assert "unexpected size" in done.stderr


@pytest.mark.parametrize(
    ("code", "said"), [(0, ""), (1, "cloud-init ended with an error, see: cloud-init status --long\n")]
)
def test_a_first_boot_is_waited_for(bench, code, said):
    waits = f"for word; do [ $word != --wait ] || {{ echo >/run/waited; exit {code}; }}; done\n"
    bench.root.program("cloud-init", f"#!/bin/sh\n{waits}echo 'status: running'\n")
    done = bench.root.script("refresh-deb.sh", 5)
    assert (done.returncode, done.stderr) == (0, said)
    assert bench.root.path("/run/waited").exists()


# install


def test_packages_are_installed_as_simulated_and_kept_for_a_way_back(bench):
    bench.publish(Package("nv-lib", "580.95.05-1"), Package("nv-driver", "580.95.05-1", depends="nv-lib"))
    bench.refresh()
    done = bench.driver("nv-driver", brought="nv-driver=580.95.05-1 nv-lib=580.95.05-1")
    # Nothing was replaced, so there is no way back to tell.
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [bench.version(name) for name in ("nv-driver", "nv-lib")] == ["580.95.05-1"] * 2
    assert bench.kept() == {"nv-driver_580.95.05-1_amd64.deb", "nv-lib_580.95.05-1_amd64.deb"}


def test_a_package_whose_script_fails_is_named_with_its_exit_code(bench):
    bench.publish(
        Package("nv-lib", "580.95.05-1"),
        Package("nv-driver", "580.95.05-1", depends="nv-lib", scripts={"postinst": "#!/bin/sh\nexit 7\n"}),
    )
    bench.refresh()
    done = bench.driver("nv-driver")
    assert done.returncode == 1
    first, line, last = done.stderr.splitlines()
    assert first == "driver packages not installed: nv-driver"
    assert line.startswith("dpkg: error processing package nv-driver (--configure): ")
    assert line.endswith("post-installation script subprocess returned error exit status 7")
    assert last == "E: Sub-process /usr/bin/dpkg returned an error code (1)"


def test_a_package_that_is_not_there_is_named(bench):
    bench.refresh()
    done = bench.driver("nv-nothing")
    assert done.returncode == 1
    assert done.stderr == "driver packages not installed: nv-nothing\nE: Unable to locate package nv-nothing\n"


def test_what_apt_cannot_satisfy_is_told_with_its_reason(bench):
    bench.publish(Package("nv-driver", "580.95.05-1", depends="nv-lib (>= 580)"))
    bench.refresh()
    done = bench.driver("nv-driver")
    assert done.returncode == 1
    assert "nv-driver : Depends: nv-lib (>= 580) but it is not installable" in done.stderr


def test_a_package_that_arrives_damaged_is_not_installed(bench):
    bench.publish(Package("nv-driver", "580.95.05-1"))
    bench.refresh()
    (built,) = bench.mirror.folder.glob("*.deb")
    built.write_bytes(built.read_bytes()[:-1] + b"?")
    done = bench.driver("nv-driver")
    assert done.returncode == 1
    assert "Hash Sum mismatch" in done.stderr
    assert bench.version("nv-driver") == ""


# interrupted


def test_what_an_interrupted_run_left_half_configured_is_settled_once(bench):
    bench.publish(Package("nv-driver", "580.95.05-1", scripts={"postinst": FAILING}))
    bench.refresh()
    bench.root.path("/run/broken").touch()
    assert bench.driver("nv-driver").returncode == 1
    assert bench.version("nv-driver").startswith("iF ")
    before = len(bench.said("postinst"))
    bench.root.path("/run/broken").unlink()
    bench.refresh()
    assert bench.version("nv-driver") == "580.95.05-1"
    assert len(bench.said("postinst")) == before + 1
    bench.refresh()
    assert len(bench.said("postinst")) == before + 1


def test_what_cannot_be_settled_is_named_and_kept(bench):
    bench.publish(Package("nv-driver", "580.95.05-1", scripts={"postinst": FAILING}))
    bench.refresh()
    bench.root.path("/run/broken").touch()
    bench.driver("nv-driver")
    done = bench.root.script("refresh-deb.sh", 5)
    assert done.returncode == 1
    assert "dpkg: error processing package nv-driver (--configure):" in done.stderr
    assert "exit status 7" in done.stderr
    assert bench.version("nv-driver").startswith("iF ")


@pytest.mark.parametrize(
    ("options", "state"),
    [([], "iU |580.95.05-1"), (["--force-depends"], "580.95.05-1")],
    ids=["unpacked", "configured"],
)
def test_a_dependency_that_an_interrupted_run_did_not_get_to_is_fetched(bench, options, state):
    bench.publish(Package("nv-lib", "580.95.05-1"), Package("nv-driver", "580.95.05-1", depends="nv-lib"))
    bench.root.shell("apt-get -q update")
    bench.root.run("dpkg", *options, "--install", bench.mirror.folder / "nv-driver_580.95.05-1_amd64.deb")
    assert bench.version("nv-driver") == state
    bench.refresh()
    assert [bench.version(name) for name in ("nv-driver", "nv-lib")] == ["580.95.05-1"] * 2


@pytest.mark.parametrize("old", [True, False], ids=["upgrade", "installation"])
def test_what_an_interrupted_run_left_half_unpacked_is_unpacked_anew(bench, old):
    lib = Package("nv-lib", "575.57.08-1", files={"/etc/nv-lib": "old\n"})
    if old:
        bench.publish(lib)
        bench.refresh()
        assert bench.driver("nv-lib").returncode == 0
    # Ended where power is lost: between dpkg's note that it unpacks, and the files.
    cut = "#!/bin/sh\n[ -e /run/powered ] || kill -9 $PPID\n"
    newer = Package("nv-lib", "580.95.05-1", files={"/etc/nv-lib": "new\n"}, scripts={"preinst": cut})
    bench.publish(newer, Package("nv-driver", "580.95.05-1", depends="nv-lib (>= 580)"))
    bench.root.shell("apt-get -q update")
    bench.root.run("apt-get", "-q", "-y", "install", "nv-driver")
    assert bench.version("nv-lib").startswith("iHR")
    bench.root.path("/run/powered").touch()
    bench.refresh()
    assert bench.driver("nv-driver").returncode == 0
    assert [bench.version(name) for name in ("nv-driver", "nv-lib")] == ["580.95.05-1"] * 2
    assert bench.root.path("/etc/nv-lib").read_text() == "new\n"


def test_a_repository_that_is_away_is_why_what_is_missing_cannot_be_mended(bench):
    bench.publish(Package("nv-lib", "580.95.05-1"), Package("nv-driver", "580.95.05-1", depends="nv-lib"))
    bench.refresh()
    assert bench.driver("nv-driver").returncode == 0
    bench.root.run("dpkg", "--force-depends", "--remove", "nv-lib")
    sources = bench.root.path("/etc/apt/sources.list")
    sources.write_text("deb [trusted=yes] http://127.0.0.1:9 forky main\n")
    done = bench.root.script("refresh-deb.sh", 5)
    assert done.returncode == 1
    assert "E: Failed to fetch http://127.0.0.1:9/" in done.stderr
    assert "removing" not in done.stderr


def test_an_interrupted_run_that_only_a_removal_would_mend_is_left_to_the_operator(bench):
    bench.publish(Package("nv-driver", "580.95.05-1", depends="nv-nothing"))
    bench.root.run("dpkg", "--install", bench.mirror.folder / "nv-driver_580.95.05-1_amd64.deb")
    done = bench.root.script("refresh-deb.sh", 5)
    assert done.returncode == 1
    assert "E: an interrupted installation can only be mended by removing: nv-driver" in done.stderr
    assert bench.version("nv-driver") == "iU |580.95.05-1"


# questions


def test_nobody_is_asked_anything(bench):
    question = "Template: nv/question\nType: boolean\nDefault: false\nDescription: Really?\n"
    asks = "#!/bin/sh\n. /usr/share/debconf/confmodule\ndb_input critical nv/question || :\ndb_go || :\n"
    tells = 'exec 3>>/run/answers; readlink /proc/$$/fd/0 >&3; echo "$DEBIAN_FRONTEND" >&3'
    plain = f"#!/bin/sh\n{tells}; read answer || echo nobody >&3\n"
    settings = {"/etc/nv.conf": "old\n"}
    listed = {"conffiles": "/etc/nv.conf\n"}
    bench.publish(Package("nv-driver", "575.57.08-1", files=settings, scripts=listed))
    bench.refresh()
    assert bench.driver("nv-driver").returncode == 0
    bench.root.shell("echo mine >/etc/nv.conf")
    hook = 'DPkg::Post-Invoke {"env >/run/environment";};\n'
    bench.root.path("/etc/apt/apt.conf.d/needrestart").write_text(hook)
    bench.publish(
        Package(
            "nv-driver",
            "580.95.05-1",
            files={"/etc/nv.conf": "new\n"},
            scripts=listed | {"templates": question, "config": asks, "postinst": asks},
        ),
        Package("nv-lib", "580.95.05-1", scripts={"postinst": plain}),
    )
    bench.refresh()
    done = bench.driver("nv-driver", "nv-lib")
    assert (done.returncode, done.stderr) == (0, "")
    assert bench.said("answers") == ["/dev/null", "noninteractive", "nobody"]
    # dpkg would ask which of both to keep.
    assert bench.root.shell("cat /etc/nv.conf") == "mine\n"
    assert {"NEEDRESTART_SUSPEND=1", "NEEDRESTART_MODE=l"} <= set(bench.said("environment"))


# locks


@pytest.mark.parametrize("lock", ["/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock", "/var/lib/apt/lists/lock"])
def test_a_lock_that_stays_held_names_its_holder_and_leaves_it_alone(bench, lock):
    with holding(bench.root, lock) as holder:
        done = bench.root.script("refresh-deb.sh", 1, beside=holder.pid)
        assert done.returncode == 1
        assert f"E: held for more than 1 s by pid {holder.pid}: " in done.stderr
        # What it is, beside its number.
        assert lock in done.stderr.partition(f"by pid {holder.pid}: ")[2]
        assert holder.poll() is None


def test_packages_wait_for_the_lock_as_well_and_name_its_holder(bench):
    bench.publish(Package("nv-driver", "580.95.05-1"))
    bench.refresh()
    with holding(bench.root, "/var/lib/dpkg/lock-frontend") as holder:
        done = bench.root.script("driver-deb.sh", 1, "no", "", "", "nv-driver", beside=holder.pid)
        assert done.returncode == 1
        assert f"E: held for more than 1 s by pid {holder.pid}: " in done.stderr
        assert holder.poll() is None


@pytest.mark.parametrize("lock", ["/var/lib/dpkg/lock-frontend", "/var/lib/apt/lists/lock"])
def test_a_lock_that_is_given_back_is_waited_for(bench, lock):
    bench.publish(Package("nv-driver", "580.95.05-1"))
    with holding(bench.root, lock) as holder:
        process = bench.root.start_script("refresh-deb.sh", 60, beside=holder.pid)
        log = bench.root.path(LOG)
        until(lambda: log.exists() and "lock" in log.read_text(), "a word of the lock")
        holder.terminate()
        done = finished(process)
    assert (done.returncode, done.stderr) == (0, "")
    assert "580.95.05-1" in bench.root.shell("apt-cache madison nv-driver")
