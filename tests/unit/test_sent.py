"""What is in flight on a native path: acknowledgement, loss, the window and the pacer."""

from __future__ import annotations

import random

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import pull_ack_frame
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq_worker._datapath import ACKED, IN_FLIGHT
from tests.sim.packets import packet
from tests.unit.quic_packets import INNER, forge, frames_of
from tools.paths import End, ends


def acknowledged(end: End, data: bytes, seed: int) -> list[tuple[int, int]]:
    buffer = Buffer(data=frames_of(end, data, seed))
    assert buffer.pull_uint_var() == 2
    ranges, _ = pull_ack_frame(buffer)
    assert buffer.eof()
    return [(r.start, r.stop) for r in ranges]


@settings(max_examples=100)
@given(st.sets(st.integers(0, 300), min_size=1))
def test_an_acknowledgement_says_what_came(numbers: set[int]) -> None:
    _, hub = ends()
    hub.receive(*[forge(hub, b"\x01\x00\x00\x00", number, seed=1) for number in sorted(numbers)])
    hub.datapath.take_datagrams()
    hub.path.note_received(301, 0.0)
    hub.path.acknowledge_soon(0.0)
    (data,) = hub.flush(1.0)
    told = {number for low, high in acknowledged(hub, data, 2) for number in range(low, high)}
    assert told == numbers | {301}


def test_one_packet_is_acknowledged_when_it_is_time_and_two_at_once() -> None:
    site, hub = ends()
    hub.configure(ack_delay=0.004)
    hub.receive(*site.send(packet(*INNER), now=1.0), now=1.0)
    assert hub.datapath.take_datagrams() == []
    assert hub.datapath.deadline() == pytest.approx(1.004)
    assert len(hub.flush(1.005)) == 1
    assert hub.datapath.deadline() is None
    hub.receive(*site.send(packet(*INNER), now=2.0), *site.send(packet(*INNER), now=2.0), now=2.0)
    assert len(hub.datapath.take_datagrams()) == 1


def test_a_gap_is_told_at_once() -> None:
    site, hub = ends()
    first, second = site.send(packet(*INNER)), site.send(packet(*INNER))
    hub.receive(*second)
    assert len(hub.datapath.take_datagrams()) == 1
    hub.receive(*first)
    assert len(hub.datapath.take_datagrams()) == 1


def test_an_acknowledgement_travels_with_a_small_packet() -> None:
    site, hub = ends()
    hub.receive(*site.send(packet(*INNER), now=1.0), now=1.0)
    datagrams = hub.send(packet(*INNER), now=1.0)
    assert len(datagrams) == 1
    hub.datapath.take_events()
    assert hub.datapath.deadline() is None
    site.receive(*datagrams, now=1.01)
    assert site.path.take_ack()[:2] == (1, 133)


def test_python_is_told_of_acknowledgements_in_its_time() -> None:
    site, hub = ends()
    datagrams = site.send(packet(*INNER), now=1.0)
    assert site.datapath.deadline() == pytest.approx(1.002)
    hub.receive(*datagrams, now=1.0)
    site.receive(*hub.flush(1.001), now=1.0015)
    assert site.datapath.deadline() == pytest.approx(1.002)  # not a moment later because there is more to tell
    assert site.datapath.take_events() == [(site.path, IN_FLIGHT | ACKED)]
    assert site.datapath.deadline() is None


def test_python_is_told_later_while_nothing_waits_for_it() -> None:
    site, hub = ends()
    site.configure(tell_delay=0.01)
    hub.receive(*site.send(packet(*INNER), now=1.0), now=1.0)
    site.receive(*hub.flush(1.001), now=1.001)
    assert site.flush(1.009) == []
    assert site.datapath.deadline() == pytest.approx(1.01)
    site.configure(tell_delay=0.01, window=0)
    assert site.send(packet(*INNER), now=1.009) == []  # what is told may widen the window
    assert site.datapath.deadline() == pytest.approx(1.002)


def test_a_filled_window_is_told_soon() -> None:
    site, _ = ends()
    site.configure(tell_delay=0.01, window=4000)
    site.send(packet(*INNER, size=1200), now=1.0)
    assert site.datapath.deadline() == pytest.approx(1.01)
    site.send(packet(*INNER, size=1200), now=1.0)
    assert site.datapath.deadline() == pytest.approx(1.002)


def test_an_acknowledgement_of_what_was_late_gives_no_round_trip() -> None:
    site, _ = ends()
    for _ in range(4):
        site.send(packet(*INNER), now=1.0)
    site.path.acknowledge([(3, 3), (1, 1)], 0.0, 1.020)
    site.path.acknowledge([(0, 3)], 0.008, 1.028)
    acked, *_ = summary = site.path.take_ack()
    assert acked == 4
    assert summary[11:13] == pytest.approx((0.020, 0.0))


def test_a_packet_that_has_to_leave_early_has_the_time_of_its_making() -> None:
    site, hub = ends()
    site.datapath.frame(packet(*INNER), 1.0)
    site.path.inner_mtu = 1300  # as a new key or address of the peer: what is being built is closed first
    hub.receive(*site.flush(1.0), now=1.01)
    site.receive(*hub.flush(1.011), now=1.02)
    assert site.path.take_ack()[11] == pytest.approx(0.02)


def test_acknowledgements_are_summed_up() -> None:
    site, hub = ends()
    datagrams = [data for i in range(10) for data in site.send(packet(*INNER, size=1400), now=1.0 + i / 100)]
    assert [event for _, event in site.datapath.take_events()] == [IN_FLIGHT]
    assert site.path.bytes_in_flight == 10 * 1431
    hub.receive(*datagrams, now=1.1)
    site.receive(*[data for _, data in hub.datapath.take_datagrams()], now=1.2)
    assert [event for _, event in site.datapath.take_events()] == [ACKED]
    acked, size, lost, _, _, newest, delivered, _, first_sent, sent, _, rtt, _, loss_time, _ = site.path.take_ack()
    assert (acked, size, lost, newest) == (10, 14310, 0, 9)
    assert (delivered, first_sent, sent) == (0, 1.0, 1.09)
    assert rtt == pytest.approx(0.11)
    assert loss_time == 0
    assert site.path.bytes_in_flight == 0


def test_loss_by_number_by_time_and_its_retraction() -> None:
    site, _ = ends()
    site.send(*[packet(*INNER, size=1400)] * 10, now=1.0)
    site.path.acknowledge([(9, 9), (3, 3)], 0.0, 1.01)
    acked, _, lost, lost_bytes, spurious, *_, loss_time, _ = site.path.take_ack()
    assert (acked, lost, lost_bytes, spurious) == (2, 6, 6 * 1431, 0)  # 0-2, 4-6; 7 and 8 may be late
    assert loss_time == pytest.approx(1.05)
    site.path.detect_loss(1.06)
    assert site.path.take_ack()[2] == 2
    assert site.path.packets_in_flight == 0
    site.path.acknowledge([(4, 9)], 0.0, 1.07)
    acked, _, lost, _, spurious, *_ = site.path.take_ack()
    assert (acked, lost, spurious) == (5, 0, 5)
    site.send(*[packet(*INNER, size=1400)] * 6, now=2.0)
    site.path.acknowledge([(15, 15)], 0.0, 2.01)
    assert site.path.take_ack()[2] == 0  # it has learnt that five may overtake


@settings(max_examples=60)
@given(st.integers(0, 2**32), st.floats(0, 0.4), st.integers(1, 12))
def test_the_books_balance(seed: int, loss: float, rounds: int) -> None:
    chance = random.Random(seed)
    site, hub = ends()
    sent, acked, lost, spurious, now = 0, 0, 0, 0, 1.0
    for _ in range(rounds):
        flight = [data for _ in range(chance.randrange(60)) for data in site.send(packet(*INNER, size=1000), now=now)]
        sent += len(flight)
        chance.shuffle(flight)
        hub.receive(*[data for data in flight if chance.random() >= loss], now=now + 0.01)
        hub.datapath.flush(now + 0.02)
        acks = [data for _, data in hub.datapath.take_datagrams()]
        site.receive(*[data for data in acks if chance.random() >= loss], now=now + 0.03)
        summary = site.path.take_ack()
        acked, lost, spurious = acked + summary[0], lost + summary[2], spurious + summary[4]
        assert site.path.bytes_in_flight == site.path.packets_in_flight * 1033
        assert sent == acked + lost - spurious + site.path.packets_in_flight
        now += 0.1


# ------------------------------------------------------------------ window, pacer, queue


def test_the_window_holds_back_and_lets_go() -> None:
    site, _ = ends()
    site.configure(window=5 * 1431)
    assert len(site.send(*[packet(*INNER, size=1400)] * 9)) == 5
    assert site.path.waits
    assert site.path.queued == 4 * 1400
    assert site.datapath.take_events() == [(site.path, IN_FLIGHT)]
    assert site.datapath.deadline() is None
    site.path.acknowledge([(0, 2)], 0.0, 0.01)
    assert len(site.flush(0.01)) == 3
    site.path.acknowledge([(0, 4)], 0.0, 0.02)
    assert len(site.flush(0.02)) == 1
    assert not site.path.waits


def test_what_python_has_in_flight_counts() -> None:
    site, _ = ends()
    site.configure(window=5 * 1431, elsewhere=2 * 1431)
    assert len(site.send(*[packet(*INNER, size=1400)] * 9)) == 3


def test_the_pacer_spreads_what_the_window_allows() -> None:
    site, _ = ends()
    rate = 1_431_000.0  # a packet per millisecond
    site.configure(rate=rate)
    now, times = 10.0, []
    for _ in range(80):
        site.datapath.frame(packet(*INNER, size=1400), now)
    for _ in range(1000):
        times += [now] * len(site.flush(now))
        site.datapath.take_events()
        deadline = site.datapath.deadline()
        if deadline is None:
            break
        assert deadline > now
        now = deadline
    assert len(times) == 80
    burst = 10  # packets that were saved up
    assert times[-1] - times[0] == pytest.approx((80 - burst) / 1000, rel=0.1)


def test_acknowledgements_are_not_paced_and_nothing_waits_for_them() -> None:
    """Five seconds of 4,000 packets/s with gaps, at a low rate of our own (RFC 9002 section 7.7)."""
    site, hub = ends()
    hub.configure(rate=76_000.0)
    for number in range(20_000):
        data = site.send(packet(*INNER, number=number), now=1.0 + number / 4000)
        if number % 50:
            hub.receive(*data, now=1.0 + number / 4000)
    assert sum(len(data) for _, data in hub.datapath.take_datagrams()) > 5 * 76_000
    assert len(hub.send(packet(*INNER), now=6.0)) == 1


def test_messages_do_not_wait_for_the_pacer() -> None:
    site, _ = ends()
    site.configure(rate=10_000.0)
    site.send(*[packet(*INNER, number=i, size=1400) for i in range(30)], now=1.0)
    assert site.path.waits
    site.path.send_message(b"\x01probe")
    assert len(site.flush(1.001)) == 1
