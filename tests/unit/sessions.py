"""A site's session and a hub's, joined by a wire without delay, in virtual time."""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from mpq_supervisor import pki
from mpq_worker.contract import Credentials, Timing, Transport
from mpq_worker.quic.establish import SessionFactory, client_session
from mpq_worker.quic.header import parse_header
from mpq_worker.quic.session import (
    Address,
    Session,
    SessionEvent,
    SignNeeded,
)

HUB: Address = ("198.51.100.2", 45011)
SITE: Address = ("100.64.5.2", 46011)
RESET_KEY = b"k" * 32
SLOT = 5


class Pair:
    """`exchange` carries everything both have to say; `events` keeps what they reported.

    `filter` sees each datagram (True: from the site) and says whether it arrives.
    """

    def __init__(self, *, transport: Transport | None = None, hub_name: str = "hub.test") -> None:
        self.now = 100.0
        self.signs = True
        self.filter: Callable[[bytes, bool], bool] = lambda data, from_site: True
        transport = transport or Transport()
        authority = pki.issue_authority()
        hub = pki.issue_hub(authority, "hub.test")
        credentials = Credentials(authority.certificate_pem.decode(), hub.certificate_pem.decode())
        self._key = hub.key
        self.site = client_session(
            hub_name=hub_name,
            hub_address=HUB,
            slot=SLOT,
            credentials=credentials,
            timing=Timing(),
            transport=transport,
            now=self.now,
        )
        factory = SessionFactory(
            slot=SLOT, credentials=credentials, reset_key=RESET_KEY, timing=Timing(), transport=transport
        )
        self.first_flight = self.site.poll_transmit(self.now)
        header = parse_header(self.first_flight[0][0])
        assert header is not None
        assert header.is_initial
        self.initial = header
        self.hub = factory.accept(header.destination_cid)
        self.events: dict[Session, list[SessionEvent]] = {self.site: [], self.hub: []}
        for data, _ in self.first_flight:
            self.hub.handle_datagram(data, SITE, self.now)

    def exchange(self, seconds: float = 0.0) -> None:
        """Run until nothing moves, then through `seconds` in steps of the sessions' timers."""
        end = self.now + seconds
        while True:
            while self._move():
                pass
            deadlines = [t for t in (self.site.poll_timeout(), self.hub.poll_timeout()) if t is not None]
            if not deadlines or min(deadlines) > end:
                self.now = end
                return
            self.now = max(self.now, min(deadlines)) + 1e-6
            for session in (self.site, self.hub):
                deadline = session.poll_timeout()
                if deadline is not None and deadline <= self.now:
                    session.handle_timer(self.now)

    def connect(self) -> None:
        self.exchange(0.5)
        assert self.site.connected
        assert self.hub.connected

    def sign(self, data: bytes) -> bytes:
        """What the supervisor would answer."""
        return self._key.sign(data, ec.ECDSA(hashes.SHA256()))

    def _move(self) -> bool:
        moved = False
        for source, target, address in ((self.site, self.hub, SITE), (self.hub, self.site, HUB)):
            for data, _ in source.poll_transmit(self.now):
                moved = True
                if self.filter(data, source is self.site):
                    target.handle_datagram(data, address, self.now)
        for session, seen in self.events.items():
            while (event := session.poll_event()) is not None:
                seen.append(event)
                if isinstance(event, SignNeeded) and self.signs:
                    session.handle_signature(self.sign(event.data), self.now)
                    moved = True
        return moved


def forge(session: Session, payload: bytes) -> bytes:
    """A good 1-RTT packet of `session` with any frames in it: what a hostile peer may send."""
    connection = session._connection
    if session._native is not None:
        session._native.next_number()
    number, connection._packet_number = connection._packet_number, connection._packet_number + 1
    first = 0x41 | connection.ring.key_phase << 2
    header = bytes((first,)) + connection._peer_cid.cid + (number & 0xFFFF).to_bytes(2, "big")
    if session._native is not None:
        session._native.entered(0.0)
    return connection.ring.encrypt_packet(header, payload.ljust(4, b"\x00"), number)
