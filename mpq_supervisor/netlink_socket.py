"""The transport of route netlink: one request, one answer, over one plain socket.

pyroute2's own is an asyncio loop that cannot run inside the supervisor's. The kernel answers a request before `send`
returns, so nothing here waits.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

# linux/netlink.h
_REQUEST, _ACK, _DUMP = 0x01, 0x04, 0x300
REPLACE, EXCLUDE, CREATE = 0x100, 0x200, 0x400
_ERROR, _DONE = 2, 3
_DUMP_INTERRUPTED = 0x10
HEADER = struct.Struct("=IHHII")
_RECEIVE = 1 << 18
_NETLINK_EXT_ACK = 11
_NETLINK_GET_STRICT_CHK = 12
_SOL_NETLINK = 270
_DUMP_ATTEMPTS = 3


class NetlinkSocket:
    """A connection to the kernel, in the network namespace in which it was opened. `changes` counts what is asked to
    be changed."""

    def __init__(self) -> None:
        self.changes = 0
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_EXT_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_GET_STRICT_CHK, 1)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()

    def change(self, kind: int, body: bytes, flags: int = 0) -> None:
        """Sends one request and waits for its acknowledgement. Raises OSError."""
        self.changes += 1
        self._send(kind, body, _REQUEST | _ACK | flags)
        for _message in self._receive():
            pass

    def delete(self, kind: int, body: bytes) -> None:
        """Like `change`, for a deletion: it is no error if there is nothing to delete."""
        try:
            self.change(kind, body)
        except OSError as error:
            if error.errno not in (errno.ESRCH, errno.ENOENT, errno.ENODEV, errno.EADDRNOTAVAIL):
                raise

    def dump(self, kind: int, body: bytes) -> list[bytes]:
        """All messages of a dump, whole; again if the kernel's tables changed meanwhile.

        Sequence and port number are blanked, so that the same entry is the same bytes at the next dump.
        """
        for _attempt in range(_DUMP_ATTEMPTS):
            self._send(kind, body, _REQUEST | _DUMP)
            messages = list(self._receive())
            if not any(HEADER.unpack_from(m)[2] & _DUMP_INTERRUPTED for m in messages):
                break
        return [message[:8] + bytes(8) + message[16:] for message in messages]

    def _send(self, kind: int, body: bytes, flags: int) -> None:
        self._sequence += 1
        self._socket.send(HEADER.pack(HEADER.size + len(body), kind, flags, self._sequence, 0) + body)

    def _receive(self) -> Iterator[bytes]:
        """Messages up to the end of this answer. Raises OSError when the kernel refuses."""
        while True:
            data = self._socket.recv(_RECEIVE)
            offset = 0
            while offset < len(data):
                length, kind, _flags, sequence, _port = HEADER.unpack_from(data, offset)
                message = data[offset : offset + length]
                offset += (length + 3) & ~3
                if sequence != self._sequence:
                    continue  # the rest of an answer that ended in an error
                if kind in (_ERROR, _DONE):
                    code = struct.unpack_from("=i", message, HEADER.size)[0] if length > HEADER.size else 0
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield message


def attribute(kind: int, payload: bytes) -> bytes:
    """One netlink attribute, padded: for what pyroute2 can decode but not encode."""
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """The payloads of a run of attributes, by kind."""
    found, offset = {}, 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        found[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (max(length, 4) + 3) & ~3
    return found
