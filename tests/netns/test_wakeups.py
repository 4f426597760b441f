"""When the native loop is woken, with a TUN and sockets of a real kernel."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from mpq_supervisor.tun import open_tun
from mpq_worker._datapath import ACKED
from tests.netns.namespace import Namespace
from tests.sim.packets import packet
from tools.paths import End, ends

pytestmark = pytest.mark.root

SECONDS = 5.0


@pytest.fixture
def joined(hub_namespace: Namespace) -> Iterator[tuple[End, End]]:
    """Two paths, each with a TUN and a socket of its own, which are connected."""
    near, far = ends()
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(2)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        for end, sock, other in zip((near, far), sockets, reversed(sockets), strict=True):
            sock.connect(other.getsockname())
            tun = open_tun("mpq%d")
            stack.callback(os.close, tun)
            end.datapath.attach(tun, sock.fileno())
        yield near, far


def wake(end: End) -> bool:
    """Waits until it is time, and says whether Python was asked for."""
    assert select.select([end.datapath], [], [], SECONDS)[0]
    return end.datapath.wake()


def test_nothing_is_due_once_python_has_heard_of_acknowledgements(joined: tuple[End, End]) -> None:
    near, far = joined
    near.datapath.frame(packet("10.200.11.5", "192.0.2.1"), time.monotonic())
    near.datapath.flush(time.monotonic())
    while far.path.next_number == 0:
        wake(far)
    while not wake(near):
        pass
    assert [events & ACKED for _, events in near.datapath.take_events()] == [ACKED]
    near.datapath.flush(time.monotonic())
    assert select.select([near.datapath], [], [], 0)[0] == []
