"""Planned restarts of every worker at both ends, under numbered probes in both directions: none is lost or late."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from mpq_supervisor.lifecycle import State
from mpq_supervisor.requests import Code
from tests.netns.product import System, ok
from tools.acceptance.upgrades import LAST_RELEASE, change_release
from tools.lab import Lab
from tools.probe_report import ProbeStream
from tools.product import Side
from tools.system import SIDES
from tools.traffic import start_probes

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]


@contextmanager
def probed(system: System) -> Iterator[list[ProbeStream]]:
    """200 probes a second and direction through each tunnel; the streams, filled at the end."""
    streams: list[ProbeStream] = []
    probes = start_probes(system.lab, "lan", "server", system.deployment.probes())
    try:
        yield streams
    finally:
        streams += probes.result()


def unharmed(streams: list[ProbeStream]) -> bool:
    """Every stream has arrived, whole and in order; says which has not."""
    assert len(streams) == 18
    harmed = {(s.name, s.way): (s.lost, list(s.reordered)) for s in streams if s.lost or s.reordered}
    assert not harmed, f"(lost, reordered): {harmed}"
    return True


@pytest.mark.parametrize("side", SIDES)
def test_restart_of_all_workers_loses_and_reorders_nothing(system: System, side: Side) -> None:
    """Twice: back and forth between the two ports of each tunnel, or the two slots of each class."""
    with probed(system) as streams:
        for _ in range(2):
            pids = system.pids(side)
            ok(system.lab.ctl(side, "restart", "all", wait=15))
            assert not set(system.pids(side).values()) & set(pids.values())
    assert min(len(stream.sent) for stream in streams) > 100
    assert unharmed(streams)
    assert {worker.reconnects for worker in system.workers("site").values()} == {0}


def test_a_restart_that_cannot_succeed_leaves_the_old_worker(system: System) -> None:
    """The other port of the tunnel is taken, so that its successor gets no socket."""
    pids = system.pids("site")
    with ExitStack() as stack, probed(system) as streams:
        with system.inside("site"):
            for port in system.tunnels["br2"].source_ports:
                taken = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                with suppress(OSError):  # the port in use
                    taken.bind(("0.0.0.0", port))
        response = system.lab.ctl("site", "restart", "br2", wait=15)
        assert response.code is Code.FAILED
    assert response.status is not None
    (worker,) = response.status.workers
    assert (worker.state, worker.reason) == (State.UP, "restart failed: wan5: wan5 cannot be bound")
    assert unharmed(streams)
    assert system.pids("site") == pids


# ---------------------------------------------------------------- the supervisor itself


@pytest.mark.parametrize("how", ["restarted", "killed"])
@pytest.mark.parametrize("side", SIDES)
def test_the_next_supervisor_adopts_every_worker(system: System, side: Side, how: str) -> None:
    """With a service manager that keeps descriptors. They are then as much its own as any."""
    pids = system.pids(side)
    with probed(system) as streams:
        if how == "restarted":
            system.restart(side)
        else:
            system.kill(side)
            system.start(side)
        system.until_state(side, State.UP)
        assert system.pids(side) == pids
    assert unharmed(streams)
    assert {worker.restarts for worker in system.workers(side).values()} == {0}
    name, pid = next(iter(pids.items()))
    os.kill(pid, signal.SIGKILL)
    system.until_replaced(side, name, pid)
    ok(system.lab.ctl(side, "restart", name, wait=15))
    system.until_answered()


@pytest.mark.parametrize("side", ["hub"])
def test_an_upgrade_and_the_way_back_lose_nothing(system: System, side: Side) -> None:
    """To the last release, whose supervisor adopts our workers and replaces them, and from there to this one."""
    with probed(system) as streams:
        for system.lab.release in (LAST_RELEASE, Lab.release):
            adopted = system.log(side).count("to be replaced")
            workers = change_release(system, side)
            assert system.log(side).count("to be replaced") == adopted + workers
    assert unharmed(streams)
