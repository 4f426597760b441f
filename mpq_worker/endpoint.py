"""What both ends of a tunnel have in common: connections by ID, their timers, and the way in and out. Pure.

The driver calls, in this order and with one `now` per wake-up:

    handle_udp | handle_packet | handle_signature | handle_timer      in
    poll_transmit → poll_packet → poll_message → poll_timeout         out

Nothing here calls back. `tunnel` (a site's end) and `hub` fill in the four `_on_*` methods and `_tick`.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from itertools import count

from mpq_worker import inner
from mpq_worker._datapath import ACKED, FOREIGN_SOURCE
from mpq_worker.budget import Budget
from mpq_worker.carrier import Carrier, packed
from mpq_worker.contract import Drained, FromWorker, QueueLimits, Report, SignRequest, Timing, Transport
from mpq_worker.errors import DropReason, PeerFault
from mpq_worker.handover import FLUSH_TIME, Duty, KeptBack
from mpq_worker.mailbox import Mailbox
from mpq_worker.peer import Peer
from mpq_worker.quic.header import Header, parse_header
from mpq_worker.quic.session import (
    Address,
    Closed,
    Connected,
    ControlData,
    Datagram,
    SignNeeded,
)
from mpq_worker.routes import Prefix
from mpq_worker.wire import (
    CONTEXT_IP,
    CONTEXT_PROBE,
    CONTEXT_PROBE_REPLY,
    Moved,
    decode_probe,
    encode_control,
    encode_probe,
)

MAX_INBOX = 1024
SPARE_TIMERS = 64
"""Entries of the heap that an earlier deadline has outdated, beside three of each connection: some last 30 s."""
ERRORS_PER_SECOND = 100
"""ICMP errors to those who send packets that are too big (RFC 4443 section 2.4, RFC 1812 section 4.3.2.8)."""


class Endpoint:
    """`inner_addresses` are our own packed tunnel addresses, the source of ICMP errors."""

    def __init__(
        self,
        queue: QueueLimits,
        timing: Timing,
        transport: Transport,
        inner_addresses: list[bytes],
        *,
        standby: bool,
        hub: bool,
    ) -> None:
        self.carrier = Carrier(queue, hub=hub) if transport.native else None
        self._duty = Duty.STANDBY if standby else Duty.LEADING
        self._drain_until: float | None = None
        self._kept = KeptBack()
        self._queue, self._timing, self._transport = queue, timing, transport
        self._own = {len(address): address for address in inner_addresses}
        self._by_cid: dict[bytes, Peer] = {}
        self._peers: set[Peer] = set()
        self._dirty: dict[Peer, None] = {}
        self._timers: list[tuple[float, int, Peer]] = []
        self._order = count()
        self._datagrams: deque[tuple[bytes, Address]] = deque()
        self._packets: deque[bytes] = deque()
        self._mailbox = Mailbox()
        self._signing: dict[int, Peer] = {}
        self._sign_seq = count(1)
        self._stopping = False
        self._stop_at: float | None = None  # while it is put off
        self._errors = Budget(ERRORS_PER_SECOND, ERRORS_PER_SECOND)
        self._drops: Counter[str] = Counter()
        self._gone_drops = [0, 0]
        self._in = self._out = self._bytes_in = self._bytes_out = 0

    # ------------------------------------------------------------------ in

    def handle_udp(self, data: bytes, addr: Address, now: float) -> None:
        """A UDP payload from the network."""
        if self.carrier is None or not self.carrier.datagram(data, addr, now):
            self.handle_foreign(data, addr, now)

    def handle_foreign(self, data: bytes, addr: Address, now: float) -> None:
        """A UDP payload that is none of the native loop's."""
        header = parse_header(data)
        if header is None:
            self._on_garbage(addr, now)
            return
        peer = self._by_cid.get(header.destination_cid) or self._on_unknown(header, data, addr, now)
        if peer is None:
            return
        if not peer.take_share(now, is_long=header.is_long, is_trusted=self._is_trusted(peer)):
            self.drop(DropReason.CONTROL)
            return
        dropped = peer.session.handle_datagram(data, addr, now)
        if dropped is not None:
            self.drop(dropped)
        peer.note_inbound(now)
        self._drain_events(peer, now)
        if peer in self._peers:
            self._after_inbound(peer)

    def handle_packet(self, packet: bytes, now: float) -> None:
        """An IP packet from the TUN."""
        if self.carrier is not None:
            self.carrier.frame(packet, now)
            return
        where = inner.addresses(packet)
        if where is None:
            self.drop(DropReason.NOT_IP)
        elif inner.is_local(where):
            self.drop(DropReason.LOCAL)
        elif len(packet) > self._transport.inner_mtu:
            self.drop(DropReason.TOO_BIG)
            self._refuse_size(packet, where, self._transport.inner_mtu, now)
        elif (peer := self._on_packet(where, now)) is not None:
            peer.queue.push(packet, now)
            self._out += 1
            self._bytes_out += len(packet)
            self._dirty[peer] = None

    def handle_signature(self, seq: int, signature: bytes, now: float) -> None:
        """The supervisor's answer to a `SignRequest`."""
        peer = self._signing.pop(seq, None)
        if peer is not None and peer in self._peers:
            self._on_signature(peer, signature, now)
            self._settle(peer, now)

    def handle_timer(self, now: float) -> None:
        """Call when `poll_timeout` has passed."""
        while self._timers and self._timers[0][0] <= now:
            deadline, _, peer = heapq.heappop(self._timers)
            if peer in self._peers and peer.deadline == deadline:
                peer.deadline = None
                peer.session.handle_timer(now)
                self._settle(peer, now)
        for peer in self._kept.due(now):
            self._let_go(peer)
        self._tick(now)

    def handle_drain(self, now: float) -> None:
        """Leave the TUN to a successor; `Drained` says when all is sent."""
        self._duty = Duty.MOVING
        self._begin_drain(now)

    def handle_lead(self, now: float) -> None:
        """Read the TUN, alone."""
        self._duty, self._drain_until = Duty.LEADING, None
        self._begin_lead(now)

    def handle_moved(self, inner: tuple[str, ...], now: float) -> None:
        """The old worker has delivered the last packet of the peer with these addresses."""
        peer = self._peer_of(inner)
        if peer is not None:
            self._let_go(peer)

    def handle_stop(self, now: float, patience: float = 0.0) -> None:
        """Close all connections; what `poll_transmit` then returns tells the other ends. If there is a successor,
        what is still on its way comes first, for `patience` at most."""
        self._stop_at = now + patience if self._duty is Duty.RELIEVED else now
        self._check_stop(now)

    @property
    def leads(self) -> bool:
        """Whether the TUN is ours to read."""
        return self._duty.reads

    @property
    def ready(self) -> bool:
        """Whether `Ready` was said."""
        return True

    @property
    def silent(self) -> bool:
        """Whether the peer is silent, as far as there is one."""
        return False

    @property
    def stopped(self) -> bool:
        """True when nothing is left to be said."""
        return self._stopping and not self._peers

    # ------------------------------------------------------------------ out

    def poll_transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """All UDP payloads that may leave now, but for those that the native loop sends itself."""
        if self.carrier is not None:
            self._hear_carrier(self.carrier, now)
        if self._stop_at is not None:
            self._check_stop(now)
        out = list(self._datagrams)
        self._datagrams.clear()
        leaving: list[Peer] = []
        while self._dirty:
            peer, _ = self._dirty.popitem()
            if peer not in self._peers:
                continue
            peer.pump(now)
            out += peer.session.poll_transmit(now)
            if peer.leaving and self.carrier is not None:
                self.carrier.datapath.flush(now)
            if peer.leaving and not peer.spent:
                leaving.append(peer)
            elif peer.leaving:
                peer.leaving = False
                peer.session.send_control(encode_control(Moved()))  # the last packet has left before it
                out += peer.session.poll_transmit(now)
            self._drain_events(peer, now)
            if peer in self._peers:
                self._index(peer)
                self._arm(peer)
        self._dirty.update(dict.fromkeys(leaving))  # look again next time
        if self.carrier is not None:
            out = self._flush_carrier(self.carrier, now) + out
        if self._duty is Duty.DRAINING:
            self._check_drained(now)
        return out

    def poll_packet(self) -> bytes | None:
        """The next IP packet for the TUN, but for those that the native loop writes itself."""
        return self._packets.popleft() if self._packets else None

    def poll_message(self) -> FromWorker | None:
        """The next message for the supervisor."""
        return self._mailbox.take()

    def poll_timeout(self) -> float | None:
        """When to call `handle_timer`, unless something comes before."""
        while self._timers and self._timers[0][2].deadline != self._timers[0][0]:
            heapq.heappop(self._timers)
        first = self._timers[0][0] if self._timers else None
        loop = None if self.carrier is None else self.carrier.datapath.deadline()
        times = (first, loop, self._next_tick(), self._kept.deadline(), self._drain_until, self._stop_at)
        return min((t for t in times if t is not None), default=None)

    def may_read(self, now: float) -> bool:
        """Whether the TUN is ours to read now."""
        return self._duty.reads

    def want_packets(self, now: float) -> bool:
        """Whether the TUN may be read, and there is room. A site stops while its one queue is filled (the native loop
        sees to that by itself where it has descriptors); a hub never does, lest one site's queue stall the others."""
        return self.may_read(now)

    def drop(self, reason: DropReason) -> None:
        """Count a packet that goes no further."""
        self._drops[reason] += 1

    def report(self, now: float) -> Report:
        """Totals since the worker began."""
        drops = self._drops.copy()
        full, codel = self._gone_drops
        drops[DropReason.QUEUE_FULL] = full + sum(peer.queue.full_drops for peer in self._peers)
        drops[DropReason.CODEL] = codel + sum(peer.queue.codel_drops for peer in self._peers)
        totals = (0, 0, 0, 0)
        features: tuple[str, ...] = ()
        if self.carrier is not None:
            drops.update(self.carrier.drops())
            totals, features = self.carrier.datapath.totals, self.carrier.datapath.features
        return Report(
            packets_in=self._in + totals[0],
            bytes_in=self._bytes_in + totals[1],
            packets_out=self._out + totals[2],
            bytes_out=self._bytes_out + totals[3],
            features=features,
            drops={str(reason): number for reason, number in drops.items() if number},
        )

    # ------------------------------------------------------------------ for the roles

    def _begin_drain(self, now: float) -> None:
        """MOVING begins; the role ends it by `_stop_reading`."""
        raise NotImplementedError

    def _stop_reading(self, now: float) -> None:
        self._duty, self._drain_until = Duty.DRAINING, now + FLUSH_TIME

    def _begin_lead(self, now: float) -> None:
        """LEADING begins."""

    def _has_heard_all(self) -> bool:
        """Whether the peers send nothing more to a worker that leaves."""
        return True

    def _peer_of(self, inner: tuple[str, ...]) -> Peer | None:
        """The connection of the site with these addresses."""
        raise NotImplementedError

    def _on_garbage(self, addr: Address, now: float) -> None:
        """A datagram that is nothing of ours."""
        self.drop(DropReason.MALFORMED)

    def _on_unknown(self, header: Header, data: bytes, addr: Address, now: float) -> Peer | None:
        """A packet of no connection of ours; return the peer it belongs to after all, if any."""
        raise NotImplementedError

    def _on_packet(self, where: inner.Addresses, now: float) -> Peer | None:
        """The peer that carries a packet from the TUN; None if it was dropped and counted."""
        raise NotImplementedError

    def _on_connected(self, peer: Peer, binding: bytes, now: float) -> None:
        raise NotImplementedError

    def _is_trusted(self, peer: Peer) -> bool:
        """Whether the native loop may take the packets of `peer`, and not just Python."""
        return True

    def _on_foreign_source(self, peer: Peer, source: bytes) -> None:
        """A packet with this inner source was dropped, the first of `peer`."""

    def _on_control(self, peer: Peer, data: bytes, now: float) -> None:
        """May raise PeerFault."""
        raise NotImplementedError

    def _on_fault(self, peer: Peer, fault: PeerFault, now: float) -> None:
        raise NotImplementedError

    def _on_signature(self, peer: Peer, signature: bytes, now: float) -> None:
        peer.session.handle_signature(signature, now)

    def _on_closed(self, peer: Peer, event: Closed, now: float) -> None:
        raise NotImplementedError

    def _may_deliver(self, peer: Peer, packet: bytes) -> bool:
        """Whether a packet from `peer` may go to the TUN; drops are counted."""
        raise NotImplementedError

    def _tick(self, now: float) -> None:
        """The role's own timers."""

    def _next_tick(self) -> float | None:
        return None

    def _add(self, peer: Peer) -> None:
        self._peers.add(peer)
        self._dirty[peer] = None
        self._index(peer)

    def _remove(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._dirty.pop(peer, None)
        peer.deadline = None
        self._timers = [timer for timer in self._timers if timer[2] is not peer]  # they hold its queue in memory
        heapq.heapify(self._timers)
        self._let_go(peer)
        self._gone_drops[0] += peer.queue.full_drops + len(peer.queue)
        self._gone_drops[1] += peer.queue.codel_drops
        self._forget_cids(peer)
        if self.carrier is not None:
            self.carrier.remove(peer)
        peer.session.release()
        self._signing = {seq: waiting for seq, waiting in self._signing.items() if waiting is not peer}

    def _request_signature(self, peer: Peer, purpose: str, data: bytes) -> None:
        seq = next(self._sign_seq)
        self._signing[seq] = peer
        self._tell(SignRequest(seq, purpose, data))

    def _tell(self, message: FromWorker) -> None:
        if not self._mailbox.put(message):
            self.drop(DropReason.MESSAGE)

    def _settle(self, peer: Peer, now: float) -> None:
        """After anything that may have changed a connection."""
        self._drain_events(peer, now)
        if peer in self._peers:
            self._dirty[peer] = None

    # ------------------------------------------------------------------ helpers

    def _check_drained(self, now: float) -> None:
        late = self._drain_until is not None and now >= self._drain_until
        if late or all(peer.spent for peer in self._peers):
            self._duty, self._drain_until = Duty.RELIEVED, None
            self._tell(Drained(sum(peer.left for peer in self._peers)))

    def _check_stop(self, now: float) -> None:
        assert self._stop_at is not None
        if now >= self._stop_at or (self._has_heard_all() and all(peer.spent for peer in self._peers)):
            self._stopping, self._stop_at = True, None
            for peer in list(self._peers):
                peer.session.close()
                self._dirty[peer] = None

    def _let_go(self, peer: Peer) -> None:
        """Deliver what was kept back of `peer`, and from now on all at once."""
        if peer in self._peers:
            self._dirty[peer] = None
        for packet in self._kept.release(peer):
            self._deliver(packet)

    def _index(self, peer: Peer) -> None:
        if not peer.session.cids_changed:
            return
        peer.session.cids_changed = False
        self._forget_cids(peer)
        peer.cids = peer.session.cids
        for cid in peer.cids:
            self._by_cid[cid] = peer
        if self.carrier is not None and not peer.held and self._is_trusted(peer):
            self.carrier.bind(peer, peer.cids)

    def _after_inbound(self, peer: Peer) -> None:
        """Transmit now, or wait for the acknowledgement's time: most packets ask for nothing else."""
        due = peer.session.may_wait_until()
        if due is None or peer.queue:
            self._dirty[peer] = None
        else:
            self._wake_for(peer, due)

    def _forget_cids(self, peer: Peer) -> None:
        for cid in peer.cids:
            if self._by_cid.get(cid) is peer:
                del self._by_cid[cid]
                if self.carrier is not None:
                    self.carrier.unbind((cid,))

    def _arm(self, peer: Peer) -> None:
        """At the latest then; who comes too early is armed again."""
        deadline = peer.session.poll_timeout()
        if deadline is not None:
            self._wake_for(peer, deadline)

    def _wake_for(self, peer: Peer, deadline: float) -> None:
        if peer.deadline is not None and peer.deadline <= deadline:
            return
        heapq.heappush(self._timers, (deadline, next(self._order), peer))
        peer.deadline = deadline
        if len(self._timers) > 4 * len(self._peers) + SPARE_TIMERS:
            self._timers = [timer for timer in self._timers if timer[2].deadline == timer[0]]
            heapq.heapify(self._timers)

    def _drain_events(self, peer: Peer, now: float) -> None:
        while (event := peer.session.poll_event()) is not None:
            try:
                if isinstance(event, Datagram):
                    self._datagram(peer, event.payload, now)
                elif isinstance(event, Connected):
                    if self.carrier is not None:
                        self.carrier.adopt(peer, now)
                        peer.session.cids_changed = True
                    self._on_connected(peer, event.binding, now)
                elif isinstance(event, ControlData):
                    self._on_control(peer, event.data, now)
                elif isinstance(event, SignNeeded):
                    self._request_signature(peer, "tls", event.data)
                else:
                    self._remove(peer)
                    self._on_closed(peer, event, now)
            except PeerFault as fault:
                self._on_fault(peer, fault, now)

    def _datagram(self, peer: Peer, payload: bytes, now: float) -> None:
        context = payload[0] if payload else None
        if context == CONTEXT_IP:
            packet = payload[1:]
            if self._may_deliver(peer, packet):
                peer.note_delivered(len(packet))
                self._in += 1
                self._bytes_in += len(packet)
                if not peer.held:
                    self._deliver(packet)
                elif self._kept.add(peer, packet, now):
                    self._let_go(peer)
        elif context == CONTEXT_PROBE:
            seq, micros = decode_probe(payload)
            if peer.session.can_send(len(payload)):
                peer.session.send_datagram(encode_probe(CONTEXT_PROBE_REPLY, seq, micros))
        elif context == CONTEXT_PROBE_REPLY:
            seq, _ = decode_probe(payload)
            if peer.probes.receive(seq, now):
                self._on_probe_reply(peer, now)
        else:
            self.drop(DropReason.EMPTY if context is None else DropReason.UNKNOWN_CONTEXT)

    def _on_probe_reply(self, peer: Peer, now: float) -> None:
        """A probe of ours came back."""

    def _hear_carrier(self, carrier: Carrier, now: float) -> None:
        """What the native loop has for us."""
        for peer, payload in carrier.messages():
            try:
                if peer in self._peers:
                    self._datagram(peer, payload, now)
            except PeerFault as fault:
                self._on_fault(peer, fault, now)
        for packet, mtu in carrier.datapath.take_too_big():
            self._refuse_size(packet, inner.addresses_of_head(packet), mtu, now)
        self._hear_events(carrier, now)

    def _hear_events(self, carrier: Carrier, now: float) -> bool:
        """Whether there were any."""
        heard = carrier.events()
        for peer, events in heard:
            peer.session.handle_native(events, now)
            if events & FOREIGN_SOURCE and peer.path is not None:
                self._on_foreign_source(peer, peer.path.take_foreign_source())
            if events & ACKED and peer.leaving:
                self._dirty[peer] = None
            self._arm(peer)
        return bool(heard)

    def _flush_carrier(self, carrier: Carrier, now: float) -> list[tuple[bytes, Address]]:
        carrier.use(self._outlet())
        carrier.datapath.flush(now)
        if self._hear_events(carrier, now):
            carrier.datapath.flush(now)  # a probe of the path's size, or what a wider window lets go
        self._packets.extend(carrier.packets())
        return carrier.datagrams()

    def _outlet(self) -> Peer | None:
        """Who gets all packets from the TUN; None: whom the routes say."""
        return None

    def _permit(self, peer: Peer, prefixes: tuple[Prefix, ...] | None) -> None:
        """The inner sources that `peer` may send from; None: all."""
        if peer.path is not None:
            peer.path.allow(None if prefixes is None else map(packed, prefixes))
            peer.session.cids_changed = True

    def _refuse_size(self, packet: bytes, where: inner.Addresses, mtu: int, now: float) -> None:
        error = inner.too_big(packet, where, mtu, self._own.get(len(where.source)))
        if error is not None and self._errors.take(now):
            self._deliver(error)

    def _deliver(self, packet: bytes) -> None:
        if len(self._packets) < MAX_INBOX:
            self._packets.append(packet)
        else:
            self.drop(DropReason.TUN)
