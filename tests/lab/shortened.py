"""Lengths that a lab host is told for a test: shorter ones, of waits that the product has in minutes.

Those that are shipped are asserted where they are rendered (tests/rendering) or belong (tests/libexec), and are kept in
the long form of a test.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rackserve.lab.lab import Lab

HEALTH = "/usr/libexec/rackserve/health"
_UNITS = "/etc/systemd/system"
# A timer that does not run, because its service does not, stays as it is.
_RELOADED = "systemctl daemon-reload; systemctl try-restart rackserve-health@chat.timer"


@contextmanager
def looks(lab: Lab, host: str, between_s: float, answer_s: float, metrics_s: float) -> Iterator[None]:
    """Have the health check look after so many seconds, and wait so long for an answer and for metrics."""
    drop_in = f"{_UNITS}/rackserve-health@.timer.d"
    lengths = f"s/^PROBE_S = .*/PROBE_S = {answer_s}/; s/^METRICS_S = .*/METRICS_S = {metrics_s}/"
    # The empty word takes back both. More than five looks in ten seconds systemd would refuse.
    often = f"[Timer]\nOnActiveSec=\nOnActiveSec={between_s}s\nOnUnitInactiveSec={between_s}s\n"
    lab.ssh(host, f"cp -a {HEALTH} /root/health; sed -i '{lengths}' {HEALTH}; ! cmp -s {HEALTH} /root/health")
    lab.ssh(host, f"mkdir -p {drop_in}; cat >{drop_in}/test.conf; {_RELOADED}", input=often)
    try:
        yield
    finally:
        lab.ssh(host, f"mv /root/health {HEALTH}; rm -r {drop_in}; {_RELOADED}")


@contextmanager
def drain(lab: Lab, host: str, seconds: int) -> Iterator[None]:
    """Have a stop of the service wait so long for requests in flight."""
    facts = "/etc/rackserve/services/chat.json"
    lab.ssh(host, f'cp -a {facts} /root/facts; sed -i \'s/"drain_s": [0-9]*/"drain_s": {seconds}/\' {facts}')
    try:
        yield
    finally:
        lab.ssh(host, f"mv /root/facts {facts}")


@contextmanager
def restarts(lab: Lab, host: str) -> Iterator[None]:
    """Have systemd start a service that has ended again after a second."""
    drop_in = f"{_UNITS}/rackserve@.service.d"
    lab.ssh(
        host,
        f"mkdir -p {drop_in}; printf '[Service]\\nRestartSec=1\\n' >{drop_in}/test.conf; systemctl daemon-reload",
    )
    try:
        yield
    finally:
        lab.ssh(host, f"rm -r {drop_in}; systemctl daemon-reload")
