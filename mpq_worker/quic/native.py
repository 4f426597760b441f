"""The seam between aioquic's connection and the native packet loop: one packet number counter, one set of keys, one
view of what came and of what is in flight.

The loop takes the 1-RTT packets whose frames are DATAGRAM, ACK, PING or PADDING. aioquic gets every other packet
untouched; before it does, it is told what the loop has seen (`before`), and what it then received or wants
acknowledged goes into the loop's books (`after`). What it sends is entered there as well (`entered`), so that
acknowledgement and loss of all 1-RTT packets are found in one place and told to `Recovery`.
"""

from __future__ import annotations

from aioquic.quic.crypto import derive_key_iv_hp
from aioquic.tls import Epoch

from mpq_worker._datapath import ACKED, PHASE_CHANGED, Datapath, Path
from mpq_worker.contract import QueueLimits
from mpq_worker.mtu import MtuSearch
from mpq_worker.quic.connection import Connection
from mpq_worker.quic.keys import key_of
from mpq_worker.wire import DATAGRAM_OVERHEAD

SUSPICIOUS = 8
"""Large packets in a row that are lost while others arrive: the path may have become smaller (RFC 8899 section 4.3).
With fewer, a link that loses 30 % of all would be suspected many times a second."""
TELL_DELAY = 0.01
"""Seconds that the loop may know of acknowledgements before the model of the path does, while none fills the window;
half a round trip if that is shorter, so that each has its samples."""


class Received:
    """What came, in the place of aioquic's window of 128 packets."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.now = 0.0

    def __contains__(self, number: int) -> bool:
        return self._path.has_received(number)

    def add(self, number: int) -> None:
        self._path.note_received(number, self.now)


class NativeSpace:
    """The 1-RTT packets of `connection`, whose handshake is complete, in the loop; `path` is the loop's end."""

    def __init__(
        self, connection: Connection, datapath: Datapath, queue: QueueLimits, inner_mtu: int, now: float
    ) -> None:
        ring, space = connection.ring, connection._spaces[Epoch.ONE_RTT]
        self._connection, self._space, self._ring = connection, space, ring
        self.path = path = Path(
            datapath,
            inner_mtu=inner_mtu,
            queue_bytes=queue.max_bytes,
            target=queue.target,
            interval=queue.interval,
            next_number=min(space.sent_packets, default=connection._packet_number),
            delivered=connection.control.model.delivered,
            now=now,
        )
        send, receive = ring.send, ring.recv
        assert receive.cipher_suite is not None
        headers = []
        for half in (send, receive):
            assert half.secret is not None
            assert half.version is not None
            keys = derive_key_iv_hp(cipher_suite=receive.cipher_suite, secret=half.secret, version=half.version)
            headers.append(keys[2])
        path.set_header_keys(receive.cipher_suite, *headers)
        path.set_send_key(*key_of(send), bool(send.key_phase))
        path.set_receive_key(*key_of(receive), bool(receive.key_phase), ring.phase_start)
        ring.use_native(path)
        self._received = Received(path)
        for numbers in space.ack_queue:
            for number in numbers:
                path.note_received(number, now)
        space.received_packets = self._received  # type: ignore[assignment]  # it has the two methods that are used
        for number, packet in space.sent_packets.items():
            assert packet.sent_time is not None
            connection.control.disown(packet)
            path.sent_elsewhere(number, packet.sent_bytes if packet.in_flight else 0, packet.sent_time)
        connection.recovery.native = connection.control.native = path
        connection.recovery.mtu = self._mtu = MtuSearch(inner_mtu)
        self.after(now)

    def before(self, now: float) -> None:
        """Call before aioquic opens a packet."""
        largest = self.path.largest_received
        self._received.now = now
        self._space.expected_packet_number = max(self._space.expected_packet_number, largest + 1)
        self._space.largest_received_packet = max(self._space.largest_received_packet, largest)

    def after(self, now: float) -> None:
        """Call after it did: acknowledgements are the loop's business, and what they said counts at once."""
        if self._space.ack_at is not None:
            self._space.ack_at = None
            self.path.acknowledge_soon(now)
        self.configure()

    def next_number(self) -> None:
        """Call before aioquic builds packets, and `entered` after that."""
        self._connection._packet_number = self.path.next_number

    def entered(self, now: float) -> None:
        first = self.path.next_number
        for number in range(first, self._connection._packet_number):
            packet = self._space.sent_packets.get(number)
            self.path.sent_elsewhere(number, packet.sent_bytes if packet and packet.in_flight else 0, now)

    def set_peer(self, remote: bytes) -> None:
        """Where packets go from now on, as the connection says; `remote` is the address, packed for the loop."""
        self.path.set_peer(self._connection._peer_cid.cid, self._connection.peer_token(), remote)

    def handle(self, events: int, now: float) -> None:
        """What the loop has to tell."""
        if events & PHASE_CHANGED:
            self._ring.follow_native()
        if events & ACKED:
            self._connection.recovery.settle(now)
            self.configure()
            self._search_mtu(now)

    def configure(self) -> None:
        """What the loop may send, and how long it may wait."""
        connection = self._connection
        self._connection.adapt_ack_delay()
        recovery, model = connection.recovery, connection.control.model
        self.path.configure(
            window=model.window,
            rate=model.pacing_rate or 0.0,
            elsewhere=connection.control.elsewhere,
            ack_delay=connection._ack_delay,
            tell_delay=min(connection.least_rtt() / 2, TELL_DELAY),
            pto=recovery.get_probe_timeout(),
            loss_delay=recovery.loss_delay(),
        )

    def _search_mtu(self, now: float) -> None:
        """Only where acknowledgements come: a path that says nothing has no size."""
        if self.path.large_lost >= SUSPICIOUS:
            self._mtu.suspect()
        if self.path.inner_mtu != self._mtu.mtu:
            self.path.inner_mtu = self._mtu.mtu
        size = self._mtu.due(now)
        if size is not None:
            number = self.path.probe_mtu(size + DATAGRAM_OVERHEAD, now)
            if number >= 0:
                self._mtu.sent(number)

    def refresh_idle_timer(self) -> None:
        """aioquic's idle timeout counts from what it has seen itself (RFC 9000 section 10.1)."""
        connection = self._connection
        if connection._close_event is None and connection._close_at is not None:
            busy = max(self.path.heard, self.path.asked or 0.0)
            connection._close_at = max(connection._close_at, busy + connection._idle_timeout())
