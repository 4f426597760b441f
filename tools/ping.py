"""Many numbered echo streams from one process; every probe is accounted for.

    python -m tools.ping '{"seconds": 10, "streams": [{"name": "cr2", "target": "203.0.113.10", ...}]}'

A stream is ICMP echo (no server needed) or, with a port, UDP to `tools.udp_echo`. Probes leave on a fixed
schedule, the streams spread evenly over the interval. ICMP goes by the kernel's echo sockets, which sort the
replies by identifier (a raw socket would show each stream the replies of all). Arrival is the kernel's time stamp,
so that being scheduled late does not look like a slow network. The report is JSON on stdout, after `seconds` or at
the end of stdin, whichever comes first, and `linger` for stragglers.
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

from tools.ping_report import StreamReport
from tools.sockets import SO_TIMESTAMPNS, Via, arrival_ns, open_datagram, wait_until

_NUMBER = struct.Struct("!I")
_ECHO = struct.Struct("!BBHHH")  # RFC 792, RFC 4443: type, code, checksum, identifier, sequence number
_LOST = -1


class Stream(msgspec.Struct, frozen=True, kw_only=True):
    """Probes of `size` bytes of payload at `rate` a second to `target`; ICMP without a port, else UDP."""

    name: str
    target: str
    port: int = 0
    rate: float = 100.0
    size: int = 56
    via: Via = Via()


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one process shall do."""

    streams: list[Stream]
    seconds: float
    linger: float


class _Prober:
    """One stream at work: sends what is due, matches what comes back by number."""

    def __init__(self, stream: Stream, start_ns: int) -> None:
        v6 = ":" in stream.target
        icmp = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
        self._stream = stream
        self._request = (128 if v6 else 8) if not stream.port else None
        self._skip = _ECHO.size if self._request else 0
        self.socket = open_datagram(stream.target, icmp if self._request else 0, stream.via)
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self._target = (stream.target, stream.port)
        self._interval = 1e9 / stream.rate
        self._padding = bytes(max(0, stream.size - _NUMBER.size))
        self._start_ns = start_ns
        self._sent = array("q")  # monotonic ns
        self._rtt = array("q")  # ns, _LOST until the reply is here
        self._highest = -1
        self._reordered = self._duplicated = self._refused = 0

    @property
    def due_ns(self) -> int:
        """When the next probe leaves."""
        return self._start_ns + round(len(self._sent) * self._interval)

    def send(self) -> None:
        """Send the next probe. One that the kernel refuses counts as sent and lost."""
        number = len(self._sent)
        header = _ECHO.pack(self._request, 0, 0, 0, number & 0xFFFF) if self._request else b""
        self._rtt.append(_LOST)
        self._sent.append(time.monotonic_ns())
        try:
            self.socket.sendto(header + _NUMBER.pack(number) + self._padding, self._target)
        except OSError:
            self._refused += 1

    def receive(self) -> None:
        """Take every reply that is there."""
        while True:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(2048, 64)
            except BlockingIOError:
                return
            arrival = arrival_ns(ancillary)
            (number,) = _NUMBER.unpack_from(data, self._skip)
            if self._rtt[number] != _LOST:
                self._duplicated += 1
                continue
            self._rtt[number] = arrival - self._sent[number]
            self._reordered += number < self._highest
            self._highest = max(self._highest, number)

    def report(self) -> StreamReport:
        """All that became of the probes."""
        start = self._sent[0] if self._sent else self._start_ns
        return StreamReport(
            name=self._stream.name,
            start_ns=start,
            sent_us=[(ns - start) // 1000 for ns in self._sent],
            rtt_us=[None if ns == _LOST else round(ns / 1000, 1) for ns in self._rtt],
            reordered=self._reordered,
            duplicated=self._duplicated,
            refused=self._refused,
        )


def run(order: Order) -> list[StreamReport]:
    """Do what is ordered; ends early when stdin does."""
    start = time.monotonic_ns() + 1_000_000
    probers = []
    for i, stream in enumerate(order.streams):
        offset = i / len(order.streams) * 1e9 / stream.rate
        probers.append(_Prober(stream, start + round(offset)))
    by_fd = {prober.socket.fileno(): prober for prober in probers}
    epoll = select.epoll()
    epoll.register(sys.stdin, select.EPOLLIN)
    for fd in by_fd:
        epoll.register(fd, select.EPOLLIN)
    gc.freeze()
    gc.disable()

    sending, end = True, start + round(order.seconds * 1e9)
    while (now := time.monotonic_ns()) < end or sending:
        if now >= end:
            epoll.unregister(sys.stdin)
            sending, end = False, now + round(order.linger * 1e9)
        for prober in probers if sending else ():
            while prober.due_ns <= now:
                prober.send()
        wake = min(prober.due_ns for prober in probers) if sending else end
        for fd, _ in wait_until(epoll, min(wake, end)):
            if fd in by_fd:
                by_fd[fd].receive()
            elif not os.read(fd, 64):
                end = 0
    return [prober.report() for prober in probers]


if __name__ == "__main__":
    sys.stdout.buffer.write(msgspec.json.encode(run(msgspec.json.decode(sys.argv[1], type=Order))))
