"""How a session begins: a site's by connecting, a hub's by a first packet that it accepts. Sans-IO."""

from __future__ import annotations

from functools import partial

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicProtocolVersion
from aioquic.tls import CipherSuite, load_pem_x509_certificates

from mpq_worker.contract import Credentials, Timing, Transport
from mpq_worker.quic.connection import MAX_CONTROL_DATA, Connection
from mpq_worker.quic.header import CID_LENGTH, stateless_reset_token
from mpq_worker.quic.recovery import ALGORITHM
from mpq_worker.quic.session import Address, Session
from mpq_worker.quic.signer import RemoteKey
from mpq_worker.wire import ALPN, DATAGRAM_OVERHEAD

SMALLEST_DATAGRAM = 1200
"""What every path of QUIC carries (RFC 9000 section 14): enough for aioquic where the native loop has the TUN's."""


def client_session(
    *,
    hub_name: str,
    hub_address: Address,
    slot: int,
    credentials: Credentials,
    timing: Timing,
    transport: Transport,
    now: float,
) -> Session:
    """A connection from a site to `hub_address`, whose certificate must carry `hub_name` and come from our CA."""
    configuration = _configuration(credentials, timing, transport, is_client=True)
    configuration.server_name = hub_name
    connection = Connection(configuration, slot=slot, largest=_largest(transport), max_window=transport.max_window)
    session = Session(connection, transport)
    connection.connect(hub_address, now=now)
    return session


class SessionFactory:
    """Makes a hub's connections; the certificate is parsed once."""

    def __init__(
        self, *, slot: int, credentials: Credentials, reset_key: bytes, timing: Timing, transport: Transport
    ) -> None:
        self._slot = slot
        self._transport = transport
        self._reset_token = partial(stateless_reset_token, reset_key)
        self._configuration = _configuration(credentials, timing, transport, is_client=False)
        chain = load_pem_x509_certificates(credentials.certificate.encode())
        self._configuration.certificate, self._configuration.certificate_chain = chain[0], chain[1:]
        self._configuration.private_key = RemoteKey()

    def accept(self, original_destination_cid: bytes, retry_cid: bytes | None = None) -> Session:
        """A connection for a peer whose first Initial went to `original_destination_cid`, and, if a Retry sent it
        there, the next one to `retry_cid`."""
        connection = Connection(
            self._configuration,
            slot=self._slot,
            largest=_largest(self._transport),
            max_window=self._transport.max_window,
            reset_token=self._reset_token,
            original_destination_connection_id=original_destination_cid,
            retry_source_connection_id=retry_cid,
        )
        return Session(connection, self._transport)


def _largest(transport: Transport) -> int:
    return transport.inner_mtu + DATAGRAM_OVERHEAD


def _configuration(
    credentials: Credentials, timing: Timing, transport: Transport, *, is_client: bool
) -> QuicConfiguration:
    return QuicConfiguration(
        alpn_protocols=[ALPN],
        cipher_suites=[CipherSuite.AES_128_GCM_SHA256, CipherSuite.CHACHA20_POLY1305_SHA256],
        congestion_control_algorithm=ALGORITHM,
        connection_id_length=CID_LENGTH,
        idle_timeout=timing.idle_timeout,
        is_client=is_client,
        max_data=MAX_CONTROL_DATA,
        max_stream_data=MAX_CONTROL_DATA,
        max_datagram_frame_size=65_535,
        max_datagram_size=SMALLEST_DATAGRAM if transport.native else _largest(transport),
        supported_versions=[QuicProtocolVersion.VERSION_1],
        cadata=credentials.ca.encode(),
    )
