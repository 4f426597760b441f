"""aioquic's QuicConnection with mpq's connection IDs, keys, congestion control and limits.

Every private name of aioquic that mpq relies on is used in this package only; `PRIVATE_NAMES` lists them, and a
test says which of them a new version of aioquic has changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from aioquic import tls
from aioquic.buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import (
    NetworkAddress,
    QuicConnection,
    QuicConnectionError,
    QuicConnectionId,
    QuicReceiveContext,
)
from aioquic.quic.packet import QuicErrorCode
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.recovery import QuicPacketSpace
from aioquic.quic.stream import QuicStream

from mpq_worker.quic.header import CID_LENGTH
from mpq_worker.quic.keys import KeyRing
from mpq_worker.quic.recovery import ALGORITHM, CongestionControl, Pacer, Recovery
from mpq_worker.quic.verify import verify_certificate

ACK_DELAY = (0.001, 0.004)
"""How long an acknowledgement may wait: a quarter of the smallest RTT within these bounds, well below the 25 ms that
we announce (RFC 9000 section 13.2.1)."""
MAX_CONTROL_DATA = 65_536
"""Bytes that the peer may ever send on the control stream, which carries one message; never renewed."""
MAX_GAPS = 16
"""Gaps in what we hold of a stream: the library's work per frame grows with them, and its peer chooses them."""

tls.verify_certificate = verify_certificate

PRIVATE_NAMES = (
    "_ack_delay",
    "_close_at",
    "_close_event",
    "_close_pending",
    "_crypto_streams",
    "_cryptos",
    "_datagrams_pending",
    "_handle_crypto_frame",
    "_handle_stream_frame",
    "_handshake_confirmed",
    "_host_cid_seq",
    "_host_cids",
    "_idle_timeout",
    "_initialize",
    "_local_initial_source_connection_id",
    "_local_max_streams_bidi",
    "_local_max_streams_uni",
    "_loss",
    "_loss._cc",
    "_loss._detect_loss",
    "_loss._pacer",
    "_loss._pto_count",
    "_loss._rtt_first_sample_time",
    "_loss._rtt_initial",
    "_loss._rtt_initialized",
    "_loss._rtt_latest",
    "_loss._rtt_min",
    "_loss._rtt_smoothed",
    "_loss._rtt_variance",
    "_loss._time_of_last_sent_ack_eliciting_packet",
    "_network_paths",
    "_original_destination_connection_id",
    "_packet_number",
    "_payload_received",
    "_peer_cid",
    "_remote_active_connection_id_limit",
    "_remote_initial_source_connection_id",
    "_replenish_connection_ids",
    "_retry_source_connection_id",
    "_send_probe",
    "_spaces",
    "_streams",
    "_write_connection_limits",
    "_write_stream_limits",
    "receiver._buffer",
    "receiver._ranges",
    "tls._supported_groups",
)
"""On a QuicConnection, on its recovery (`_loss`), on its TLS context (`tls`) and on the receiving part of a stream
(`receiver`); used, or overridden."""

ResetToken = Callable[[bytes], bytes]


class Connection(QuicConnection):
    """One connection. `slot` becomes the first byte of each connection ID we issue, so that the hub's kernel can
    pick the worker by it; on a client it also leads the destination ID of the first Initial. `largest` is the largest
    UDP payload, also of the native loop."""

    def __init__(
        self,
        configuration: QuicConfiguration,
        *,
        slot: int,
        largest: int,
        max_window: int,
        reset_token: ResetToken | None = None,
        original_destination_connection_id: bytes | None = None,
        retry_source_connection_id: bytes | None = None,
    ) -> None:
        super().__init__(
            configuration=configuration,
            original_destination_connection_id=original_destination_connection_id,
            retry_source_connection_id=retry_source_connection_id,
        )
        self._slot = slot
        self._reset_token = reset_token
        self.ring = KeyRing()
        self._host_cids = [self._issue(0)]
        self._host_cids[0].was_sent = True
        self.host_cid = self._host_cids[0].cid
        self._local_initial_source_connection_id = self.host_cid
        # The peer has one use for streams: the control stream, which the client opens.
        self._local_max_streams_bidi.value = self._local_max_streams_bidi.sent = 0 if self._is_client else 1
        self._local_max_streams_uni.value = self._local_max_streams_uni.sent = 0
        self._ack_delay = ACK_DELAY[1]
        if self._is_client:
            self._peer_cid.cid = bytes((slot,)) + self._peer_cid.cid[1:]
            self._original_destination_connection_id = self._peer_cid.cid
        self.recovery = self._loss = Recovery(
            congestion_control_algorithm=ALGORITHM,
            initial_rtt=configuration.initial_rtt,
            max_datagram_size=configuration.max_datagram_size,
            peer_completed_address_validation=not configuration.is_client,
            send_probe=self._send_probe,
        )
        control = self._loss._cc
        assert isinstance(control, CongestionControl)
        control.limit(largest, max_window)
        self._loss._pacer = Pacer(control, configuration.max_datagram_size)
        self.control = self.recovery.control = control

    def _issue(self, sequence_number: int) -> QuicConnectionId:
        cid = bytes((self._slot,)) + os.urandom(CID_LENGTH - 1)
        token: bytes | None = self._reset_token(cid) if self._reset_token else os.urandom(16)
        if self._is_client and sequence_number == 0:
            token = None  # a client has none in its transport parameters (RFC 9000 section 18.2)
        return QuicConnectionId(
            cid=cid,
            sequence_number=sequence_number,
            stateless_reset_token=token,  # type: ignore[arg-type]  # aioquic itself passes None here
        )

    def _replenish_connection_ids(self) -> None:
        while len(self._host_cids) < min(8, self._remote_active_connection_id_limit):
            self._host_cids.append(self._issue(self._host_cid_seq))
            self._host_cid_seq += 1

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls._supported_groups = [tls.Group.X25519, tls.Group.SECP256R1]
        self._cryptos[tls.Epoch.ONE_RTT] = self.ring

    def is_elsewhere(self, addr: object) -> bool:
        """Whether `addr` is not where this connection is now. A handshake does not move (RFC 9000 section 9)."""
        return bool(self._network_paths) and self._network_paths[0].addr != addr

    def release(self) -> None:
        """The library's objects refer to each other in circles; without this a dead connection stays in memory
        until the collector comes by, and a flood of them is faster."""
        vars(self).clear()

    def datagrams_to_send(self, now: float) -> list[tuple[bytes, NetworkAddress]]:
        """The library says goodbye also beyond the limit for an address that is not proven (RFC 9000 section 8.1)."""
        path, closing = self._network_paths[0], self._close_pending
        room = 3 * path.bytes_received - path.bytes_sent
        datagrams = super().datagrams_to_send(now)
        excess = closing and not path.is_validated and sum(len(data) for data, _ in datagrams) > room
        return [] if excess else datagrams

    def _payload_received(
        self, context: QuicReceiveContext, plain: bytes, crypto_frame_required: bool = False
    ) -> tuple[bool, bool]:
        """The library follows a client to a new address at once and then asks whether it is there. Here it goes on
        with the old one until the new one has answered (RFC 9000 section 9.3): to the library, what comes from an
        address that is not proven is a probing packet, which moves nothing but is challenged."""
        is_ack_eliciting, is_probing = super()._payload_received(context, plain, crypto_frame_required)
        path = context.network_path
        if self._is_client or path.is_validated or path is self._network_paths[0]:
            return is_ack_eliciting, is_probing
        if path.validation_deadline is None or context.time >= path.validation_deadline:
            path.local_challenge_sent = False  # it was lost, and the library sends one only
            pause = self._loss.get_probe_timeout() * 2 ** len(path.local_challenges)
            path.validation_deadline = context.time + pause
        return is_ack_eliciting, True

    def _handle_crypto_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_crypto_frame(context, frame_type, buf)
        self._hold_to_bounds(self._crypto_streams[context.epoch], frame_type)

    def _handle_stream_frame(self, context: QuicReceiveContext, frame_type: int, buf: Buffer) -> None:
        super()._handle_stream_frame(context, frame_type, buf)
        for stream in self._streams.values():
            self._hold_to_bounds(stream, frame_type)

    def _hold_to_bounds(self, stream: QuicStream, frame_type: int) -> None:
        receiver = stream.receiver
        if len(receiver._ranges) > MAX_GAPS or len(receiver._buffer) > MAX_CONTROL_DATA:
            raise QuicConnectionError(QuicErrorCode.PROTOCOL_VIOLATION, frame_type, "stream in too many pieces")

    def _write_connection_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace) -> None:
        """The library doubles its limits as they fill, also with data it cannot deliver yet; ours stay."""

    def _write_stream_limits(self, builder: QuicPacketBuilder, space: QuicPacketSpace, stream: QuicStream) -> None:
        """As above."""

    def adapt_ack_delay(self) -> None:
        """On a short path a sender must not spend most of a round trip waiting for our acknowledgement."""
        if self._loss._rtt_initialized:
            self._ack_delay = min(max(self.least_rtt() / 4, ACK_DELAY[0]), ACK_DELAY[1])

    def least_rtt(self) -> float:
        """Seconds; 0 before it is measured."""
        return self._loss._rtt_min if self._loss._rtt_initialized else 0.0

    def host_cid_list(self) -> list[bytes]:
        """The connection IDs under which packets for this connection may arrive: on a hub also the one that the
        site chose, or we in a Retry, lest a first packet that comes again, late, begin another connection."""
        chosen = (
            () if self._is_client else (self._retry_source_connection_id or self._original_destination_connection_id,)
        )
        return [*(cid.cid for cid in self._host_cids), *chosen]

    def peer_token(self) -> bytes:
        """The stateless reset token by which the peer may end this connection: that of the connection ID in use
        and no other (RFC 9000 section 10.3.1). Empty if there is none."""
        return self._peer_cid.stateless_reset_token or b""

    def channel_binding(self) -> bytes:
        """32 bytes that both ends share and no other connection has; valid until the first key update."""
        secrets = [self.ring.send.secret, self.ring.recv.secret]
        if not self._is_client:
            secrets.reverse()
        client, server = secrets
        assert client is not None
        assert server is not None
        return hashlib.sha256(b"mpq/1 channel binding\x00" + client + server).digest()
