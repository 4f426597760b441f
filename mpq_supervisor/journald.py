"""systemd's journal by its native protocol: a datagram of fields per entry (systemd.io/JOURNAL_NATIVE_PROTOCOL).

What is too long for a datagram goes as a sealed memfd. Nothing here waits for journald.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL


class Journal:
    """Where entries go. By path each time, so that a journald that starts anew is found."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    def send(self, fields: Mapping[str, str]) -> None:
        """One entry. Raises BlockingIOError when journald has no room for it now, OSError when it is not there."""
        data = encode(fields)
        try:
            self._socket.sendto(data, self._path)
        except OSError as error:
            if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                raise
            self._send_long(data)

    def close(self) -> None:
        """No more of it."""
        self._socket.close()

    def _send_long(self, data: bytes) -> None:
        fd = os.memfd_create("mpq-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with open(fd, "wb", closefd=False) as file:
                file.write(data)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, fd.to_bytes(4, sys.byteorder))
            self._socket.sendmsg([], [rights], 0, self._path)
        finally:
            os.close(fd)


def encode(fields: Mapping[str, str]) -> bytes:
    """`NAME=value` in a line; with its length before it where the value has lines of its own."""
    return b"".join(_field(name.encode(), value.encode(errors="replace")) for name, value in fields.items())


def _field(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name + b"=" + value + b"\n"
