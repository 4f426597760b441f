"""A site's end of a tunnel: one connection to the hub, and another beside it when the first one falls silent. Pure.

    connect → handshake → Hello (with the site's proof) → Welcome → probe answered → Ready
                                                             │
      silent for `silence`: PING at once, again and again    │
      silent for `peer_timeout`: a second connection beside ─┘  whichever answers first stays

Data follows the Hello at once where there is no other connection to carry it.

As a planned restart's new worker (STANDBY, see `handover`) it connects beside the old one's connection and takes the
hub's routes over when told to lead. When the hub's worker is restarted (`Move`), it connects beside, sends by the new
connection, and hears both until the hub closes the old.
"""

from __future__ import annotations

from ipaddress import ip_address

import msgspec

from mpq_worker import inner
from mpq_worker._datapath import QUEUE_LOW
from mpq_worker.contract import ConfigureSite, Notice, PeerBack, PeerMoved, PeerSilent, Ready, Report
from mpq_worker.endpoint import Endpoint
from mpq_worker.errors import DropReason, PeerFault, Refusal
from mpq_worker.handover import Duty
from mpq_worker.measure import Histogram
from mpq_worker.peer import Peer
from mpq_worker.quic.establish import client_session
from mpq_worker.quic.header import Header
from mpq_worker.quic.session import Address, Closed
from mpq_worker.trust import leaf_certificate
from mpq_worker.wire import (
    FEATURES,
    MOVE,
    VERSIONS,
    Claims,
    Control,
    ControlReader,
    Hello,
    Move,
    Moved,
    Take,
    Welcome,
    encode_claims,
    encode_control,
    hello_transcript,
)

ATTEMPT_TIME = (2.0, 8.0)
"""How long the first attempt to connect may take before the next begins with a fresh Initial, and the longest, which
one that the hub has answered may take always: on a starved host a handshake must not be begun again for ever."""
REFUSED_BACKOFF = (1.0, 60.0)
"""First and longest pause after the hub refused us; only a person can mend that. A connection that has lasted longer
than the longest makes the next pause the first one again."""
HOLD_TIME = 1.0
"""How long packets wait in the TUN for a connection; later they are read and dropped, so that none is stale."""


class SiteTunnel(Endpoint):
    """The core that `driver` drives in a site's worker."""

    def __init__(self, config: ConfigureSite, now: float) -> None:
        own = [ip_address(address).packed for address in config.inner]
        super().__init__(config.queue, config.timing, config.transport, own, standby=config.standby, hub=False)
        self._config = config
        self._hub_address: Address = config.hub_address
        self._certificate = leaf_certificate(config.credentials.certificate)
        self._active: Peer | None = None
        self._candidate: Peer | None = None
        self._welcomed: Peer | None = None
        self._claims: dict[Peer, bytes] = {}
        self._readers: dict[Peer, ControlReader] = {}
        self._attempt_until = 0.0
        self._attempt_time = ATTEMPT_TIME[0]
        self._attempt_at: float | None = now
        self._refused_pause = REFUSED_BACKOFF[0]
        self._next_probe = now
        self._next_ping = 0.0
        self._down_since = now
        self._ready = False
        self._silent = False
        self._moving = False  # the hub said `Move`
        self._heard_all = True  # as a worker that leaves: the hub sends nothing more
        self._rebound: float | None = None  # when the socket was replaced, until something comes in by the new one
        self._said: str | None = None
        self._reconnects = 0
        self._rtts = Histogram()

    # ------------------------------------------------------------------ in, beyond Endpoint's

    def handle_rebind(self, hub_address: Address, now: float) -> None:
        """The driver has a new socket: our address changed, and the hub's perhaps too."""
        same = hub_address == self._hub_address
        self._hub_address = hub_address
        self._rebound = now
        if self._active is not None and same:
            self._active.session.migrate()
            self._active.note_outbound(now)
            self._dirty[self._active] = None
        else:
            self._attempt_at = now

    @property
    def ready(self) -> bool:
        return self._ready

    @property
    def silent(self) -> bool:
        return self._silent

    def may_read(self, now: float) -> bool:
        waits = self._active is None and now - self._down_since < HOLD_TIME
        return super().may_read(now) and not waits

    def want_packets(self, now: float) -> bool:
        return self.may_read(now) and (self._active is None or self._active.queued < QUEUE_LOW)

    def report(self, now: float) -> Report:
        report = super().report(now)
        path = self._active.stats() if self._active is not None else None
        return msgspec.structs.replace(
            report,
            path=path,
            reconnects=self._reconnects,
            rtt_counts=tuple(self._rtts.counts),
            rtt_sum=self._rtts.sum,
        )

    # ------------------------------------------------------------------ Endpoint's hooks

    def _on_unknown(self, header: Header, data: bytes, addr: Address, now: float) -> Peer | None:
        if not header.is_long and self._active is not None:
            return self._active  # it may be a stateless reset, which carries no connection ID
        self.drop(DropReason.UNKNOWN_CONNECTION)
        return None

    def _on_packet(self, where: inner.Addresses, now: float) -> Peer | None:
        if self._active is None:
            self.drop(DropReason.NO_CONNECTION)
        return self._active

    def _outlet(self) -> Peer | None:
        return self._active

    def _on_connected(self, peer: Peer, binding: bytes, now: float) -> None:
        self._permit(peer, None)
        peer.standby = self._duty is Duty.STANDBY
        claims = encode_claims(
            Claims(
                versions=VERSIONS,
                traffic_class=int(self._config.traffic_class),
                inner=self._config.inner,
                certificate=self._certificate,
                features=FEATURES,
                standby=peer.standby,
            )
        )
        self._claims[peer] = claims
        self._request_signature(peer, "hello", hello_transcript(claims, binding))

    def _on_signature(self, peer: Peer, signature: bytes, now: float) -> None:
        claims = self._claims.pop(peer, None)
        if claims is None or not signature:
            self._complain("the supervisor would not sign", now)
            return
        peer.session.send_control(encode_control(Hello(claims, signature)))
        # In a packet of its own: DATAGRAM frames would stand before it, and be dropped as of somebody unknown.
        self._datagrams += peer.session.poll_transmit(now)
        peer.send_probe(now)
        if self._active is None:
            self._activate(peer, now)

    def _on_control(self, peer: Peer, data: bytes, now: float) -> None:
        for message in self._readers.setdefault(peer, ControlReader()).feed(data):
            self._on_message(peer, message, now)

    def _on_message(self, peer: Peer, message: Control, now: float) -> None:
        match message:
            case Welcome(version=version) if version not in VERSIONS:
                raise PeerFault(Refusal.VERSION, f"we speak versions {VERSIONS}, the hub {version}")
            case Welcome(features=features):
                self._attempt_time = ATTEMPT_TIME[0]
                self._reconnects += self._ready and not self._moving
                self._welcomed = peer
                peer.held = peer.standby and MOVE in features
                self._heard_all = MOVE not in features
                self._activate(peer, now)
                if self._duty is Duty.LEADING:
                    self._take(peer)
                self._become_ready(peer)
            case Move() if peer is self._active and self._duty is Duty.LEADING:
                self._moving, self._attempt_at = True, now
            case Moved() if self._duty.leaves:
                self._heard_all = True
                self._tell(PeerMoved(self._config.inner))

    def _on_fault(self, peer: Peer, fault: PeerFault, now: float) -> None:
        peer.session.close(f"{fault.refusal}: {fault.text}")
        self._dirty[peer] = None

    def _on_closed(self, peer: Peer, event: Closed, now: float) -> None:
        self._claims.pop(peer, None)
        self._readers.pop(peer, None)
        was_active = peer is self._active
        if was_active:
            self._active, self._down_since = None, now
        if self._stopping:
            return
        if peer is self._candidate:
            self._candidate = None
        elif not was_active:
            return
        if self._duty.leaves:
            return
        if now - peer.since > REFUSED_BACKOFF[1]:
            self._refused_pause = REFUSED_BACKOFF[0]
        if event.refused or event.clock or not (was_active and peer is self._welcomed):
            self._attempt_at = now + self._refused_pause
            self._refused_pause = min(2 * self._refused_pause, REFUSED_BACKOFF[1])
        else:
            self._attempt_at = now
        self._complain(event.reason, now)

    def _may_deliver(self, peer: Peer, packet: bytes) -> bool:
        if inner.addresses(packet) is None:
            self.drop(DropReason.NOT_IP)
            return False
        return True

    def _on_probe_reply(self, peer: Peer, now: float) -> None:
        assert peer.probes.rtt is not None
        self._rtts.add(peer.probes.rtt)
        if not self._ready:
            self._become_ready(peer)
        elif peer is self._active is self._welcomed and self._silent:
            self._recover(now)

    # ------------------------------------------------------------------ timers

    def _tick(self, now: float) -> None:
        if self._stopping or self._duty.leaves:
            return
        if self._candidate is not None and now >= self._deadline_of(self._candidate):
            self._abandon(self._candidate, now)
            self._complain("the hub does not answer", now)
            self._attempt_at = now
        if self._attempt_at is not None and now >= self._attempt_at:
            self._connect(now)
        active = self._active
        if active is None:
            return
        if now >= self._next_probe:
            self._next_probe = now + self._timing.probe_interval
            active.send_probe(now)
            self._dirty[active] = None
        if self._rebound is not None and active.heard > self._rebound:
            self._rebound = None
            self._tell(PeerBack())  # the supervisor saw the WAN go, even where we had no time to notice
        silent = active.silent_for(now)
        if silent >= self._patience(active, self._timing.silence) and now >= self._next_ping:
            self._next_ping = now + self._timing.silence
            active.session.probe()
            self._dirty[active] = None
        if silent >= self._patience(active, self._timing.peer_timeout):
            self._on_silence(now)
        elif self._silent and active is self._welcomed and active.heard > self._down_since:
            self._recover(now)

    def _next_tick(self) -> float | None:
        if self._stopping or self._duty.leaves:
            return None
        times = [] if self._attempt_at is None else [self._attempt_at]
        if self._candidate is not None:
            times.append(self._deadline_of(self._candidate))
        if self._active is not None:
            times.append(self._next_probe)
            if self._active.asked is not None:
                silence = self._active.asked + self._patience(self._active, self._timing.silence)
                times.append(max(silence, self._next_ping))
        return min(times, default=None)

    def _deadline_of(self, candidate: Peer) -> float:
        """When an attempt is given up; one that the hub has answered is slow, and would not be faster begun anew."""
        if candidate.session.started:
            return max(self._attempt_until, candidate.since + ATTEMPT_TIME[1])
        return self._attempt_until

    def _patience(self, peer: Peer, least: float) -> float:
        """`least`, or longer on a path whose round trips take longer."""
        rtt = peer.session.rtt()
        return least if rtt is None else max(least, 1.5 * rtt[0] + 0.05)

    # ------------------------------------------------------------------ a planned restart

    def _begin_drain(self, now: float) -> None:
        self._stop_reading(now)  # there is nobody to send over

    def _has_heard_all(self) -> bool:
        return self._heard_all or self._active is None

    def _begin_lead(self, now: float) -> None:
        self._next_probe = now
        if self._active is None and self._candidate is None and self._attempt_at is None:
            self._attempt_at = now
        if self._active is not None and self._active is self._welcomed:
            self._take(self._active)

    def _take(self, peer: Peer) -> None:
        """Have the hub send by `peer`, if it was told not to."""
        if peer.standby:
            peer.standby = False
            peer.session.send_control(encode_control(Take()))
            self._dirty[peer] = None

    def _peer_of(self, inner: tuple[str, ...]) -> Peer | None:
        return self._active

    # ------------------------------------------------------------------ connections

    def _become_ready(self, peer: Peer) -> None:
        """Once, when a connection has had both its Welcome and the answer to a probe, in whichever order."""
        if not self._ready and peer is self._welcomed and peer.probes.rtt is not None:
            self._ready = True
            self._said = None
            self._tell(Ready())

    def _connect(self, now: float) -> None:
        """Begin an attempt beside whatever there is."""
        if self._candidate is not None:
            self._abandon(self._candidate, now)
        session = client_session(
            hub_name=self._config.hub_name,
            hub_address=self._hub_address,
            slot=self._config.door,
            credentials=self._config.credentials,
            timing=self._timing,
            transport=self._transport,
            now=now,
        )
        self._candidate = Peer(session, self._queue, self._transport, now)
        self._attempt_at, self._attempt_until = None, now + self._attempt_time
        self._attempt_time = min(2 * self._attempt_time, ATTEMPT_TIME[1])
        self._add(self._candidate)

    def _activate(self, peer: Peer, now: float) -> None:
        """`peer` carries the packets from now on; whoever did before is closed, or by the hub after a `Move`."""
        old, self._active = self._active, peer
        if peer is self._welcomed:
            if peer is self._candidate:
                self._candidate = None
            self._recover(now)
        if old is not None and old is not peer:
            if self._moving:
                old.hand_over(peer)
            else:
                old.session.close()
            self._dirty[old] = None
        self._moving = False

    def _abandon(self, peer: Peer, now: float) -> None:
        """Give an attempt up; the hub is told if it may have heard of it."""
        self._candidate = None
        if peer is self._active:
            self._active, self._down_since = None, now
        if peer.session.connected:
            peer.session.close()
            self._dirty[peer] = None
        else:
            self._remove(peer)

    def _on_silence(self, now: float) -> None:
        if not self._silent:
            self._silent, self._down_since = True, now
            if self._ready:
                self._tell(PeerSilent("nothing heard from the hub"))
        if self._candidate is None and self._attempt_at is None:
            self._attempt_at = now

    def _recover(self, now: float) -> None:
        self._said = None
        if self._silent:
            self._silent = False
            if self._ready:
                self._tell(PeerBack())
        if self._candidate is not None and not self._candidate.session.connected:
            self._abandon(self._candidate, now)
        self._attempt_at = None

    def _complain(self, reason: str, now: float) -> None:
        """Say once why there is no connection, and again only when the reason changes."""
        if reason != self._said:
            self._said = reason
            self._tell(Notice("reconnect" if self._ready else "connect", reason, "warning"))
        if not self._silent:
            self._silent = True
            self._tell(PeerSilent(reason))
