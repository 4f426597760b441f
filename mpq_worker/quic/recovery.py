"""Our congestion control and pacer in the places where aioquic keeps its own (RFC 9002)."""

from __future__ import annotations

from collections.abc import Iterable

from aioquic.quic.congestion.base import QuicCongestionControl, register_congestion_control
from aioquic.quic.connection import QuicConnectionError
from aioquic.quic.packet import QuicErrorCode, QuicFrameType
from aioquic.quic.packet_builder import QuicDeliveryState, QuicSentPacket
from aioquic.quic.rangeset import RangeSet
from aioquic.quic.recovery import K_TIME_THRESHOLD, QuicPacketPacer, QuicPacketRecovery, QuicPacketSpace
from aioquic.tls import Epoch

from mpq_worker._datapath import Path
from mpq_worker.congestion.rate import DeliveryRate, Token
from mpq_worker.mtu import MtuSearch

ALGORITHM = "mpq-delivery-rate"
DEFAULT_MAX_WINDOW = 4_194_304
LEAST_DELAY = 0.001
"""Seconds below which lateness means nothing: the granularity of timers (RFC 9002 section 6.1.2)."""
RESERVED = 4
"""Packets of aioquic that find room beside a window filled by the native loop."""


class CongestionControl(QuicCongestionControl):
    """Adapts `DeliveryRate` to aioquic's interface and counts what was sent, acknowledged and lost.

    `native` is the loop that has the 1-RTT packets, of aioquic too, in its books; what is left here is `elsewhere`.
    """

    def __init__(self, *, max_datagram_size: int) -> None:
        self.native: Path | None = None
        self.elsewhere = 0
        self._tokens: dict[int, Token] = {}
        self.limit(max_datagram_size, DEFAULT_MAX_WINDOW)
        super().__init__(max_datagram_size=max_datagram_size)
        self.acked = 0
        self.lost = 0

    def limit(self, max_datagram_size: int, max_window: int) -> None:
        """Start over with another cap on the window, in bytes."""
        self.model = DeliveryRate(mss=max_datagram_size, max_window=max_window)
        self.datagram_size = max_datagram_size

    @property
    def bytes_in_flight(self) -> int:
        return self.elsewhere + (self.native.bytes_in_flight if self.native is not None else 0)

    @bytes_in_flight.setter
    def bytes_in_flight(self, value: int) -> None:
        self.elsewhere = value

    @property
    def congestion_window(self) -> int:
        """What aioquic goes by: beside the native loop's packets there is always room for its few."""
        if self.native is None:
            return self.model.window
        return max(self.model.window, self.bytes_in_flight + RESERVED * self.datagram_size)

    @congestion_window.setter
    def congestion_window(self, value: int) -> None:
        """The base class begins with a number; ours is the model's."""

    def on_packet_sent(self, *, packet: QuicSentPacket) -> None:
        if self.native is not None and packet.epoch is Epoch.ONE_RTT:
            return
        assert packet.sent_time is not None
        self._tokens[packet.packet_number] = self.model.on_sent(packet.sent_time, self.elsewhere)
        self.elsewhere += packet.sent_bytes

    def on_packet_acked(self, *, now: float, packet: QuicSentPacket) -> None:
        token = self.disown(packet)
        if token is None:
            return
        self.acked += 1
        if self.native is None:  # else the model follows the native loop's books
            self.model.on_acked(now, packet.sent_bytes, token)

    def on_packets_expired(self, *, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            self.disown(packet)

    def on_packets_lost(self, *, now: float, packets: Iterable[QuicSentPacket]) -> None:
        for packet in packets:
            if self.disown(packet) is not None:
                self.lost += 1
                self.model.on_lost(packet.sent_bytes)

    def disown(self, packet: QuicSentPacket) -> Token | None:
        """The packet is in flight here no more; None if it never was."""
        token = self._tokens.pop(packet.packet_number, None)
        if token is not None:
            self.elsewhere -= packet.sent_bytes
        return token

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
        if rate is None or self._control.native is not None:  # the native loop has a pacer of its own
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


class Recovery(QuicPacketRecovery):
    """aioquic's, until `native` has the books of the 1-RTT space; then it learns from them (`settle`)."""

    native: Path | None = None
    mtu: MtuSearch | None = None  # beside `native`
    control: CongestionControl

    def on_ack_received(
        self, *, ack_rangeset: RangeSet, ack_delay: float, now: float, space: QuicPacketSpace
    ) -> None:
        path = self.native
        if path is None or not space.is_application_data:
            super().on_ack_received(ack_rangeset=ack_rangeset, ack_delay=ack_delay, now=now, space=space)
            return
        if ack_rangeset.bounds().stop > path.next_number:
            raise QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, QuicFrameType.ACK, "acknowledges too much")
        path.acknowledge([(r.start, r.stop - 1) for r in reversed(list(ack_rangeset))], ack_delay, now)
        self.settle(now)

    def settle(self, now: float) -> None:
        """Take what acknowledgements have told the native loop."""
        path = self.native
        assert path is not None
        ack = path.take_ack()
        acked, size, lost, lost_size, spurious, newest, delivered, delivered_time, first_sent_time, sent_time = ack[
            :10
        ]
        _app_limited, rtt, delay, loss_time, filled = ack[10:]
        control, space = self.control, self.spaces[-1]
        control.acked += acked
        control.lost += lost - spurious
        space.largest_acked_packet = max(space.largest_acked_packet, path.largest_acked)
        space.loss_time = loss_time or None
        if filled:
            control.model.note_filled()
        if lost:
            control.model.on_lost(lost_size)
        if rtt:
            self._sample_rtt(rtt, min(delay, self.max_ack_delay), now)
            control.on_rtt_measurement(now=now, rtt=rtt)
        if newest >= 0:
            control.model.on_acked(now, size, Token(delivered, delivered_time, first_sent_time, sent_time))
            self._pto_count = 0
        for number, good in path.take_fates():
            packet = space.sent_packets.pop(number, None)
            if packet is None and self.mtu is not None:
                self.mtu.on_fate(number, good, now)
            if packet is not None:
                _deliver(packet, QuicDeliveryState.ACKED if good else QuicDeliveryState.LOST)
        while space.sent_packets and (number := next(iter(space.sent_packets))) < path.oldest_sent:
            _deliver(space.sent_packets.pop(number), QuicDeliveryState.LOST)  # one of more than the loop can tell of

    def get_loss_detection_time(self, *, amplification_limited: bool) -> float | None:
        if self.native is not None:
            self.spaces[-1].ack_eliciting_in_flight = self.native.packets_in_flight
            self._time_of_last_sent_ack_eliciting_packet = max(
                self._time_of_last_sent_ack_eliciting_packet, self.native.last_sent
            )
        return super().get_loss_detection_time(amplification_limited=amplification_limited)

    def loss_delay(self) -> float:
        """How long a packet may be late (RFC 9002 section 6.1.2)."""
        if not self._rtt_initialized:
            return self._rtt_initial * K_TIME_THRESHOLD
        return K_TIME_THRESHOLD * max(self._rtt_latest, self._rtt_smoothed, LEAST_DELAY)

    def _detect_loss(self, *, now: float, space: QuicPacketSpace) -> None:
        if self.native is None or not space.is_application_data:
            super()._detect_loss(now=now, space=space)
        else:
            self.native.detect_loss(now)
            self.settle(now)

    def _sample_rtt(self, latest: float, delay: float, now: float) -> None:
        """RFC 9002 section 5.3; unlike aioquic's it knows paths below a millisecond."""
        self._rtt_min = min(self._rtt_min, latest)
        if not self._rtt_initialized:
            self._rtt_first_sample_time, self._rtt_initialized = now, True
            self._rtt_latest = self._rtt_smoothed = latest
            self._rtt_variance = latest / 2
            return
        self._rtt_latest = latest - delay if latest >= self._rtt_min + delay else latest
        self._rtt_variance += (abs(self._rtt_smoothed - self._rtt_latest) - self._rtt_variance) / 4
        self._rtt_smoothed += (self._rtt_latest - self._rtt_smoothed) / 8


def _deliver(packet: QuicSentPacket, state: QuicDeliveryState) -> None:
    for handler, args in packet.delivery_handlers:
        handler(state, *args)


register_congestion_control(ALGORITHM, CongestionControl)
