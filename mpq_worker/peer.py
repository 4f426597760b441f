"""One connection with what belongs to it: its send queue, its meters, its liveness. Pure."""

from __future__ import annotations

from mpq_worker._datapath import Path
from mpq_worker.budget import Budget
from mpq_worker.codel import CodelQueue
from mpq_worker.contract import PathStats, QueueLimits, Transport
from mpq_worker.measure import PathMeter, ProbeMeter
from mpq_worker.quic.session import Session
from mpq_worker.wire import CONTEXT_IP, CONTEXT_PROBE, encode_probe

MAX_BACKLOG = 64
"""Datagrams handed to QUIC ahead of the pacer; what waits beyond that waits in the queue, under CoDel."""
PROBE_ROOM = 64
SLOW = (500, 2000)
"""Packets a second, and at once, that the native loop leaves to Python: each takes 50 µs and more, and their sender
chooses how many. A connection needs some tens, and in the round trip in which its address changes all that come."""
SLOW_OF_STRANGERS = (20, 128)
"""Before a Hello, which may be lost with data behind it."""
SLOW_IN_HANDSHAKE = (2, 32)
"""With a long header, of which a handshake has three, and some more where packets are lost."""
_IP = bytes((CONTEXT_IP,))


class Peer:
    """`heard` is when a packet last opened, `asked` when we first sent after that (None: nothing to answer).

    `standby`: it carries nothing until it is told to. `leaving`: another one carries on, and the other end is to be
    told when the last packet has left. `held`: what comes in is kept back, see `handover`. `path` is its part of the
    native loop, once it has one; queue and liveness are there then.
    """

    def __init__(self, session: Session, queue: QueueLimits, transport: Transport, now: float) -> None:
        self.session = session
        self.queue = CodelQueue(queue, transport.inner_mtu)
        self.probes = ProbeMeter()
        self.since = now
        self.path: Path | None = None
        self._heard = now
        self._asked: float | None = None
        self._bytes_in = 0
        self._bytes_out = 0
        self.cids: list[bytes] = []
        self.deadline: float | None = None
        self.standby = False
        self.leaving = False
        self._held = False
        self._path = PathMeter()
        self._mtu = transport.inner_mtu
        self._opened = session.opened
        self._slow = Budget(*SLOW)
        self._slow_of_stranger = Budget(*SLOW_OF_STRANGERS)
        self._slow_in_handshake = Budget(*SLOW_IN_HANDSHAKE)

    def take_share(self, now: float, *, is_long: bool, is_trusted: bool) -> bool:
        """Whether Python may look at one more packet, which then counts: always where the native loop has no part, or
        is kept out."""
        if is_long:
            return self._slow_in_handshake.take(now)
        if self.path is None or self._held:
            return True
        return (self._slow if is_trusted else self._slow_of_stranger).take(now)

    def note_inbound(self, now: float) -> None:
        """Call after a datagram was handled: only a packet that opens, and is no replay, is a sign of life."""
        if self.session.opened != self._opened:
            self._opened = self.session.opened
            self._heard, self._asked = now, None

    def note_outbound(self, now: float) -> None:
        """Something that wants an answer leaves now."""
        if self.asked is not None:
            return
        if self.path is None:
            self._asked = now
        else:
            self.path.asked = now

    @property
    def heard(self) -> float:
        return self._heard if self.path is None else self.path.heard

    @property
    def asked(self) -> float | None:
        return self._asked if self.path is None else self.path.asked

    @property
    def held(self) -> bool:
        return self._held

    @held.setter
    def held(self, held: bool) -> None:
        if held is not self._held:
            self._held = held
            self.session.cids_changed = True  # who takes its packets changes

    def note_delivered(self, size: int) -> None:
        """An IP packet came that the native loop did not see."""
        self._bytes_in += size

    @property
    def bytes_in(self) -> int:
        return self._bytes_in + (0 if self.path is None else self.path.totals[1])

    @property
    def bytes_out(self) -> int:
        return self._bytes_out + (0 if self.path is None else self.path.totals[3])

    def silent_for(self, now: float) -> float:
        """Seconds since the peer owes us an answer."""
        asked = self.asked
        return 0.0 if asked is None else now - asked

    def pump(self, now: float) -> None:
        """Move packets from the queue into the connection as far as its window goes."""
        while self.queue and self.session.backlog < MAX_BACKLOG and self.session.can_send(self._mtu):
            packet = self.queue.pop(now)
            if packet is not None:
                self.session.send_datagram(_IP + packet)
                self._bytes_out += len(packet)
                self.note_outbound(now)

    @property
    def queued(self) -> int:
        """Bytes that wait to be sent."""
        return self.queue.bytes if self.path is None else self.path.queued

    @property
    def left(self) -> int:
        """Packets that have not left yet."""
        return len(self.queue) + self.session.backlog + (0 if self.path is None else self.path.queued_packets)

    @property
    def spent(self) -> bool:
        """Whether everything that was to be sent here has left."""
        return not self.left

    def hand_over(self, successor: Peer) -> None:
        """What is queued goes by `successor`; what is already with QUIC leaves here."""
        self.queue, successor.queue = successor.queue, self.queue
        if self.path is not None and successor.path is not None:
            self.path.hand_over(successor.path)
        self.leaving = True

    def send_probe(self, now: float) -> None:
        """Measure: a numbered probe, if the window has room for it; a PING regardless of the window if not."""
        if self.session.can_send(PROBE_ROOM):
            seq = self.probes.send(now)
            self.session.send_datagram(encode_probe(CONTEXT_PROBE, seq, int(now * 1e6)))
        else:
            self.session.probe()
        self.note_outbound(now)

    def stats(self) -> PathStats:
        return self._path.stats(self.session, self.probes)
