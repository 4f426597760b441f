"""One QUIC connection as the tunnel core sees it (RFC 9000, 9001, 9002, 9221). Sans-IO.

    handle_datagram, handle_timer, handle_signature   in
    poll_event, poll_transmit, poll_timeout           out

Together with its siblings in this package it is all that knows aioquic. DATAGRAM payloads go in by `send_datagram`
and come out as `Datagram` events, until `go_native` hands them to the native loop; then only those come out here that
shared a packet with frames of aioquic's.
"""

from __future__ import annotations

import hmac
import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from aioquic.quic import events as quic
from aioquic.tls import AlertDescription, Epoch
from greenlet import greenlet

from mpq_worker._datapath import Datapath, Path
from mpq_worker.contract import QueueLimits, Transport
from mpq_worker.errors import DropReason
from mpq_worker.quic.connection import Connection
from mpq_worker.quic.native import NativeSpace
from mpq_worker.quic.signer import SignatureRefused
from mpq_worker.wire import CONTROL_STREAM, DATAGRAM_OVERHEAD, one_line

Address = Any
"""Opaque to the connection: whatever the driver's socket gives and takes."""

HELD_WHILE_SIGNING = 16
SIGNING_TIMEOUT = 5.0
APPLICATION_ERROR = 0x100
CRYPTO_ERROR = 0x100
"""QUIC transport codes 0x100-0x1ff are TLS alerts (RFC 9001 section 4.8)."""

# The library logs what peers do wrong, at their rate; we count it instead.
logging.getLogger("quic").setLevel(logging.CRITICAL)


class Connected(NamedTuple):
    """The handshake is complete; `binding` ties what follows to this connection."""

    binding: bytes


class Datagram(NamedTuple):
    payload: bytes


class ControlData(NamedTuple):
    data: bytes


class SignNeeded(NamedTuple):
    """Give the supervisor's signature over `data` to `handle_signature`."""

    data: bytes


class Closed(NamedTuple):
    """The connection is over. `refused` if the peer closed it with an application error."""

    reason: str
    refused: bool
    clock: bool


SessionEvent = Connected | Datagram | ControlData | SignNeeded | Closed


class Session:
    """See the module's text. `cids_changed` asks the owner to look at `cids` again."""

    def __init__(self, connection: Connection, transport: Transport) -> None:
        self._connection = connection
        self._transport = transport
        self._events: deque[SessionEvent] = deque()
        self._signing: greenlet | None = None
        self._signing_until = 0.0
        self._held: deque[tuple[bytes, Address]] = deque()
        self._pending_bytes = 0
        self._native: NativeSpace | None = None
        self._remote: Callable[[Address], bytes] = bytes
        self._stirred = True  # aioquic may have something to send
        self.connected = False
        self.closed = False
        self.cids_changed = True

    # ------------------------------------------------------------------ in

    def handle_datagram(self, data: bytes, addr: Address, now: float) -> DropReason | None:
        """A UDP payload for this connection. Returns why it was dropped, if it was."""
        if self.closed:
            return None
        if not self.connected and self._connection.is_elsewhere(addr):
            return DropReason.PATH
        if self._signing is not None:
            if len(self._held) == HELD_WHILE_SIGNING:
                return DropReason.SIGNING
            self._held.append((data, addr))
            return None
        dropped = None
        ring = self._connection.ring
        ring.now = now
        opened = ring.opened
        if self._native is not None:
            self._native.before(now)
        if self.connected:
            self._guarded(self._connection.receive_datagram, data, addr, now)
            if ring.opened == opened and not self.closed:
                if self._is_reset(data):
                    self._finish(Closed("the hub does not know this connection", False, False))
                else:
                    dropped = DropReason.UNOPENED
        else:
            self._resume(greenlet(partial(self._guarded, self._connection.receive_datagram)), now, data, addr, now)
        if self._native is not None and not self.closed:
            self._native.after(now)
            self._native.set_peer(self._remote(self.address))
        self._stirred = True
        self._collect()
        return dropped

    def go_native(
        self, datapath: Datapath, queue: QueueLimits, remote: Callable[[Address], bytes], now: float
    ) -> Path:
        """Hand the 1-RTT packets over to the native loop, once connected; `remote` packs an address for it."""
        self._native = NativeSpace(self._connection, datapath, queue, self._transport.inner_mtu, now)
        self._remote = remote
        self._native.set_peer(remote(self.address))
        return self._native.path

    def handle_native(self, events: int, now: float) -> None:
        """What the native loop says of this connection."""
        assert self._native is not None
        ring = self._connection.ring
        ring.now, ring.pto = now, self._connection.recovery.get_probe_timeout()
        self._native.handle(events, now)
        self._update_key()

    def handle_signature(self, signature: bytes, now: float) -> None:
        """The answer to `SignNeeded`; an empty one ends the connection."""
        if self._signing is None:
            return
        handshake, self._signing = self._signing, None
        self._resume(handshake, now, signature)
        self._collect()
        held = list(self._held)
        self._held.clear()
        for data, addr in held:
            self.handle_datagram(data, addr, now)

    def handle_timer(self, now: float) -> None:
        """Call when `poll_timeout` has passed."""
        if self._signing is not None:
            if now >= self._signing_until:
                self.handle_signature(b"", now)
            return
        ring = self._connection.ring
        ring.now = now
        deadline = self.poll_timeout()
        if deadline is not None and now >= deadline:
            self._stirred = True
            self._guarded(self._connection.handle_timer, now)
            if self._native is not None and not self.closed:
                self._native.configure()  # what is lost by time
            self._collect()

    def send_control(self, data: bytes) -> None:
        """Append to the control stream."""
        self._stirred = True
        self._connection.send_stream_data(CONTROL_STREAM, data)

    def can_send(self, size: int) -> bool:
        """Whether the congestion window has room for a datagram of `size` bytes now."""
        control = self._connection.control
        room = control.model.window - control.bytes_in_flight - self._pending_bytes
        return room >= size + DATAGRAM_OVERHEAD

    def send_datagram(self, payload: bytes) -> None:
        """Queue one DATAGRAM frame. The caller has checked its size against the inner MTU and asked `can_send`."""
        if self._native is not None:
            self._native.path.send_message(payload)
            return
        self._pending_bytes += len(payload) + DATAGRAM_OVERHEAD
        self._stirred = True
        self._connection.send_datagram_frame(payload)

    def probe(self) -> None:
        """Send a PING at once, whatever the window says (RFC 9002 section 6.2.4)."""
        self._stirred = True
        self._connection._send_probe()

    def migrate(self) -> None:
        """Our address changed: take an unused connection ID of the peer (RFC 9000 section 9.5) and probe."""
        self._connection.change_connection_id()
        self.probe()

    def close(self, reason: str = "") -> None:
        """Close; a `reason` makes it a refusal that the peer is told."""
        if self._signing is not None:
            # a greenlet left waiting would hold the connection in memory for ever
            handshake, self._signing = self._signing, None
            handshake.throw(SignatureRefused(reason or "closed"))
        else:
            code = APPLICATION_ERROR if reason else 0
            self._stirred = True
            self._connection.close(error_code=code, reason_phrase=one_line(reason))

    def release(self) -> None:
        """The last call: nothing is in or out any more."""
        self.closed = True
        self._connection.release()

    # ------------------------------------------------------------------ out

    def poll_event(self) -> SessionEvent | None:
        return self._events.popleft() if self._events else None

    def poll_transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """UDP payloads to send, with their destination."""
        if self._signing is not None or self.closed:
            return []
        if self._native is not None:
            if not self._stirred:
                return []
            self._native.next_number()
        self._stirred = False
        ring = self._connection.ring
        ring.now, ring.pto = now, self._connection.recovery.get_probe_timeout()
        self._update_key()
        datagrams: list[tuple[bytes, Address]] = []
        self._connection.adapt_ack_delay()
        self._guarded(lambda: datagrams.extend(self._connection.datagrams_to_send(now)))
        if self._native is not None:
            self._native.entered(now)
            self._native.set_peer(self._remote(self.address))
        if self._pending_bytes:
            self._pending_bytes = sum(
                len(payload) + DATAGRAM_OVERHEAD for payload in self._connection._datagrams_pending
            )
        self._collect()
        return datagrams

    def poll_timeout(self) -> float | None:
        """When to call `handle_timer`."""
        if self._signing is not None:
            return self._signing_until
        if self.closed or self._connection._close_at is None:
            return None
        if self._native is not None:
            self._native.refresh_idle_timer()
        timer: float | None = self._connection.get_timer()
        return timer

    def may_wait_until(self) -> float | None:
        """When the acknowledgement of what came is due, if that is all there is to send; None to transmit now.

        Whatever else a packet may have brought up then leaves with it, at most ACK_DELAY later.
        """
        connection = self._connection
        if not self.connected or self.closed or connection._datagrams_pending or connection._close_pending:
            return None
        due: float | None = connection._spaces[Epoch.ONE_RTT].ack_at
        return due

    # ------------------------------------------------------------------ state

    @property
    def cids(self) -> list[bytes]:
        return self._connection.host_cid_list()

    @property
    def cid(self) -> bytes:
        """Our connection ID that the peer's last packets went to."""
        return self._connection.host_cid

    @property
    def started(self) -> bool:
        """Whether the peer has sent one packet that opens; a hub forgets what never did."""
        return self._connection._remote_initial_source_connection_id is not None

    @property
    def opened(self) -> int:
        """The highest number of a 1-RTT packet that opened, -1 if none did: proof of a living peer when it grows,
        which a replayed packet cannot bring about."""
        if self._native is not None:
            return self._native.path.largest_received
        return self._connection.ring.largest

    @property
    def address(self) -> Address:
        """Where the peer is now: the path in use (RFC 9000 section 9)."""
        return self._connection._network_paths[0].addr

    @property
    def backlog(self) -> int:
        """Datagrams given to the connection that the pacer has not let go yet."""
        return len(self._connection._datagrams_pending)

    def rtt(self) -> tuple[float, float] | None:
        """Smoothed and minimum RTT in seconds, once measured."""
        loss = self._connection._loss
        return (loss._rtt_smoothed, loss._rtt_min) if loss._rtt_initialized else None

    def counters(self) -> dict[str, int]:
        """Totals of this connection: window, in_flight, sent, acked, lost, received, expected, key_updates;
        and datagram_size, the largest UDP payload it sends."""
        control, ring = self._connection.control, self._connection.ring
        received, first, largest, size = ring.opened, ring.first, ring.largest, control.datagram_size
        sent = self._connection._packet_number
        if self._native is not None:
            path = self._native.path
            received += path.opened
            largest, sent = path.largest_received, path.next_number
            size = path.inner_mtu + DATAGRAM_OVERHEAD
            first = path.first_received if first is None else first
        return {
            "window": control.model.window,
            "in_flight": control.bytes_in_flight,
            "sent": sent,
            "acked": control.acked,
            "lost": control.lost,
            "received": received,
            "expected": 0 if first is None or first < 0 else largest - first + 1,
            "key_updates": ring.updates,
            "datagram_size": size,
        }

    # ------------------------------------------------------------------ helpers

    def _update_key(self) -> None:
        ring, connection = self._connection.ring, self._connection
        due = ring.sealed >= self._transport.key_update_packets and connection._handshake_confirmed
        if due and ring.may_update(connection.recovery.spaces[-1].largest_acked_packet):
            ring.update_key()

    def _resume(self, handshake: greenlet, now: float, *args: Any) -> None:
        """Run the handshake until it ends or wants a signature."""
        data = handshake.switch(*args)
        if not handshake.dead:
            self._signing, self._signing_until = handshake, now + SIGNING_TIMEOUT
            self._events.append(SignNeeded(data))

    def _guarded(self, call: Callable[..., None], *args: Any) -> None:
        """Whatever a hostile byte does inside the library ends this connection, not the worker."""
        try:
            call(*args)
        except SignatureRefused as error:
            self._finish(Closed(str(error), False, False))
        except Exception as error:  # noqa: BLE001 - the library met input it did not foresee
            self._finish(Closed(f"protocol error: {type(error).__name__}: {error}", False, False))

    def _is_reset(self, data: bytes) -> bool:
        return len(data) >= 21 and hmac.compare_digest(data[-16:], self._connection.peer_token())

    def _collect(self) -> None:
        while not self.closed and (event := self._connection.next_event()) is not None:
            if isinstance(event, quic.DatagramFrameReceived):
                self._events.append(Datagram(event.data))
            elif isinstance(event, quic.StreamDataReceived):
                if event.stream_id == CONTROL_STREAM:
                    self._events.append(ControlData(event.data))
            elif isinstance(event, quic.HandshakeCompleted):
                self.connected = True
                self._events.append(Connected(self._connection.channel_binding()))
            elif isinstance(event, quic.ConnectionIdIssued | quic.ConnectionIdRetired):
                self.cids_changed = True
            elif isinstance(event, quic.ConnectionTerminated):
                self._finish(self._closed(event))
        # The library reports the end only after the draining period; we know it as soon as the frame came or left.
        ending = self._connection._close_event
        if ending is not None and not self._connection._close_pending:
            self._finish(self._closed(ending))

    def _closed(self, event: quic.ConnectionTerminated) -> Closed:
        application = event.frame_type is None and event.error_code >= APPLICATION_ERROR
        alert = event.error_code - CRYPTO_ERROR
        expired = not application and alert == AlertDescription.certificate_expired
        return Closed(
            event.reason_phrase
            or (f"closed with code {event.error_code:#x}" if event.error_code else "the other end stopped"),
            refused=application,
            clock=expired and "not valid yet" in event.reason_phrase,
        )

    def _finish(self, event: Closed) -> None:
        if not self.closed:
            self.closed = True
            self._events.append(event._replace(reason=one_line(event.reason)))
