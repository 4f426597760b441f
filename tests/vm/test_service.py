"""The shipped unit under a real systemd: frozen, killed, restarted, reloaded."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.vm import host
from tests.vm.conftest import Figure
from tests.vm.lab import Surroundings
from tools.wait import pause


def test_reload_touches_no_worker() -> None:
    before = {name: worker.pid for name, worker in host.until_up().items()}
    pid = host.main_pid()
    host.call("systemctl", "reload", host.UNIT)
    assert host.main_pid() == pid
    assert {name: worker.pid for name, worker in host.workers().items()} == before


@pytest.mark.parametrize("what", ["restart", "kill", "freeze"])
def test_no_tunnel_notices(what: str, around: Surroundings, figure: Figure) -> None:
    """The next supervisor adopts the workers."""
    before = {name: worker.pid for name, worker in host.until_up().items()}
    pid = host.main_pid()
    restarts = int(host.show("NRestarts"))
    with host.probing(around) as streams:
        pause(2)
        begin = time.monotonic()
        if what == "restart":
            host.call("systemctl", "restart", host.UNIT)
        else:
            os.kill(pid, signal.SIGKILL if what == "kill" else signal.SIGSTOP)
        seconds = host.replaced(pid, begin)
        pause(3)
    figure(f"{what} to nine adopted", seconds, "s")
    figure(f"{what}: probes lost", sum(s.lost for s in streams), f"of {sum(len(s.sent) for s in streams)}")
    assert {name: worker.pid for name, worker in host.workers().items()} == before
    assert {(s.name, s.way): s.lost for s in streams if s.lost or s.reordered} == {}
    assert int(host.show("NRestarts")) == (restarts + 1 if what != "restart" else 0)
    assert around.leaks().count("packets 0 ") == 2
    if what == "freeze":
        said = host.call("journalctl", "--boot", "--output=cat", "--unit", host.UNIT)
        assert "Watchdog timeout" in said
