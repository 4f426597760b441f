"""A congestion window from the measured delivery rate, for links that lose packets without being congested.

The model is BBR's (Cardwell et al., "BBR: Congestion-Based Congestion Control", 2016): the window follows the
highest delivery rate of the last ten round trips times the smallest RTT of the last ten seconds. What differs:

- There is no probing cycle. A gain of two lets an inner flow double its rate every round trip, and a sender
  that has little to say keeps a small window by itself, since nothing was delivered beyond it. That is what
  "application-limited aware" comes to, and why the window cannot grow to the 12-15 MB of a stock sender.
- Loss alone is radio noise. Loss in a round whose RTT stands above the minimum is a queue that overflows: the
  gain falls to just above one, and comes back by a step for every round without it.

Pure: `now` is an argument, in seconds; sizes in bytes, rates in bytes per second.
"""

from __future__ import annotations

from typing import NamedTuple

MIN_PACKETS = 32
GAIN = 2.0
CONGESTED_GAIN = 1.15
GAIN_STEP = 0.05
CONGESTED_LOSS = 0.02
RATE_ROUNDS = 10
LEAST_RTT = 0.0001
"""The clock is read once per wake-up, so that a very near peer may seem to answer in no time."""
AGGREGATION = 0.002
"""Seconds. Acknowledgements come in batches: the receiver waits with them, and either end may have to wait for its
CPU. On a path below a millisecond most of a round trip is that, and a window for the path alone only ever shrinks."""
MIN_RTT_WINDOW = 10.0
DRAIN_TIME = 0.2


class Token(NamedTuple):
    """What is remembered of a packet when it is sent (draft-cheng-iccrg-delivery-rate-estimation)."""

    delivered: int
    delivered_time: float
    first_sent_time: float
    sent_time: float


class DeliveryRate:
    """`window` bounds the bytes in flight, `pacing_rate` the rate at which they leave (None: not yet known)."""

    def __init__(self, *, mss: int, max_window: int) -> None:
        self._floor = MIN_PACKETS * mss
        self._mss = mss
        self._cap = max(max_window, self._floor)
        self.window = self._floor
        self.pacing_rate: float | None = None
        self.delivered = 0
        self._delivered_time = 0.0
        self._first_sent_time = 0.0
        self._rates = [0.0] * RATE_ROUNDS
        self._round_end = 0
        self._round_acked = 0
        self._round_lost = 0
        self._round_rtt = float("inf")
        self._gain = GAIN
        self._min_rtt = float("inf")
        self._min_rtt_time = 0.0
        self._recent_rtt = float("inf")
        self._filled = self._was_filled = False  # in this round, in the one before
        self._drain_until = 0.0

    def on_sent(self, now: float, in_flight: int) -> Token:
        """Call for each packet before it is added to `in_flight`; keep the token with the packet."""
        if in_flight == 0:
            self._delivered_time = self._first_sent_time = now
        if in_flight + 2 * self._mss >= self.window:
            self._filled = True
        return Token(self.delivered, self._delivered_time, self._first_sent_time, now)

    def note_filled(self) -> None:
        """The window was full, or nearly, when something was sent: what `on_sent` finds out by itself."""
        self._filled = True

    def on_acked(self, now: float, size: int, token: Token) -> None:
        """A packet of `size` bytes was acknowledged at `now`."""
        self.delivered += size
        self._delivered_time = now
        self._first_sent_time = token.sent_time
        self._round_acked += size
        interval = max(now - token.delivered_time, token.sent_time - token.first_sent_time)
        if interval > 0 and interval >= min(self._min_rtt, 1.0):
            rate = (self.delivered - token.delivered) / interval
            self._rates[-1] = max(self._rates[-1], rate)
        if token.delivered >= self._round_end:
            self._end_round()
        self._update(now)

    def on_lost(self, size: int) -> None:
        """A packet of `size` bytes is given up."""
        self._round_lost += size

    def on_rtt(self, now: float, rtt: float) -> None:
        """A sample of the round-trip time, in seconds."""
        rtt = max(rtt, LEAST_RTT)
        self._round_rtt = min(self._round_rtt, rtt)
        if rtt <= self._min_rtt:
            self._min_rtt, self._min_rtt_time = rtt, now
            self._recent_rtt, self._drain_until = float("inf"), 0.0
            return
        self._recent_rtt = min(self._recent_rtt, rtt)
        if now - self._min_rtt_time > MIN_RTT_WINDOW and now >= self._drain_until:
            self._renew_min_rtt(now, rtt)

    def _renew_min_rtt(self, now: float, rtt: float) -> None:
        """The minimum is old. If our own queue may stand in the way, drain it first; else believe what was seen."""
        if (self._filled or self._was_filled) and not self._drain_until:
            self._drain_until = now + DRAIN_TIME
        else:
            self._min_rtt, self._drain_until = min(self._recent_rtt, rtt), 0.0
            self._min_rtt_time = now
        self._recent_rtt = rtt

    def _end_round(self) -> None:
        self._round_end = self.delivered
        lost, acked = self._round_lost, self._round_acked
        queued = self._round_rtt > self._min_rtt + max(0.005, self._min_rtt / 4)
        congested = queued and lost > CONGESTED_LOSS * (lost + acked)
        self._gain = CONGESTED_GAIN if congested else min(self._gain + GAIN_STEP, GAIN)
        self._round_acked = self._round_lost = 0
        self._round_rtt = float("inf")
        self._was_filled, self._filled = self._filled, False
        self._rates = [*self._rates[1:], 0.0]

    def _update(self, now: float) -> None:
        if self._min_rtt == float("inf"):
            return
        round_trip = self._min_rtt + AGGREGATION
        product = max(self._rates) * round_trip
        if now < self._drain_until:
            window = max(4.0 * self._mss, product / 2)
        else:
            window = max(self._floor, self._gain * product)
        self.window = int(min(window, self._cap))
        self.pacing_rate = max(window, self._floor) / round_trip
