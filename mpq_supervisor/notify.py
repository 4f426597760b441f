"""sd_notify(3): readiness, status line, watchdog and descriptor store of the service manager, without its library.

Without NOTIFY_SOCKET every call does nothing: the same program runs under systemd and in a terminal.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import time
from collections.abc import Mapping

SEND_TIMEOUT_US = 200_000

log = logging.getLogger(__name__)


class Notifier:
    """Talks to the service manager named in `environment`."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._socket: socket.socket | None = None
        self._status = ""
        me = str(os.getpid())
        self._watched = "WATCHDOG_USEC" in environment and environment.get("WATCHDOG_PID", me) == me
        address = environment.get("NOTIFY_SOCKET", "")
        if address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
            timeout = struct.pack("ll", 0, SEND_TIMEOUT_US)  # a message that is lost may be a descriptor
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
            self._socket.connect("\0" + address[1:] if address.startswith("@") else address)

    def ready(self) -> None:
        """The start, or a reload, is complete."""
        self._send("READY=1")

    def status(self, text: str) -> None:
        """One line for `systemctl status`; sent when it changes."""
        if text != self._status:
            self._status = text
            self._send(f"STATUS={text}")

    def watchdog(self) -> None:
        """To be called only by whoever has just done the supervisor's duties."""
        if self._watched:
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The stop has begun."""
        self._send("STOPPING=1")

    def reloading(self) -> None:
        """A reload has begun; `ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    @property
    def connected(self) -> bool:
        """Whether there is a service manager to talk to."""
        return self._socket is not None

    def store(self, name: str, fd: int) -> None:
        """Keep a copy of a descriptor for the next process of this service, even if it hangs up (FDPOLL)."""
        self._send(f"FDSTORE=1\nFDNAME={name}\nFDPOLL=0", fd)

    def unstore(self, name: str) -> None:
        """Close that copy."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def close(self) -> None:
        """Says nothing more."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str, *fds: int) -> None:
        if self._socket is None:
            return
        try:
            socket.send_fds(self._socket, [text.encode()], fds)
        except OSError as error:  # a manager that is restarting must not bring us down
            log.warning("service manager: %s", error)
