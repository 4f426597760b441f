"""Our congestion control and pacer where aioquic keeps its own."""

from __future__ import annotations

import random

import pytest
from aioquic.quic.packet import QuicPacketType
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.tls import Epoch

from mpq_worker.quic.recovery import CongestionControl, Pacer

MSS = 1431


def sent(number: int, now: float, size: int = MSS) -> QuicSentPacket:
    return QuicSentPacket(
        epoch=Epoch.ONE_RTT,
        in_flight=True,
        is_ack_eliciting=True,
        is_crypto_packet=False,
        packet_number=number,
        packet_type=QuicPacketType.ONE_RTT,
        sent_time=now,
        sent_bytes=size,
    )


def pacer(rate: float | None) -> Pacer:
    control = CongestionControl(max_datagram_size=MSS)
    control.model.pacing_rate = rate
    return Pacer(control, MSS)


def send_for(pacer: Pacer, start: float, seconds: float) -> tuple[int, list[float]]:
    """A sender with always something to send: bytes that left, and the times it slept."""
    now, total, sleeps = start, 0, []
    while now < start + seconds:
        wake = pacer.next_send_time(now)
        if wake is None:
            pacer.update_after_send(now)
            total += MSS
        else:
            sleeps.append(wake - now)
            now = wake
    return total, sleeps


@pytest.mark.parametrize("rate", [20_000.0, 1_000_000.0, 12_500_000.0, 500_000_000.0])
def test_bytes_per_interval(rate: float) -> None:
    seconds = 50 * MSS / rate if rate < 100_000 else 0.5
    burst = max(10 * MSS, rate * Pacer.DEPTH)
    total, sleeps = send_for(pacer(rate), 100.0, seconds)
    assert rate * seconds - 2 * MSS < total <= rate * (seconds + 0.002) + burst + MSS
    assert min(sleeps) >= Pacer.QUANTUM - 1e-9


def test_a_pause_saves_no_more_than_a_burst() -> None:
    paced = pacer(1_000_000.0)
    send_for(paced, 100.0, 0.1)
    total, _ = send_for(paced, 200.0, 1e-6)
    assert total <= max(10 * MSS, 4000) + MSS


def test_never_a_wake_up_closer_than_a_millisecond() -> None:
    noise = random.Random(5)
    for rate in (1e4, 1e6, 1e8, 1e10):
        paced, now = pacer(rate), 10.0
        for _ in range(2000):
            wake = paced.next_send_time(now)
            if wake is None:
                paced.update_after_send(now)
            else:
                assert wake - now >= 0.001 - 1e-9
                now += noise.choice((1e-6, 1e-4, wake - now))


def test_unpaced_until_the_rate_is_known() -> None:
    paced = pacer(None)
    for _ in range(100):
        assert paced.next_send_time(5.0) is None
        paced.update_after_send(5.0)


def test_a_clock_that_stands_still() -> None:
    paced = pacer(1_000_000.0)
    allowed = 0
    while paced.next_send_time(7.0) is None:
        paced.update_after_send(7.0)
        allowed += 1
    assert allowed == 10
    assert paced.next_send_time(6.0) is not None


def test_every_packet_is_accounted_for_once() -> None:
    control = CongestionControl(max_datagram_size=MSS)
    packets = [sent(number, 1.0 + number / 1000) for number in range(40)]
    for packet in packets:
        control.on_packet_sent(packet=packet)
    assert control.bytes_in_flight == 40 * MSS
    control.on_packet_acked(now=1.1, packet=packets[0])
    control.on_packets_lost(now=1.1, packets=packets[1:5])
    control.on_packets_expired(packets=iter(packets[5:7]))
    assert (control.acked, control.lost) == (1, 4)
    assert control.bytes_in_flight == 33 * MSS
    for packet in packets[7:]:
        control.on_packet_acked(now=1.2, packet=packet)
    assert control.bytes_in_flight == 0
    assert not control._tokens


def test_limit_caps_the_window() -> None:
    control = CongestionControl(max_datagram_size=MSS)
    control.limit(MSS, 100_000)
    packets = [sent(number, number / 10_000) for number in range(2000)]
    for packet in packets:
        control.on_packet_sent(packet=packet)
        if packet.packet_number >= 1000:
            arrived = packets[packet.packet_number - 1000]
            control.on_rtt_measurement(now=packet.sent_time or 0.0, rtt=0.1)
            control.on_packet_acked(now=packet.sent_time or 0.0, packet=arrived)
            assert control.congestion_window <= 100_000
    assert control.congestion_window == 100_000


def test_persistent_congestion_is_an_outage() -> None:
    control = CongestionControl(max_datagram_size=MSS)
    before = control.congestion_window
    control.on_persistent_congestion()
    assert control.congestion_window == before
