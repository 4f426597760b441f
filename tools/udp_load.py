"""Numbered UDP at a fixed rate, and the exact count of what arrived.

    python -m tools.udp_load receive '[{"name": "br2", "port": 7002, ...}]'      at the far end, first
    python -m tools.udp_load send    '{"seconds": 10, "flows": [...]}'

Many flows in one process at each end. The sender sends every millisecond what has come due since, one datagram per
system call, or without a rate as fast as it can. The receiver prints "ready" when it listens; at the end of its stdin
it waits until nothing has come for `QUIET` and reports. Reports are JSON on stdout.
"""

from __future__ import annotations

import gc
import select
import struct
import sys
import time
from typing import Any

import msgspec

from tools.sockets import Via, listen_datagram, open_datagram, receive_drops, wait_until

_NUMBER = struct.Struct("!I")
_TICK_NS = 1_000_000
_FLOOD_BATCH = 32
QUIET = 0.5  # seconds; longer than any queue on the way
_DRAIN_MAX = 5.0


class LoadFlow(msgspec.Struct, frozen=True, kw_only=True):
    """Datagrams of `size` bytes of payload to a port of `target`; `mbit` counts payload, None is full speed."""

    name: str
    target: str
    port: int
    mbit: float | None
    size: int = 1200
    via: Via = Via()


class SendOrder(msgspec.Struct, frozen=True, kw_only=True):
    """What a sender shall do."""

    flows: list[LoadFlow]
    seconds: float


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """Datagrams that the kernel took, and those it refused (not in `sent`), in `seconds`."""

    sent: int
    refused: int
    seconds: float


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """Datagrams that arrived, each number once; `overrun` is what the receiver itself was too slow to take."""

    received: int
    duplicated: int
    reordered: int
    overrun: int


class _Source:
    def __init__(self, flow: LoadFlow) -> None:
        self._socket = open_datagram(flow.target, 0, flow.via)
        self._socket.connect((flow.target, flow.port))
        self._padding = bytes(flow.size - _NUMBER.size)
        self._per_ns = flow.mbit and flow.mbit * 1e6 / 8 / flow.size / 1e9
        self.number = self.refused = 0

    def send_due(self, elapsed_ns: int) -> None:
        """Send what is due `elapsed_ns` after the start."""
        due = int(elapsed_ns * self._per_ns) if self._per_ns else self.number + self.refused + _FLOOD_BATCH
        for _ in range(due - self.number - self.refused):
            try:
                self._socket.send(_NUMBER.pack(self.number) + self._padding)
                self.number += 1
            except OSError:  # no room, no route, or the far end's ICMP for an earlier one: this one was not sent
                self.refused += 1


def send(order: SendOrder) -> dict[str, Sent]:
    """Send every flow for `seconds`, or until stdin ends."""
    sources = {flow.name: _Source(flow) for flow in order.flows}
    flooding = any(flow.mbit is None for flow in order.flows)
    epoll = select.epoll()
    epoll.register(sys.stdin, select.EPOLLIN)
    start = tick = time.monotonic_ns()
    elapsed, limit = 0, round(order.seconds * 1e9)
    while True:
        elapsed = min(time.monotonic_ns() - start, limit)
        for source in sources.values():
            source.send_due(elapsed)
        if elapsed == limit:
            break
        tick = max(tick + _TICK_NS, start + elapsed)
        if wait_until(epoll, 0 if flooding else tick):
            break
    return {
        name: Sent(sent=source.number, refused=source.refused, seconds=elapsed / 1e9)
        for name, source in sources.items()
    }


class _Sink:
    def __init__(self, port: int) -> None:
        self.socket = listen_datagram(port)
        self._buffer = bytearray(2048)
        self._seen = bytearray()  # a byte per number, grown as numbers come
        self._highest = -1
        self._received = self._duplicated = self._reordered = 0

    def receive(self) -> None:
        """Take every datagram that is there."""
        while True:
            try:
                self.socket.recv_into(self._buffer)
            except BlockingIOError:
                return
            (number,) = _NUMBER.unpack_from(self._buffer)
            if number >= len(self._seen):
                self._seen.extend(bytes(number + 65536 - len(self._seen)))
            if self._seen[number]:
                self._duplicated += 1
                continue
            self._seen[number] = 1
            self._received += 1
            if number > self._highest:
                self._highest = number
            else:
                self._reordered += 1

    def report(self) -> Received:
        """The counts so far."""
        return Received(
            received=self._received,
            duplicated=self._duplicated,
            reordered=self._reordered,
            overrun=receive_drops(self.socket),
        )


def receive(flows: list[LoadFlow]) -> dict[str, Received]:
    """Receive every flow until stdin ends and quiet is."""
    sinks = {flow.name: _Sink(flow.port) for flow in flows}
    by_fd = {sink.socket.fileno(): sink for sink in sinks.values()}
    epoll = select.epoll()
    epoll.register(sys.stdin, select.EPOLLIN)
    for fd in by_fd:
        epoll.register(fd, select.EPOLLIN)
    print("ready", flush=True)
    end: float | None = None
    while end is None or time.monotonic() < end:
        events = epoll.poll(None if end is None else QUIET)
        if not events:
            break
        for fd, _ in events:
            if fd in by_fd:
                by_fd[fd].receive()
            else:
                epoll.unregister(sys.stdin)
                end = time.monotonic() + _DRAIN_MAX
    return {name: sink.report() for name, sink in sinks.items()}


def main(mode: str, text: str) -> None:
    """Run one end and print its report."""
    gc.freeze()
    gc.disable()
    report: Any
    if mode == "send":
        report = send(msgspec.json.decode(text, type=SendOrder))
    else:
        report = receive(msgspec.json.decode(text, type=list[LoadFlow]))
    sys.stdout.buffer.write(msgspec.json.encode(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
