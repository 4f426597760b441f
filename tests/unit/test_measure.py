"""Probe RTT and jitter by RFC 3550, loss over intervals."""

from __future__ import annotations

import pytest

from mpq_worker.contract import RTT_BOUNDS
from mpq_worker.measure import MAX_OUTSTANDING, Histogram, PathMeter, ProbeMeter
from mpq_worker.quic.session import Session


class FakeSession(Session):
    """Totals as a test sets them."""

    def __init__(self) -> None:
        self.totals = dict.fromkeys(
            ("window", "in_flight", "sent", "acked", "lost", "received", "expected", "key_updates", "datagram_size"),
            0,
        )
        self.measured: tuple[float, float] | None = None

    def counters(self) -> dict[str, int]:
        return dict(self.totals)

    def rtt(self) -> tuple[float, float] | None:
        return self.measured


def test_rtt_and_jitter() -> None:
    probes = ProbeMeter()
    for number, rtt in enumerate((0.040, 0.056, 0.056, 0.040)):
        seq = probes.send(float(number))
        assert probes.receive(seq, number + rtt)
    jitter = 0.016
    jitter += (0.0 - jitter) / 16
    jitter += (0.016 - jitter) / 16
    assert probes.rtt == pytest.approx(0.040)
    assert probes.jitter == pytest.approx(jitter)


def test_one_reply_is_no_jitter() -> None:
    probes = ProbeMeter()
    assert (probes.rtt, probes.jitter) == (None, None)
    probes.receive(probes.send(1.0), 1.05)
    assert probes.rtt == pytest.approx(0.05)
    assert probes.jitter is None


def test_replies_to_nothing() -> None:
    probes = ProbeMeter()
    assert not probes.receive(0, 1.0)
    seq = probes.send(1.0)
    assert probes.receive(seq, 1.1)
    assert not probes.receive(seq, 1.2)
    assert not probes.receive(2**64 - 1, 1.2)
    assert probes.rtt == pytest.approx(0.1)


def test_unanswered_probes_are_forgotten() -> None:
    probes = ProbeMeter()
    numbers = [probes.send(number / 10) for number in range(MAX_OUTSTANDING + 1)]
    assert not probes.receive(numbers[0], 9.0)
    assert probes.receive(numbers[1], 9.0)
    assert len(probes._sent) == MAX_OUTSTANDING - 1


def test_loss_is_of_the_interval() -> None:
    session, meter, probes = FakeSession(), PathMeter(), ProbeMeter()
    first = meter.stats(session, probes)
    assert (first.loss_tx, first.loss_rx, first.rtt, first.rtt_min) == (None, None, None, None)
    session.totals |= {"sent": 100, "acked": 90, "lost": 10, "received": 50, "expected": 100, "window": 5000}
    session.measured = (0.05, 0.04)
    second = meter.stats(session, probes)
    assert (second.loss_tx, second.loss_rx, second.rtt, second.rtt_min) == (0.1, 0.5, 0.05, 0.04)
    assert (second.packets_sent, second.packets_lost, second.packets_received) == (100, 10, 50)
    session.totals |= {"sent": 200, "acked": 190, "received": 150, "expected": 200}
    third = meter.stats(session, probes)
    assert (third.loss_tx, third.loss_rx) == (0.0, 0.0)
    assert third.congestion_window == 5000


def test_ratios_stay_ratios() -> None:
    """Packets that come late or twice make more received than expected."""
    session, meter = FakeSession(), PathMeter()
    session.totals |= {"received": 120, "expected": 100}
    assert meter.stats(session, ProbeMeter()).loss_rx == 0.0


def test_histogram_counts_each_round_trip_once() -> None:
    """A bound belongs to its bucket, as `le` in Prometheus."""
    histogram = Histogram()
    for rtt in (0.0, RTT_BOUNDS[0], RTT_BOUNDS[0] + 1e-9, RTT_BOUNDS[-1], 99.0):
        histogram.add(rtt)
    assert histogram.counts == [2, 1, *[0] * (len(RTT_BOUNDS) - 3), 1, 1]
    assert histogram.sum == pytest.approx(99 + 2 * RTT_BOUNDS[0] + RTT_BOUNDS[-1])
