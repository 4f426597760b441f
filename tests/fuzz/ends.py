"""Both ends of a tunnel in the middle of their life, without the handshake that leads there: quick to make anew, and
the same each time, so that an input means the same in every run.
"""

from __future__ import annotations

from typing import cast

from aioquic.buffer import Buffer
from aioquic.quic.connection import QuicConnectionState, QuicNetworkPath
from aioquic.quic.packet import QuicProtocolVersion, QuicTransportParameters, push_quic_transport_parameters
from aioquic.tls import CipherSuite, Epoch
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
from cryptography.hazmat.primitives.hashes import SHA256

from mpq_worker.contract import ConfigureHub, ConfigureSite, FromWorker
from mpq_worker.endpoint import Endpoint
from mpq_worker.hub import HubTunnel, _Guest
from mpq_worker.peer import Peer
from mpq_worker.quic.keys import KeyRing
from mpq_worker.quic.session import Session
from mpq_worker.routes import parse_prefixes
from mpq_worker.tunnel import SiteTunnel
from mpq_worker.wire import CONTEXT_PROBE_REPLY, VERSIONS, ControlReader, Welcome, encode_probe
from tests.sim.conftest import HUB_ADDRESS, HUB_INNER, SITE_INNER, World

NOW = 1000.0
SITE_ADDRESS = ("100.64.5.2", 46011, b"")
STRANGER = ("192.0.2.99", 999, b"")
_SUITE = CipherSuite.AES_128_GCM_SHA256
_SECRETS = {"site": b"s" * 32, "hub": b"h" * 32}


WORLD = World()
WORLD.net.now = NOW
WORLD.entry("ship1", SITE_INNER)
_HUB = cast(ConfigureHub, WORLD.add_hub().core._config)
_SITE = cast(ConfigureSite, WORLD.add_site().core._config)
CREDENTIALS = _HUB.credentials
KEY_PEM = WORLD.hub_credential.key_pem


def hub() -> HubTunnel:
    """A hub's core that has no connection."""
    core = HubTunnel(_HUB, NOW, lambda: WORLD.wall)
    quiet(core)
    return core


def hub_of_one() -> tuple[HubTunnel, Peer]:
    """A hub's core with the connection of ship1, as if it had just been admitted."""
    core = hub()
    session = core._factory.accept(b"\x05" + b"o" * 7)
    establish(session, "hub")
    peer = Peer(session, core._queue, core._transport, NOW)
    (site,) = core._sites.values()
    guest = _Guest(SITE_ADDRESS, ControlReader(), bytes(32), site, site.inner, parse_prefixes(site.inner), NOW)
    core._guests[peer] = guest
    adopt(core, peer)
    core._permit(peer, guest.allowed)
    core._add(peer)
    core._take_over(peer, NOW, in_order=False)
    quiet(core)
    return core, peer


def stranger() -> tuple[HubTunnel, Peer]:
    """A hub's core with the connection of somebody who has not said Hello."""
    core, peer = hub_of_one()
    core._withdraw(peer, NOW)
    return core, peer


def site() -> tuple[SiteTunnel, Peer]:
    """A site's core, Ready."""
    core = SiteTunnel(_SITE, NOW)
    core.handle_timer(NOW)
    (peer,) = core._peers
    establish(peer.session, "site")
    adopt(core, peer)
    core._permit(peer, None)
    core._index(peer)
    core._on_message(peer, Welcome(VERSIONS[0], (HUB_INNER,)), NOW)
    core._datagram(peer, encode_probe(CONTEXT_PROBE_REPLY, peer.probes.send(NOW), 0), NOW)
    quiet(core)
    return core, peer


def unanswered_site() -> SiteTunnel:
    """A site's core that has begun to connect."""
    core = SiteTunnel(_SITE, NOW)
    core.handle_timer(NOW)
    return core


def sign(data: bytes) -> bytes:
    """What the hub's supervisor answers."""
    return WORLD.hub_credential.key.sign(data, ECDSA(SHA256()))


def establish(session: Session, role: str) -> None:
    """`session` as it is after the handshake, with secrets that everybody knows."""
    connection = session._connection
    other, addr = ("site", SITE_ADDRESS) if role == "hub" else ("hub", HUB_ADDRESS)
    connection._network_paths = [QuicNetworkPath(addr, is_validated=True)]
    connection._version = QuicProtocolVersion.VERSION_1
    connection._initialize(b"\x05" + b"i" * 7)
    connection._state = QuicConnectionState.CONNECTED
    connection._peer_cid.cid = b"\x05" + role.encode().ljust(7, b"-")
    connection._peer_cid.sequence_number = 0
    connection._remote_initial_source_connection_id = connection._peer_cid.cid
    connection._discard_epoch(Epoch.INITIAL)
    connection._discard_epoch(Epoch.HANDSHAKE)
    ring = connection.ring
    ring.send.setup(cipher_suite=_SUITE, secret=_SECRETS[role], version=QuicProtocolVersion.VERSION_1)
    ring.recv.setup(cipher_suite=_SUITE, secret=_SECRETS[other], version=QuicProtocolVersion.VERSION_1)
    parameters = QuicTransportParameters(
        initial_source_connection_id=connection._peer_cid.cid,
        original_destination_connection_id=connection._original_destination_connection_id if role == "site" else None,
        initial_max_data=65_536,
        initial_max_stream_data_bidi_local=65_536,
        initial_max_stream_data_bidi_remote=65_536,
        initial_max_streams_bidi=1,
        max_datagram_frame_size=65_535,
        active_connection_id_limit=8,
    )
    buffer = Buffer(capacity=512)
    push_quic_transport_parameters(buffer, parameters)
    connection._parse_transport_parameters(buffer.data)
    connection._handshake_complete = connection._handshake_confirmed = True
    connection._loss.peer_completed_address_validation = True
    connection._close_at = NOW + 30.0
    session.connected = True


def adopt(core: Endpoint, peer: Peer) -> None:
    """What follows a handshake."""
    assert core.carrier is not None
    core.carrier.adopt(peer, NOW)
    peer.session.cids_changed = True


def drops(core: Endpoint) -> int:
    """Packets that the core and its native loop have dropped."""
    return sum(core.report(NOW).drops.values())


def seal(session: Session, role: str, payload: bytes, number: int) -> bytes:
    """The other end's packet with these frames in it."""
    other = "site" if role == "hub" else "hub"
    ring = KeyRing()
    ring.send.setup(cipher_suite=_SUITE, secret=_SECRETS[other], version=QuicProtocolVersion.VERSION_1)
    header = b"\x41" + session._connection.host_cid + number.to_bytes(2, "big")
    return ring.encrypt_packet(header, payload.ljust(4, b"\x00"), number)


def quiet(core: Endpoint, now: float = NOW) -> list[FromWorker]:
    """Everything the core has to say, taken away; its messages."""
    core.poll_transmit(now)
    while core.poll_packet() is not None:
        pass
    return messages_of(core)


def messages_of(core: Endpoint) -> list[FromWorker]:
    """Its messages alone, taken away."""
    messages: list[FromWorker] = []
    while (message := core.poll_message()) is not None:
        messages.append(message)
    return messages
