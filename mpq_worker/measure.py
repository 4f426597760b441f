"""What a worker measures of its path: probe RTT, jitter, and loss each way. Pure; times in seconds."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict

from mpq_worker.contract import RTT_BOUNDS, PathStats
from mpq_worker.quic.session import Session

MAX_OUTSTANDING = 64
JITTER_GAIN = 1 / 16


class ProbeMeter:
    """RTT and jitter from our own probes, which travel as DATAGRAM frames like the packets they speak for."""

    def __init__(self) -> None:
        self._sent: OrderedDict[int, float] = OrderedDict()
        self._next = 0
        self.rtt: float | None = None
        self.jitter: float | None = None

    def send(self, now: float) -> int:
        """The sequence number of a probe that leaves now."""
        seq, self._next = self._next, self._next + 1
        self._sent[seq] = now
        if len(self._sent) > MAX_OUTSTANDING:
            self._sent.popitem(last=False)
        return seq

    def receive(self, seq: int, now: float) -> bool:
        """A reply came; False if it answers nothing we sent, or the second time."""
        sent = self._sent.pop(seq, None)
        if sent is None:
            return False
        rtt = now - sent
        if self.rtt is not None:
            deviation = abs(rtt - self.rtt)
            previous = deviation if self.jitter is None else self.jitter
            self.jitter = previous + (deviation - previous) * JITTER_GAIN  # RFC 3550 section 6.4.1
        self.rtt = rtt
        return True


class Histogram:
    """Round trips by `RTT_BOUNDS`; each bucket counts its own."""

    def __init__(self) -> None:
        self.counts = [0] * (len(RTT_BOUNDS) + 1)
        self.sum = 0.0

    def add(self, rtt: float) -> None:
        """One round trip in seconds."""
        self.counts[bisect_left(RTT_BOUNDS, rtt)] += 1
        self.sum += rtt


class PathMeter:
    """Turns a session's totals into ratios over the time since the last report."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def stats(self, session: Session, probes: ProbeMeter) -> PathStats:
        """A snapshot; loss is over the interval since the last call."""
        now = session.counters()
        delta = {key: value - self._last.get(key, 0) for key, value in now.items()}
        self._last = now
        rtt = session.rtt()
        return PathStats(
            rtt=rtt and rtt[0],
            rtt_min=rtt and rtt[1],
            probe_rtt=probes.rtt,
            jitter=probes.jitter,
            loss_tx=_ratio(delta["lost"], delta["lost"] + delta["acked"]),
            loss_rx=_ratio(delta["expected"] - delta["received"], delta["expected"]),
            congestion_window=now["window"],
            bytes_in_flight=now["in_flight"],
            packets_sent=now["sent"],
            packets_lost=now["lost"],
            packets_received=now["received"],
            key_updates=now["key_updates"],
            datagram_size=now["datagram_size"],
        )


def _ratio(part: int, whole: int) -> float | None:
    return min(1.0, max(0.0, part / whole)) if whole > 0 else None
