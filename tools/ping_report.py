"""What became of the probes of a stream, and how to ask it: for all of them or for a window of time. Pure."""

from __future__ import annotations

import msgspec

from tools.results import percentile


class Window(msgspec.Struct, frozen=True):
    """Probes sent within a stretch of time. RTTs in ms; nan where nothing came back."""

    sent: int
    lost: int
    p50_ms: float
    p99_ms: float
    max_ms: float

    @property
    def received_ratio(self) -> float:
        """Share of probes that were answered; nan where none was sent."""
        return (self.sent - self.lost) / self.sent if self.sent else float("nan")


class StreamReport(msgspec.Struct, frozen=True, kw_only=True):
    """One stream, probe by probe: sent `sent_us` after `start_ns` (monotonic, the same in every process of a
    machine), answered `rtt_us` later or never (None). Among the lost are the `refused`, which the sender's own
    kernel did not take."""

    name: str
    start_ns: int
    sent_us: list[int]
    rtt_us: list[float | None]
    reordered: int
    duplicated: int
    refused: int

    def window(self, begin_ns: int = 0, end_ns: int = 1 << 62) -> Window:
        """The probes sent at or after `begin_ns` and before `end_ns`."""
        begin, end = (begin_ns - self.start_ns) / 1000, (end_ns - self.start_ns) / 1000
        rtts = [rtt for sent, rtt in zip(self.sent_us, self.rtt_us, strict=True) if begin <= sent < end]
        answered = sorted(rtt / 1000 for rtt in rtts if rtt is not None)
        return Window(
            sent=len(rtts),
            lost=len(rtts) - len(answered),
            p50_ms=percentile(answered, 50),
            p99_ms=percentile(answered, 99),
            max_ms=percentile(answered, 100),
        )

    def losses_ns(self) -> list[int]:
        """When each probe that was lost had been sent."""
        pairs = zip(self.sent_us, self.rtt_us, strict=True)
        return [self.start_ns + sent * 1000 for sent, rtt in pairs if rtt is None]

    def under_way_ns(self, at_ns: int) -> int:
        """When the oldest probe had been sent that may still have been under way at a time, on a way that keeps the
        order: the one after the newest that had been answered by then."""
        answered = [
            sent
            for sent, rtt in zip(self.sent_us, self.rtt_us, strict=True)
            if rtt is not None and self.start_ns + (sent + rtt) * 1000 <= at_ns
        ]
        return self.start_ns + (max(answered) * 1000 + 1 if answered else 0)

    def first_answer_ns(self, after_ns: int) -> int | None:
        """Arrival of the first answer to a probe sent after `after_ns`; None if there is none."""
        answers = [
            self.start_ns + round((sent + rtt) * 1000)
            for sent, rtt in zip(self.sent_us, self.rtt_us, strict=True)
            if rtt is not None and self.start_ns + sent * 1000 >= after_ns
        ]
        return min(answers, default=None)
