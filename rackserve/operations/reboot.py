"""Reboot a host and wait until it is another boot of it that answers."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import gevent
from pyinfra import logger
from pyinfra.api import FunctionCommand
from pyinfra.api.host import Host
from pyinfra.api.state import State

_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
_POLL_S = 2
_TOLD_EVERY_S = 30
# A host that is on its way down may take a connection and never answer.
_ANSWER_S = 20


def rebooted(reason: str, timeout: int) -> Iterator[FunctionCommand]:
    """Reboot for this reason. Fails the host if no other boot of it answers within `timeout` seconds.

    pyinfra's own `server.reboot` compares uptimes, which are the same in a container and its machine.
    """
    yield FunctionCommand(_reboot, (reason, timeout), {})


def _reboot(state: State, host: Host, reason: str, timeout: int) -> bool:  # noqa: ARG001 (pyinfra goes by its name)
    """Whether it came back; pyinfra shows a traceback for what such a function raises."""
    before = _boot_id(host)
    logger.info(f"{host.print_prefix}rebooting: {reason}")
    # Under PID 1, a second from now: the connection is closed by us and not by the shutdown.
    host.run_shell_command("systemd-run --quiet --collect --on-active=1 systemctl reboot")
    host.disconnect()
    begun = told = time.monotonic()
    while time.monotonic() - begun < timeout:
        time.sleep(_POLL_S)
        if _answers_as_another_boot(host, before):
            logger.info(f"{host.print_prefix}back after {time.monotonic() - begun:.0f} s")
            return True
        if time.monotonic() - told > _TOLD_EVERY_S:
            told = time.monotonic()
            logger.info(f"{host.print_prefix}not back after {told - begun:.0f} s, waiting for up to {timeout} s")
    logger.error(f"{host.print_prefix}not back within {timeout} s of its reboot: look at its console")
    return False


def _answers_as_another_boot(host: Host, before: str) -> bool:
    host.connect(show_errors=False)
    if not host.connected:
        return False
    now = _boot_id(host)
    if now and now != before:
        return True
    host.disconnect()
    return False


def _boot_id(host: Host) -> str:
    with gevent.Timeout(_ANSWER_S, exception=False), contextlib.suppress(Exception):
        # paramiko raises of every kind while a host goes down.
        done, output = host.run_shell_command(_BOOT_ID)
        return output.stdout.strip() if done else ""
    return ""
