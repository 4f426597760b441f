"""A hub worker's end: many sites behind one socket and one TUN, each held to its own addresses. Pure.

    first Initial → admission: a connection, a Retry, or nothing → handshake → Hello in time → admit or refuse
    admit: the addresses it asked for and the site's prefixes point to this connection; one before it that
           has no address left drains and is closed

A planned restart of a site's worker brings a second connection of it, on standby until its `Take`. One of our own
(MOVING, see `handover`) tells the sites one after the other to `Move` to the new worker, and waits until all have.

A shared listener has several connections of one site, a class each, told apart by their addresses.

Nothing a site sends can touch another site's entries: what it may use follows from its certificate and our
configuration alone, and every inner source address is checked against that.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address

import msgspec

from mpq_worker import inner
from mpq_worker.admission import HELLO_TIME, Accept, Admission
from mpq_worker.budget import Budget
from mpq_worker.contract import (
    ConfigureHub,
    Notice,
    PeerMoved,
    Ready,
    Report,
    SiteEntry,
    SiteStatus,
)
from mpq_worker.endpoint import Endpoint
from mpq_worker.errors import DropReason, PeerFault, Refusal
from mpq_worker.handover import Duty
from mpq_worker.moves import Moves
from mpq_worker.peer import Peer
from mpq_worker.quic.establish import SessionFactory
from mpq_worker.quic.header import Header
from mpq_worker.quic.retry import RetryTokens
from mpq_worker.quic.session import Address, Closed
from mpq_worker.resets import Resets
from mpq_worker.routes import Prefix, RouteTable, covers, parse_prefixes
from mpq_worker.trust import TrustAnchor, verify_hello
from mpq_worker.wire import (
    FEATURES,
    MOVE,
    VERSIONS,
    Control,
    ControlReader,
    Hello,
    Move,
    Moved,
    Take,
    Welcome,
    decode_claims,
    encode_control,
    one_line,
)

DRAIN_TIME = 1.0
"""How long a connection that a newer one of the same site replaced may still deliver."""
MAX_OF_SITE = 8
"""Connections of one site beyond those that its addresses point to; the oldest goes before its time."""
ARRIVALS_PER_SECOND, ARRIVALS_AT_ONCE = 20, 40
"""Of one site: each handshake takes 5 ms of CPU from those who share the worker."""
TWIN_TIME = 0.3
"""Who still speaks by a connection so long after another one has taken over from it is another host."""
TWIN_PAUSE = 3600.0
"""Seconds between two lines about a site of which there are two."""
LINE_PAUSE = 60.0
"""Seconds between two lines about garbage, and two about silent strangers: anybody can be the cause."""
MAX_STATUS = 240
"""Connections told of in one report, so that it stays below MAX_MESSAGE: the oldest. Others are only counted."""


@dataclass(eq=False)
class _Guest:
    """What the hub knows of one connection."""

    addr: Address  # that it came from; `Session.address` is where it is
    reader: ControlReader
    binding: bytes = b""
    site: SiteEntry | None = None
    inner: tuple[str, ...] = ()  # the addresses its Hello asked for
    allowed: tuple[Prefix, ...] = ()
    admitted_at: float = 0.0
    movable: bool = False
    told: bool = False  # to move, and has not said that it did
    displaced: bool = False  # by a connection that did not stand by before
    refused: bool = False


class HubTunnel(Endpoint):
    """The core that `driver` drives in a hub's worker. `wall_clock` gives Unix time, for certificates."""

    def __init__(self, config: ConfigureHub, now: float, wall_clock: Callable[[], float]) -> None:
        own = [ip_address(address).packed for address in config.inner]
        super().__init__(config.queue, config.timing, config.transport, own, standby=config.standby, hub=True)
        self._config = config
        self._wall_clock = wall_clock
        self._anchor = TrustAnchor(config.credentials.ca)
        self._factory = SessionFactory(
            slot=config.slot,
            credentials=config.credentials,
            reset_key=config.reset_key,
            timing=config.timing,
            transport=config.transport,
        )
        self._sites = {site.identity: site for site in config.sites}
        self._guests: dict[Peer, _Guest] = {}
        self._routes: RouteTable[Peer] = RouteTable(self._on_route)
        self._source_told = False
        self._current: dict[str, Peer] = {}  # by inner address
        self._admission = Admission(RetryTokens(config.retry_key, config.slot), config.limits)
        self._draining: deque[tuple[float, Peer]] = deque()
        self._moves: Moves | None = None  # while MOVING
        self._refusals: Counter[str] = Counter()
        self._resets = Resets(config.reset_key, config.lost, now)
        self._garbage_lines = Budget(1 / LINE_PAUSE, 1)
        self._silence_lines = Budget(1 / LINE_PAUSE, 1)
        self._twin_lines: dict[str, Budget] = {}  # by identity
        self._arrivals: dict[str, Budget] = {}  # by identity
        self._tell(Ready())

    # ------------------------------------------------------------------ in, beyond Endpoint's

    def handle_sites(self, sites: Iterable[SiteEntry], now: float) -> None:
        """The configuration changed: who is no longer in it, or may not use the address that it has, is cut off.
        Of the others changes what is routed to them, and where from they may send."""
        self._sites = {site.identity: site for site in sites}
        for peer, guest in list(self._guests.items()):
            if guest.site is None:
                continue
            entry = self._sites.get(guest.site.identity)
            if entry is None or not set(guest.inner).issubset(entry.inner):
                what = "has other addresses in" if entry is not None and entry.inner else "is revoked or gone from"
                self._refuse(peer, Refusal.REVOKED, f"{guest.site.name} {what} the hub's configuration", now)
        self._change_prefixes()

    def report(self, now: float) -> Report:
        connected = [
            (peer, guest.site.name, guest.admitted_at)
            for peer, guest in self._guests.items()
            if guest.site is not None and self._is_current(peer)
        ]
        status = tuple(
            SiteStatus(
                site=name,
                peer=peer.session.address[:2],
                since=now - since,
                path=peer.stats(),
                bytes_in=peer.bytes_in,
                bytes_out=peer.bytes_out,
                local=peer.session.address[2],
                cid=peer.session.cid,
            )
            for peer, name, since in connected[:MAX_STATUS]
        )
        return msgspec.structs.replace(
            super().report(now), refusals=dict(self._refusals), sites=status, connected=len(connected)
        )

    # ------------------------------------------------------------------ Endpoint's hooks

    def _on_garbage(self, addr: Address, now: float) -> None:
        if self._garbage_lines.take(now):
            self._tell(Notice("garbage", f"{_text(addr)}: sends what is no packet of ours; dropped", "warning"))
        super()._on_garbage(addr, now)

    def _on_unknown(self, header: Header, data: bytes, addr: Address, now: float) -> Peer | None:
        if header.is_initial:
            return self._accept(header, data, addr, now)
        self.drop(DropReason.UNKNOWN_CONNECTION)
        if not header.is_long:
            answer = self._resets.answer(header.destination_cid, len(data), now)
            if answer is not None:
                self._datagrams.append((answer, addr))
        return None

    def _accept(self, header: Header, data: bytes, addr: Address, now: float) -> Peer | None:
        """A new connection, if it is admitted, kept only if the packet opens."""
        verdict = DropReason.LIMIT if self._stopping else self._admission.judge(header, addr, len(self._peers), now)
        if not isinstance(verdict, Accept):
            self.drop(verdict if isinstance(verdict, DropReason) else DropReason.RETRY)
            if isinstance(verdict, bytes):
                self._datagrams.append((verdict, addr))
            return None
        session = self._factory.accept(verdict.original_cid, verdict.retry_cid)
        peer = Peer(session, self._queue, self._transport, now)
        self._admission.begin(peer, verdict, now)
        session.handle_datagram(data, addr, now)
        if not session.started:
            self._admission.lose(peer)
            session.release()
            self._on_garbage(addr, now)
            return None
        self._guests[peer] = _Guest(addr, ControlReader())
        self._add(peer)
        self._settle(peer, now)
        return None

    def _on_packet(self, where: inner.Addresses, now: float) -> Peer | None:
        peer = self._routes.lookup(where.destination)
        if peer is None:
            self.drop(DropReason.NO_ROUTE)
        return peer

    def _on_connected(self, peer: Peer, binding: bytes, now: float) -> None:
        self._guests[peer].binding = binding

    def _on_control(self, peer: Peer, data: bytes, now: float) -> None:
        guest = self._guests[peer]
        if guest.refused:
            return
        for message in guest.reader.feed(data):
            self._on_message(peer, guest, message, now)

    def _on_message(self, peer: Peer, guest: _Guest, message: Control, now: float) -> None:
        match message:
            case Hello() if guest.site is None:
                self._admit(peer, guest, message, now)
            case Take() if guest.site is not None:
                if peer.standby:
                    self._take_over(peer, now, in_order=True)
            case Moved() if guest.told:
                guest.told = False
                if self._duty is not Duty.LEADING:
                    self._tell(PeerMoved(guest.inner))
                self._has_moved(peer, now)
            case _:
                raise PeerFault(Refusal.MALFORMED, f"{type(message).__name__} was not expected")

    def _admit(self, peer: Peer, guest: _Guest, hello: Hello, now: float) -> None:
        """Check everything a Hello claims, then let the site's addresses point here."""
        claims = decode_claims(hello.claims)
        common = set(VERSIONS).intersection(claims.versions)
        if not common:
            raise PeerFault(Refusal.VERSION, f"we speak versions {VERSIONS}, the site {claims.versions}")
        identity, key = self._anchor.identify(claims.certificate, self._wall_clock())
        verify_hello(hello, key, guest.binding)
        site = self._sites.get(identity)
        if site is None:
            raise PeerFault(Refusal.IDENTITY, f"{identity} is no site of this worker")
        if not site.inner:
            raise PeerFault(Refusal.REVOKED, f"{identity} is revoked in the hub's configuration")
        arrivals = self._arrivals.setdefault(identity, Budget(ARRIVALS_PER_SECOND, ARRIVALS_AT_ONCE))
        if not arrivals.take(now):
            raise PeerFault(Refusal.OFTEN, f"{identity} connects more than {ARRIVALS_PER_SECOND} times a second")
        foreign = set(claims.inner) - set(site.inner)
        if foreign or not claims.inner:
            wanted = ", ".join(sorted(foreign)) or "no address"
            raise PeerFault(Refusal.ADDRESS, f"{identity} asks for {wanted}, which is not its own")
        guest.inner, guest.admitted_at = tuple(dict.fromkeys(claims.inner)), now
        guest.movable = MOVE in claims.features
        self._assign(peer, guest, site)
        self._admission.admit(peer)
        for other in self._standing_by(claims.inner):  # its worker has died; there is never more than one
            other.standby = False
            other.session.close()
            self._dirty[other] = None
        peer.standby = claims.standby and any(address in self._current for address in claims.inner)
        if not peer.standby:
            self._take_over(peer, now, in_order=False)
        peer.held = self._duty is Duty.STANDBY and guest.movable
        if self._moves is not None and guest.movable:
            self._moves.add(peer)
        peer.session.send_control(encode_control(Welcome(max(common), self._config.inner, FEATURES)))
        self._tell(Notice("site", f"{site.name} connected from {_text(guest.addr)}"))

    def _take_over(self, peer: Peer, now: float, *, in_order: bool) -> None:
        """The addresses of `peer` point to it; a connection that has none left may deliver for `DRAIN_TIME`.

        `in_order`: the site still hears the old one, so nothing is lost of what waits for it there.
        """
        guest = self._guests[peer]
        peer.standby = False
        self._routes.set(guest.allowed, peer)
        before = {self._current.pop(address) for address in guest.inner if address in self._current}
        self._current.update(dict.fromkeys(guest.inner, peer))
        for old in before:
            if not self._is_current(old):
                self._draining.append((now + DRAIN_TIME, old))
                self._guests[old].displaced = not in_order
                if in_order:
                    old.hand_over(peer)
                    self._dirty[old] = None
        if guest.site is not None:
            self._hurry(guest.site)

    def _hurry(self, site: SiteEntry) -> None:
        """A site that reconnects all the time has only so many connections draining."""
        draining = [peer for _, peer in self._draining if peer in self._guests and self._guests[peer].site == site]
        for peer in draining[:-MAX_OF_SITE]:
            peer.session.close()
            self._dirty[peer] = None

    def _on_fault(self, peer: Peer, fault: PeerFault, now: float) -> None:
        self._refuse(peer, fault.refusal, fault.text, now)

    def _refuse(self, peer: Peer, refusal: Refusal, text: str, now: float) -> None:
        """Count, say so once, close; the site is told why."""
        guest = self._guests[peer]
        if guest.refused:
            return
        guest.refused = True
        self._refusals[refusal] += 1
        if refusal is not Refusal.TIMEOUT or self._silence_lines.take(now):
            self._tell(Notice("refused", f"{_text(guest.addr)}: {refusal}: {one_line(text)}", "warning"))
        self._withdraw(peer, now)
        peer.session.close(f"{refusal}: {text}")
        self._dirty[peer] = None

    def _on_closed(self, peer: Peer, event: Closed, now: float) -> None:
        guest = self._guests[peer]
        if guest.site is not None and self._is_current(peer):
            self._tell(Notice("site", f"{guest.site.name} gone: {event.reason}"))
        self._withdraw(peer, now)
        if self._admission.lose(peer) and not guest.refused:
            self.drop(DropReason.HANDSHAKE)
        del self._guests[peer]
        self._has_moved(peer, now)

    def _withdraw(self, peer: Peer, now: float) -> None:
        """The entries of a connection die with it; they go over to one on standby, or the prefixes alone to another
        one of its site, if there is one."""
        guest = self._guests[peer]
        if guest.site is not None:
            site, was_current = guest.site, self._is_current(peer)
            guest.site, guest.allowed, peer.standby = None, (), False
            self._permit(peer, ())
            self._routes.remove(peer)
            self._current = {address: owner for address, owner in self._current.items() if owner is not peer}
            heir = next((p for p in self._current.values() if self._guests[p].site == site), None)
            if was_current and heir is not None:
                self._routes.set(parse_prefixes(site.prefixes), heir)
            for other in self._standing_by(guest.inner) if was_current else ():
                self._take_over(other, now, in_order=False)

    def _change_prefixes(self) -> None:
        """Connections go over to what is said of their sites now; a prefix may go from one site to another."""
        before = {guest.site.identity: guest.site for guest in self._guests.values() if guest.site is not None}
        changed = {identity: site for identity, site in before.items() if site != self._sites[identity]}
        for site in changed.values():
            self._routes.discard(parse_prefixes(site.prefixes))
        for peer, guest in self._guests.items():
            if guest.site is not None and guest.site.identity in changed:
                site = self._sites[guest.site.identity]
                self._assign(peer, guest, site)
                if self._is_current(peer):
                    self._routes.set(parse_prefixes(site.prefixes), peer)

    def _assign(self, peer: Peer, guest: _Guest, site: SiteEntry) -> None:
        """It is a connection of `site`, and may send from what is that one's."""
        guest.site, guest.allowed = site, parse_prefixes({*guest.inner, *site.prefixes})
        self._permit(peer, guest.allowed)

    def _standing_by(self, inner: tuple[str, ...]) -> list[Peer]:
        """Connections of a site's new worker that wait for its `Take`."""
        return [p for p, guest in self._guests.items() if p.standby and not set(inner).isdisjoint(guest.inner)]

    def _is_current(self, peer: Peer) -> bool:
        """Whether an address still points to it."""
        return any(self._current.get(address) is peer for address in self._guests[peer].inner)

    def _may_deliver(self, peer: Peer, packet: bytes) -> bool:
        allowed = self._guests[peer].allowed
        where = inner.addresses(packet)
        if not allowed:
            self.drop(DropReason.UNAUTHENTICATED)
        elif where is None:
            self.drop(DropReason.NOT_IP)
        elif not covers(allowed, where.source):
            self.drop(DropReason.SOURCE)
            self._on_foreign_source(peer, where.source)
        else:
            return True
        return False

    def _on_foreign_source(self, peer: Peer, source: bytes) -> None:
        site = self._guests[peer].site
        if site is not None and not self._source_told:
            self._source_told = True
            text = f"{site.name} sent from {ip_address(source)}, not its own; dropped"
            self._tell(Notice("source", text, "warning"))

    def _is_trusted(self, peer: Peer) -> bool:
        return self._guests[peer].site is not None

    def _on_route(self, prefix: Prefix, peer: Peer | None) -> None:
        if self.carrier is not None:
            self.carrier.route(prefix, peer)

    # ------------------------------------------------------------------ a planned restart

    def _begin_drain(self, now: float) -> None:
        self._moves = Moves((p for p, guest in self._guests.items() if guest.site is not None and guest.movable), now)

    def _begin_lead(self, now: float) -> None:
        self._moves = None

    def _has_moved(self, peer: Peer, now: float) -> None:
        if self._moves is not None:
            self._moves.expected.discard(peer)
            self._send_over(self._moves, now)

    def _send_over(self, moves: Moves, now: float) -> None:
        for peer in moves.due(now):
            if peer in self._peers:
                self._guests[peer].told = True
                peer.session.send_control(encode_control(Move()))
                peer.note_outbound(now)
                self._dirty[peer] = None
        if moves.over(now):
            self._moves = None
            self._stop_reading(now)

    def _peer_of(self, inner: tuple[str, ...]) -> Peer | None:
        return next((self._current[address] for address in inner if address in self._current), None)

    # ------------------------------------------------------------------ timers

    def _tick(self, now: float) -> None:
        if self._moves is not None:
            self._send_over(self._moves, now)
        self._datagrams += self._resets.due(now)
        for peer in self._admission.overdue(now):
            self._refuse(peer, Refusal.TIMEOUT, f"no Hello within {HELLO_TIME:.0f} s", now)
            if not peer.session.connected:
                self._remove(peer)
                del self._guests[peer]
        while self._draining and self._draining[0][0] <= now:
            until, peer = self._draining.popleft()
            if peer in self._peers:
                guest = self._guests[peer]
                twin = guest.displaced and guest.site is not None and peer.heard > until - DRAIN_TIME + TWIN_TIME
                peer.session.close(self._on_twin(guest.site, peer, now) if twin and guest.site else "")
                self._dirty[peer] = None

    def _on_twin(self, site: SiteEntry, peer: Peer, now: float) -> str:
        """Two hosts have one certificate: each takes over from the other. Say so, and have this one wait longer."""
        self._refusals[Refusal.TWIN] += 1
        others = sorted({_text(p.session.address) for p in self._current.values() if self._guests[p].site == site})
        text = f"{site.name} is connected from {', '.join(others)} too: two hosts with one certificate"
        if self._twin_lines.setdefault(site.identity, Budget(1 / TWIN_PAUSE, 1)).take(now):
            self._tell(Notice("twin", f"{_text(peer.session.address)}: {text}", "warning"))
        return f"{Refusal.TWIN}: {text}"

    def _next_tick(self) -> float | None:
        draining = self._draining[0][0] if self._draining else None
        moving = self._moves.deadline() if self._moves is not None else None
        times = (draining, self._admission.deadline(), moving, self._resets.deadline())
        return min((time for time in times if time is not None), default=None)


def _text(addr: Address) -> str:
    host, port = addr[0], addr[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
