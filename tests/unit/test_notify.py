"""What the service manager hears."""

from __future__ import annotations

import os
import socket

import pytest

from mpq_supervisor.notify import Notifier


def test_messages(daemon: socket.socket) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": daemon.getsockname(), "WATCHDOG_USEC": "10000000"})
    notifier.ready()
    notifier.status("9 UP")
    notifier.status("9 UP")
    notifier.watchdog()
    notifier.reloading()
    notifier.stopping()
    heard = [daemon.recv(200).decode() for _ in range(5)]
    assert heard[:3] == ["READY=1", "STATUS=9 UP", "WATCHDOG=1"]
    assert heard[3].startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert heard[4] == "STOPPING=1"
    notifier.close()


def test_abstract_socket() -> None:
    name = f"mpq-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind("\0" + name)
        notifier = Notifier({"NOTIFY_SOCKET": "@" + name})
        notifier.ready()
        assert sock.recv(100) == b"READY=1"
        notifier.close()


@pytest.mark.parametrize("watchdog", [{}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}])
def test_nobody_watches(daemon: socket.socket, watchdog: dict[str, str]) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": daemon.getsockname(), **watchdog})
    notifier.watchdog()
    notifier.stopping()
    assert daemon.recv(100) == b"STOPPING=1"
    notifier.close()


def test_nobody_listens() -> None:
    notifier = Notifier({})
    notifier.ready()
    notifier.close()


def test_a_manager_that_is_gone_does_not_bring_us_down(
    daemon: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    notifier = Notifier({"NOTIFY_SOCKET": daemon.getsockname(), "WATCHDOG_USEC": "10000000"})
    daemon.close()
    notifier.watchdog()
    assert "service manager" in caplog.text
    notifier.close()
