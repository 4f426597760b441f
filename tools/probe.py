"""Numbered UDP probes both ways through many tunnels, from one process at each end.

    python -m tools.probe far  '{"rate": 200, "flows": [{"name": "cr2", "target": "203.0.113.10", "port": 7400}]}'
    python -m tools.probe near '{"rate": 200, "flows": [...]}'         the same order

The near end sends to the targets and so shows the far end where to send: each flow's latest probe names the address
that the far end's probes go back to, as a NAT on the way sees it. Both send `rate` a second per flow on a schedule of
their own, in three groups per interval (a wake-up costs more than a datagram), and note when each probe left and when
the kernel received it. A sender that was scheduled late skips what it missed: bursts are not what is measured.

Both print "ready" at the start, send until the end of their stdin and receive `LINGER` longer. The record is msgpack
on stdout: `list[Record]`; `probe_report.join` makes streams of the records of both ends.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import struct
import sys
import time
from array import array

import msgspec

from tools import namespaces
from tools.probe_report import Record
from tools.setns import inside
from tools.sockets import SO_TIMESTAMPNS, Via, arrival_ns, listen_datagram, open_datagram, receive_drops, wait_until

LINGER = 1.5  # seconds; longer than any queue on the way
_GROUPS = 3
_HEADER = struct.Struct("!HI")  # index of the flow, number of the probe


class ProbeFlow(msgspec.Struct, frozen=True, kw_only=True):
    """Probes through one tunnel: to a port of `target`, one for each flow, and back from there.

    `namespace` is where the near end's socket is opened, by the name under /run/netns; empty is where it runs.
    """

    name: str
    target: str
    port: int
    via: Via = Via()
    namespace: str = ""


class ProbeOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What both ends shall do: probes of `size` bytes of payload, `rate` a second per flow and direction."""

    flows: list[ProbeFlow]
    rate: float = 200.0
    size: int = 64


class _End:
    """One flow at one end."""

    def __init__(self, index: int, flow: ProbeFlow, size: int, *, near: bool) -> None:
        self._name = flow.name
        self._index = index
        self._padding = bytes(size - _HEADER.size)
        self._peer: tuple[str, int] | None = (flow.target, flow.port) if near else None
        self._learns = not near
        self.socket = _open(flow) if near else listen_datagram(flow.port)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._sent = array("q")
        self._arrived = array("q")
        self._highest = -1
        self._reordered, self._duplicated = array("q"), array("q")
        self._refused = self._strays = 0

    def send(self) -> None:
        """Send the next probe, as soon as it is known where to. What the kernel refuses counts as sent and lost."""
        if not self._peer:
            return
        header = _HEADER.pack(self._index, len(self._sent))
        self._sent.append(time.monotonic_ns())
        try:
            self.socket.sendto(header + self._padding, self._peer)
        except OSError:
            self._refused += 1

    def receive(self) -> None:
        """Take one probe."""
        data, ancillary, _, peer = self.socket.recvmsg(2048, 64)
        arrival = arrival_ns(ancillary)
        index, number = _HEADER.unpack_from(data) if len(data) >= _HEADER.size else (-1, 0)
        if index != self._index:
            self._strays += 1
            return
        if number >= len(self._arrived):
            self._arrived.extend([0] * (number + 1 - len(self._arrived)))
        if self._arrived[number]:
            self._duplicated.append(number)
            return
        self._arrived[number] = arrival
        if number < self._highest:
            self._reordered.append(number)
            return
        self._highest = number
        if self._learns:
            self._peer = peer

    def record(self) -> Record:
        """What this end saw."""
        return Record(
            name=self._name,
            sent=self._sent.tobytes(),
            arrived=self._arrived.tobytes(),
            reordered=self._reordered.tobytes(),
            duplicated=self._duplicated.tobytes(),
            refused=self._refused,
            strays=self._strays,
            overrun=receive_drops(self.socket),
        )


def _open(flow: ProbeFlow) -> socket.socket:
    if not flow.namespace:
        return open_datagram(flow.target, 0, flow.via)
    fd = os.open(namespaces.NETNS / flow.namespace, os.O_RDONLY)
    try:
        with inside(fd):
            return open_datagram(flow.target, 0, flow.via)
    finally:
        os.close(fd)


def run(order: ProbeOrder, *, near: bool) -> list[Record]:
    """Send and receive until stdin ends, and receive a little longer."""
    ends = [_End(index, flow, order.size, near=near) for index, flow in enumerate(order.flows)]
    by_fd = {end.socket.fileno(): end for end in ends}
    groups = [ends[i::_GROUPS] for i in range(_GROUPS)]
    epoll = select.epoll()
    epoll.register(sys.stdin, select.EPOLLIN)
    for fd in by_fd:
        epoll.register(fd, select.EPOLLIN)
    gc.freeze()
    gc.disable()
    print("ready", flush=True)

    tick = round(1e9 / order.rate / _GROUPS)
    due, group, over = time.monotonic_ns(), 0, 0
    while not over or time.monotonic_ns() < over:
        now = time.monotonic_ns()
        if now >= due and not over:
            for end in groups[group]:
                end.send()
            group = (group + 1) % _GROUPS
            due = max(due + tick, now)
        for fd, _ in wait_until(epoll, over or due):
            if fd in by_fd:
                by_fd[fd].receive()
            elif not os.read(fd, 64):
                epoll.unregister(fd)
                over = time.monotonic_ns() + round(LINGER * 1e9)
    return [end.record() for end in ends]


if __name__ == "__main__":
    records = run(msgspec.json.decode(sys.argv[2], type=ProbeOrder), near=sys.argv[1] == "near")
    sys.stdout.buffer.write(msgspec.msgpack.encode(records))
