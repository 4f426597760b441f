"""Our congestion control and pacer in the places where aioquic keeps its own (RFC 9002)."""

from __future__ import annotations

from collections.abc import Iterable

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.packet_builder import QuicSentPacket
from aioquic.quic.recovery import QuicPacketPacer

from mpq_worker.congestion.rate import DeliveryRate, Token

ALGORITHM = "mpq-delivery-rate"
DEFAULT_MAX_WINDOW = 4_194_304


class CongestionControl(QuicCongestionControl):
    """Adapts `DeliveryRate` to aioquic's interface and counts what was sent, acknowledged and lost."""

    def __init__(self, *, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._tokens: dict[int, Token] = {}
        self.limit(max_datagram_size, DEFAULT_MAX_WINDOW)
        self.sent = 0
        self.acked = 0
        self.lost = 0

    def limit(self, max_datagram_size: int, max_window: int) -> None:
        """Start over with another cap on the window, in bytes."""
        self.model = DeliveryRate(mss=max_datagram_size, max_window=max_window)
        self.congestion_window = self.model.window
        self.datagram_size = max_datagram_size

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        assert packet.sent_time is not None
        self._tokens[packet.packet_number] = self.model.on_sent(packet.sent_time, self.bytes_in_flight)
        self.bytes_in_flight += packet.sent_bytes
        self.sent += 1

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        self.bytes_in_flight -= packet.sent_bytes
        self.acked += 1
        self.model.on_acked(now, packet.sent_bytes, self._tokens.pop(packet.packet_number))
        self.congestion_window = self.model.window

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            self._tokens.pop(packet.packet_number)
            self.bytes_in_flight -= packet.sent_bytes

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            self._tokens.pop(packet.packet_number)
            self.bytes_in_flight -= packet.sent_bytes
            self.lost += 1
            self.model.on_lost(packet.sent_bytes)

    def on_persistent_congestion(self) -> None:
        """An outage of the radio, not of the queue: the delivery rate will speak for itself."""

    def on_rtt_measurement(self, *, now: float, rtt: float) -> None:
        self.model.on_rtt(now, rtt)


class Pacer(QuicPacketPacer):
    """A token bucket in bytes, refilled at the model's rate, that wakes up for a millisecond's worth at a time.

    aioquic's own clamps at 1 µs per packet and then spins.
    """

    QUANTUM = 0.001
    DEPTH = 0.004

    def __init__(self, control: CongestionControl, max_datagram_size: int) -> None:
        super().__init__(max_datagram_size=max_datagram_size)
        self._control = control
        self._size = max_datagram_size
        self._tokens = 0.0
        self._time = 0.0

    def next_send_time(self, now: float) -> float | None:  # type: ignore[override]  # it does return None
        """None: send now. Otherwise when to come back."""
        rate = self._control.model.pacing_rate
        if rate is None:
            return None
        depth = max(10.0 * self._size, rate * self.DEPTH)
        if now > self._time:
            self._tokens = min(self._tokens + (now - self._time) * rate, depth)
            self._time = now
        if self._tokens > 0:
            return None
        return now + max(self.QUANTUM, -self._tokens / rate)

    def update_after_send(self, now: float) -> None:
        """A packet was built; it counts as full-sized, as in aioquic."""
        self._tokens -= self._size

    def update_rate(self, congestion_window: int, smoothed_rtt: float) -> None:
        """The rate is the model's, so there is nothing to keep here."""


register_congestion_control(ALGORITHM, CongestionControl)
