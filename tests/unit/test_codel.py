"""CoDel against a transcription of RFC 8289 section 5, and its bounds."""

from __future__ import annotations

import itertools
import random
from collections import deque
from math import sqrt

import pytest

from mpq_worker.codel import CodelQueue
from mpq_worker.contract import QueueLimits

TARGET, INTERVAL, MTU = 0.005, 0.100, 1400


class Reference:
    """The pseudocode of RFC 8289 sections 5.3 to 5.6, with its names."""

    def __init__(self) -> None:
        self.queue: deque[tuple[float, bytes]] = deque()
        self.bytes_ = 0
        self.first_above_time_ = self.drop_next_ = 0.0
        self.count_ = self.lastcount_ = 0
        self.dropping_ = False
        self.drops = 0

    def enqueue(self, packet: bytes, now: float) -> None:
        self.queue.append((now, packet))
        self.bytes_ += len(packet)

    def dodequeue(self, now: float) -> tuple[bytes | None, bool]:
        if not self.queue:
            self.first_above_time_ = 0.0
            return None, False
        tstamp, packet = self.queue.popleft()
        self.bytes_ -= len(packet)
        ok_to_drop = False
        if now - tstamp < TARGET or self.bytes_ <= MTU:
            self.first_above_time_ = 0.0
        elif self.first_above_time_ == 0:
            self.first_above_time_ = now + INTERVAL
        elif now >= self.first_above_time_:
            ok_to_drop = True
        return packet, ok_to_drop

    def dequeue(self, now: float) -> bytes | None:
        packet, ok_to_drop = self.dodequeue(now)
        if self.dropping_:
            if not ok_to_drop:
                self.dropping_ = False
            while now >= self.drop_next_ and self.dropping_:
                self.drops += 1
                self.count_ += 1
                packet, ok_to_drop = self.dodequeue(now)
                if not ok_to_drop:
                    self.dropping_ = False
                else:
                    self.drop_next_ += INTERVAL / sqrt(self.count_)
        elif ok_to_drop:
            self.drops += 1
            packet, ok_to_drop = self.dodequeue(now)
            self.dropping_ = True
            delta = self.count_ - self.lastcount_
            self.count_ = 1
            if delta > 1 and now - self.drop_next_ < 16 * INTERVAL:
                self.count_ = delta
            self.drop_next_ = now + INTERVAL / sqrt(self.count_)
            self.lastcount_ = self.count_
        return packet


def queue(max_bytes: int = 10_000_000) -> CodelQueue:
    return CodelQueue(QueueLimits(max_bytes, TARGET, INTERVAL), MTU)


@pytest.mark.parametrize("seed", range(4))
def test_every_decision_is_the_rfcs(seed: int) -> None:
    noise = random.Random(seed)
    ours, reference = queue(), Reference()
    now, number, reentered = 50.0, 0, 0
    for step in range(6000):
        now += noise.expovariate(1000)
        overload = step % 900 < 600  # long enough to drop several; then a pause, so that dropping stops and resumes
        burst = noise.choice((0, 1, 1, 1, 2, 2)) if overload else noise.random() < 0.1
        for _ in range(burst):
            packet = number.to_bytes(4, "big") + bytes(noise.randrange(40, 1400))
            number += 1
            ours.push(packet, now)
            reference.enqueue(packet, now)
        if noise.random() < 0.9 or not overload:
            reentered += not reference.dropping_ and reference.count_ > reference.lastcount_ + 1
            assert ours.pop(now) == reference.dequeue(now)
        assert ours.bytes == reference.bytes_
        assert len(ours) == len(reference.queue)
    assert ours.codel_drops == reference.drops > 20
    assert reentered


def test_a_standing_queue_is_dropped_ever_faster() -> None:
    """100 packets wait 50 ms each: the first drop after one interval, then by the square root law."""
    q = queue()
    start, drops = 10.0, []
    for step in range(100, 2000):
        now = start + step / 1000
        q.push(bytes(1000), now - 0.050)
        q.push(bytes(1000), now - 0.050)
        before = q.codel_drops
        q.pop(now)
        drops += [now - start] * (q.codel_drops - before)
    assert drops[0] == pytest.approx(0.2, abs=0.0015)
    gaps = [later - earlier for earlier, later in itertools.pairwise(drops)]
    assert gaps[:6] == pytest.approx([INTERVAL / sqrt(n) for n in range(1, 7)], abs=0.0015)


def test_a_burst_shorter_than_an_interval_is_let_through() -> None:
    q = queue()
    for _ in range(99):
        q.push(bytes(1000), 10.0)
    assert all(q.pop(10.0 + n / 1000) for n in range(99))
    assert q.codel_drops == 0


def test_as_much_as_one_packet_may_stay_in_the_queue() -> None:
    """However long it waits there: to drop it would leave the link idle."""
    q = queue()
    q.push(bytes(700), 0.0)
    q.push(bytes(700), 0.0)
    for step in range(200):
        q.push(bytes(700), step / 10 - 5.0)
        assert q.pop(step / 10) is not None
    assert (q.bytes, q.codel_drops) == (1400, 0)


def test_the_last_packet_is_never_dropped() -> None:
    q = queue()
    for step in range(2000):
        q.push(bytes(1400), step / 10 - 5.0)
        assert q.pop(step / 10) is not None
    assert q.codel_drops == 0


def test_bound_is_in_bytes() -> None:
    q = queue(max_bytes=3000)
    for size in (1400, 1400, 201, 200, 1):
        q.push(bytes(size), 0.0)
    assert (q.bytes, len(q), q.full_drops) == (3000, 3, 2)
    assert q.pop(0.0) == bytes(1400)
    q.push(bytes(1401), 0.0)
    assert (q.bytes, q.full_drops) == (1600, 3)


def test_empty() -> None:
    q = queue()
    assert q.pop(1.0) is None
    assert not q
    assert q.bytes == 0
