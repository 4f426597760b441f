"""The delivery-rate model over simulated links: bottleneck, radio loss, little to say, changing RTT."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator

import pytest

from mpq_worker.congestion.rate import DRAIN_TIME, MIN_PACKETS, MIN_RTT_WINDOW, DeliveryRate, Token

MSS = 1431
CAP = 4_194_304
FLOOR = MIN_PACKETS * MSS


class Path:
    """A sender that fills its window at the model's rate (or `offered`, bytes/s), over a link with a queue."""

    def __init__(
        self, rate: float, rtt: float, *, loss: float = 0.0, buffer: float = 1e9, offered: float = 1e12, seed: int = 1
    ) -> None:
        self.model = DeliveryRate(mss=MSS, max_window=CAP)
        self.rate, self.rtt, self.loss, self.buffer, self.offered = rate, rtt, loss, buffer, offered
        self.now = 0.0
        self.delivered = self.dropped = self.sent = self.in_flight = 0
        self.queued: list[float] = []
        self._random = random.Random(seed)
        self._acks: list[tuple[float, int, Token, float, bool]] = []
        self._busy = self._next = 0.0

    def run(self, seconds: float) -> Iterator[None]:
        """Yields after each event."""
        end = self.now + seconds
        while True:
            blocked = self.in_flight + MSS > self.model.window
            when = self._acks[0][0] if self._acks else float("inf")
            if not blocked and self._next <= when:
                self.now = max(self.now, self._next)
                self._send()
            else:
                self._receive()
            if self.now >= end:
                return
            yield

    def _send(self) -> None:
        token = self.model.on_sent(self.now, self.in_flight)
        self.in_flight += MSS
        self.sent += 1
        wait = max(0.0, self._busy - self.now)
        self.queued.append(wait)
        lost = self._random.random() < self.loss or wait * self.rate > self.buffer
        if not lost:
            self._busy = self.now + wait + MSS / self.rate
        # a loss is noticed by the packets that follow it, about one RTT later
        heapq.heappush(self._acks, (self.now + wait + MSS / self.rate + self.rtt, self.sent, token, self.now, lost))
        pace = self.model.pacing_rate or 1e12
        self._next = self.now + MSS / min(pace, self.offered)

    def _receive(self) -> None:
        self.now, _, token, sent_at, lost = heapq.heappop(self._acks)
        self.in_flight -= MSS
        if lost:
            self.dropped += 1
            self.model.on_lost(MSS)
        else:
            self.delivered += MSS
            self.model.on_acked(self.now, MSS, token)
            self.model.on_rtt(self.now, self.now - sent_at)


def drive(path: Path, seconds: float) -> float:
    """Run; assert the bounds of the window at every step; return the goodput in bytes per second."""
    start, before = path.now, path.delivered
    for _ in path.run(seconds):
        assert 4 * MSS <= path.model.window <= CAP
        if path.model.window < FLOOR:
            assert path.now <= path.model._drain_until + 2 * path.rtt + 0.1
    return (path.delivered - before) / (path.now - start)


def test_fills_a_bottleneck_without_flooding_it() -> None:
    path = Path(1_250_000, 0.040)
    drive(path, 2.0)
    path.queued.clear()
    assert drive(path, 3.0) > 0.97 * 1_250_000
    assert max(path.queued) < 0.060  # the gain of two is one RTT of queue


@pytest.mark.parametrize("loss", [0.05, 0.30])
def test_random_loss_is_not_congestion(loss: float) -> None:
    path = Path(1_250_000, 0.040, loss=loss, offered=1_000_000)
    drive(path, 1.0)
    assert drive(path, 3.0) > 0.97 * (1 - loss) * 1_000_000


@pytest.mark.parametrize(("rtt", "buffer"), [(0.040, 30_000), (0.040, 15_000), (0.100, 60_000)])
def test_a_shallow_queue_that_overflows_lowers_the_gain(rtt: float, buffer: float) -> None:
    path = Path(1_250_000, rtt, buffer=buffer)
    drive(path, 3.0)
    sent, dropped = path.sent, path.dropped
    assert drive(path, 4.0) > 0.97 * 1_250_000
    assert (path.dropped - dropped) / (path.sent - sent) < 0.03  # 0.2 if the gain stayed at two


def test_more_capacity_after_congestion_is_found() -> None:
    """Starlink steps up by as much as it had; the gain is down at that time."""
    path = Path(1_250_000, 0.040, buffer=15_000)
    drive(path, 3.0)
    path.rate *= 4
    drive(path, 1.0)
    assert drive(path, 1.0) > 0.9 * 5_000_000


def test_little_to_say_keeps_a_small_window() -> None:
    """Application-limited: 200 kB/s on a link of 100 MB/s."""
    path = Path(100_000_000, 0.050, offered=200_000)
    drive(path, 5.0)
    assert path.model.window == FLOOR
    path.offered = 5_000_000
    drive(path, 1.0)
    assert path.model.window < 3 * 5_000_000 * 0.050


def test_a_flow_may_double_every_round_trip() -> None:
    path = Path(100_000_000, 0.050)
    drive(path, 1.0)
    assert path.model.window == CAP


def test_cap() -> None:
    path = Path(1e9, 0.2)
    drive(path, 4.0)
    assert path.model.window == CAP
    assert DeliveryRate(mss=MSS, max_window=1000).window == FLOOR


def test_a_longer_path_is_believed_within_two_windows() -> None:
    """The route changed from 40 to 80 ms while we fill it: the minimum follows, after a drain."""
    path = Path(1_250_000, 0.040)
    drive(path, 2.0)
    path.rtt = 0.080
    drive(path, 2 * MIN_RTT_WINDOW + 2)
    assert path.model._min_rtt == pytest.approx(0.081, abs=0.005)
    assert drive(path, 2.0) > 0.95 * 1_250_000


def test_each_renewal_drains_the_queue_first() -> None:
    """Also the one after a drain that met the old minimum again."""
    model = DeliveryRate(mss=MSS, max_window=CAP)
    model.on_rtt(0.0, 0.040)
    now = 0.0
    for _ in range(3):
        now += MIN_RTT_WINDOW + 0.1
        model.on_sent(now, model.window)  # the window is full
        model.on_rtt(now, 0.070)
        assert model._drain_until == pytest.approx(now + DRAIN_TIME)
        now += 0.1
        model.on_rtt(now, 0.040)
    assert model._min_rtt == 0.040


def test_without_a_full_window_no_drain_is_needed() -> None:
    model = DeliveryRate(mss=MSS, max_window=CAP)
    model.on_rtt(0.0, 0.040)
    for step in range(1, 102):
        model.on_rtt(step / 10, 0.060)
    assert model._drain_until == 0.0
    assert model._min_rtt == 0.060


def test_no_rate_before_the_first_sample() -> None:
    model = DeliveryRate(mss=MSS, max_window=CAP)
    token = model.on_sent(1.0, 0)
    model.on_acked(1.05, MSS, token)
    assert model.pacing_rate is None
    assert model.window == FLOOR


@pytest.mark.parametrize("delay", [0.0005, 0.001, 0.002])
def test_acknowledgements_that_wait_do_not_shrink_the_window_of_a_short_path(delay: float) -> None:
    """A path of 0.1 ms; but for a few, acknowledgements come `delay` late, for all that was sent till then."""
    model = DeliveryRate(mss=MSS, max_window=CAP)
    now = 0.0
    for round_number in range(400):
        burst = model.window // MSS
        tokens = [model.on_sent(now, i * MSS) for i in range(burst)]
        waited = 0.0001 if round_number % 50 == 0 else delay
        now += waited
        model.on_rtt(now, waited)
        model.on_acked(now, burst * MSS, tokens[-1])
    assert model.window > 10 * FLOOR
