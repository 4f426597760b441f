"""The contract over one SOCK_SEQPACKET descriptor: a message per packet, descriptors beside it as SCM_RIGHTS.

A channel never blocks. A full buffer makes `send` answer False and is counted; what the loss of a message
means is the sender's business (a heartbeat is simply missed, a configuration is sent again or the worker is
killed). The kernel bounds the queue: SO_SNDBUF, about 400 kB. A message that the contract does not have is a later
release's, and skipped.

    send(msg, fds) ─▶ MessagePack + SCM_RIGHTS ─▶ receive() ─▶ (msg, fds) | None; ChannelClosed at EOF
"""

from __future__ import annotations

import os
import socket
from array import array
from collections.abc import Sequence
from typing import Any, Generic, TypeVar, get_args

import msgspec

from mpq_worker import contract
from mpq_worker.errors import MpqError

_DESCRIPTORS: dict[type, int] = {
    contract.Fork: 1,
    contract.Forked: 1,
    contract.ConfigureSite: 2,
    contract.ConfigureHub: 2,
    contract.Rebind: 1,
}
"""How many descriptors travel with a message; the others bring none."""

SKIPPED_AT_ONCE = 32
"""Messages of a later release that one call passes over; whoever says nothing else is no neighbour."""

_FD_SIZE = array("i").itemsize
_encoder = msgspec.msgpack.Encoder()


class _Type(msgspec.Struct, frozen=True):
    """The tag of any message, of whatever release."""

    type: str


_type_decoder = msgspec.msgpack.Decoder(_Type)
_UNIONS = (contract.ToZygote, contract.FromZygote, contract.ToWorker, contract.FromWorker)
_KNOWN = frozenset(kind.__name__ for union in _UNIONS for kind in get_args(union))
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)

Incoming = TypeVar("Incoming")


class ChannelClosed(MpqError):
    """The other end is gone (EOF, EPIPE, ECONNRESET)."""


class ChannelFault(MpqError):
    """A packet that is no message of the contract, or a message too large to be one."""


class Later(Exception):
    """A message of a later release."""


class Channel(Generic[Incoming]):
    """One end. `incoming` is the union it may receive, such as `contract.ToWorker`.

    Owns the socket and makes it non-blocking. `dropped` counts messages that met a full buffer.
    """

    def __init__(self, sock: socket.socket, incoming: Any) -> None:
        sock.setblocking(False)
        self._socket = sock
        self._decoder: msgspec.msgpack.Decoder[Incoming] = msgspec.msgpack.Decoder(incoming)
        self._buffer = memoryview(bytearray(contract.MAX_MESSAGE))
        self.dropped = 0

    @classmethod
    def from_fd(cls, fd: int, incoming: Any) -> Channel[Incoming]:
        """A channel over an inherited or received descriptor, which it owns from now on."""
        return cls(socket.socket(fileno=fd), incoming)

    def fileno(self) -> int:
        """The descriptor to poll; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closes this end; closing twice is fine."""
        self._socket.close()

    def send(self, message: msgspec.Struct, fds: Sequence[int] = ()) -> bool:
        """Sends at once or not at all: False when the buffer is full. The sender keeps its copies of `fds`.

        Raises ChannelClosed when nobody listens, ChannelFault when the message is too large.
        """
        data = _encoder.encode(message)
        if len(data) > contract.MAX_MESSAGE:
            raise ChannelFault(f"{type(message).__name__} of {len(data)} bytes, limit {contract.MAX_MESSAGE}")
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        try:
            self._socket.sendmsg([data], rights, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            self.dropped += 1
            return False
        except (BrokenPipeError, ConnectionError) as error:
            raise ChannelClosed(str(error)) from error
        return True

    def receive(self) -> tuple[Incoming, list[int]] | None:
        """The next message with its descriptors (close-on-exec, the receiver's to close), or None.

        Raises ChannelClosed at the end, ChannelFault on anything else that is not a message with exactly its
        descriptors; descriptors that came with such a packet are closed.
        """
        for _ in range(SKIPPED_AT_ONCE):
            try:
                size, ancillary, flags, _ = self._socket.recvmsg_into(
                    [self._buffer], socket.CMSG_SPACE(contract.MAX_FDS * _FD_SIZE), socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return None
            except ConnectionError as error:
                raise ChannelClosed(str(error)) from error
            fds = _descriptors(ancillary)
            try:
                return self._decode(size, flags, len(fds)), fds
            except (ChannelClosed, ChannelFault, Later) as end:
                for fd in fds:
                    os.close(fd)
                if not isinstance(end, Later):
                    raise
        raise ChannelFault("says nothing that this release understands")

    def _decode(self, size: int, flags: int, fds: int) -> Incoming:
        if not size:
            raise ChannelClosed("end of channel")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise ChannelFault("truncated message")
        try:
            message = self._decoder.decode(self._buffer[:size])
        except _UNREADABLE as error:
            if self._is_later(size):
                raise Later from None
            raise ChannelFault(str(error)) from error
        expected = _DESCRIPTORS.get(type(message), 0)
        if fds != expected:
            raise ChannelFault(f"{type(message).__name__} with {fds} descriptors, not {expected}")
        return message

    def _is_later(self, size: int) -> bool:
        try:
            return _type_decoder.decode(self._buffer[:size]).type not in _KNOWN
        except _UNREADABLE:
            return False


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, close-on-exec. Beside the largest message, each has room for as much again."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, contract.MAX_MESSAGE)  # the kernel doubles it
    return ends


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % _FD_SIZE])
    return list(fds)
