"""Descriptors that outlive this process: the service manager's store (sd_notify(3), FDSTORE=1; systemd 252 has it).

TUNs and the sockets of hub ports are put there when they are made, and of each worker that leads its channel and its
pidfd when it has been configured. They come back to the next supervisor (sd_listen_fds(3)), which adopts what they
belong to. Names:

    tun/NAME    slot/PORT/SLOT/ADDRESS    channel/WORKER/GENERATION/CONTRACT/FINGERPRINT    pidfd/WORKER/GENERATION
    nft/table   nft/guard   (notes)

A name may not contain a colon; in an address it is written `_`. Without a service manager nothing is stored.
"""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping

from mpq_supervisor.notify import Notifier

FIRST_FD = 3
MAX_NOTE = 4096

log = logging.getLogger(__name__)


class Store:
    """What the last supervisor stored is `take`n, at most once each; `sweep` gives up the rest."""

    def __init__(self, notifier: Notifier, environment: MutableMapping[str, str] = os.environ) -> None:
        self._notifier = notifier
        self._inherited = _inherited(environment)
        self._stored = set(self._inherited)
        self._notes: dict[str, str] = {}

    @property
    def lasts(self) -> bool:
        """Whether anything put here outlives us."""
        return self._notifier.connected

    def names(self, kind: str) -> list[list[str]]:
        """The parts after the first of every inherited name of a kind."""
        return [parts[1:] for parts in (name.split("/") for name in self._inherited) if parts[0] == kind]

    def take(self, name: str) -> int | None:
        """The inherited descriptor of a name, the caller's from now on; None if there is none."""
        return self._inherited.pop(name, None)

    def put(self, name: str, fd: int) -> None:
        """Have it outlive us; the caller keeps its own."""
        if name not in self._stored:
            self._stored.add(name)
            self._notifier.store(name, fd)

    def drop(self, name: str) -> None:
        """It need not outlive us any more."""
        if name in self._stored:
            self._stored.discard(name)
            self._notifier.unstore(name)

    def note(self, name: str, text: str) -> None:
        """Have a text outlive us, in memory (memfd_create(2))."""
        if self._notes.get(name) == text:
            return
        self._notes[name] = text
        self.drop(name)
        fd = os.memfd_create(name)
        try:
            os.write(fd, text.encode())
            self.put(name, fd)
        finally:
            os.close(fd)

    def recall(self, name: str) -> str:
        """The text that the last supervisor noted; empty if it did not."""
        fd = self.take(name)
        if fd is None:
            return ""
        try:
            self._notes[name] = os.pread(fd, MAX_NOTE, 0).decode(errors="replace")
        finally:
            os.close(fd)
        return self._notes[name]

    def sweep(self) -> None:
        """Close and drop all that nobody took."""
        for name, fd in list(self._inherited.items()):
            log.info("stored descriptor %s is not wanted any more", name)
            os.close(fd)
            del self._inherited[name]
            self.drop(name)


def slot_name(address: str, port: int, slot: int) -> str:
    """Name of one socket of a hub's port."""
    return f"slot/{port}/{slot}/{address.replace(':', '_')}"


def _inherited(environment: MutableMapping[str, str]) -> dict[str, int]:
    """What was passed to this very process; our children are told nothing of it."""
    ours = environment.pop("LISTEN_PID", "") == str(os.getpid())
    count, names = environment.pop("LISTEN_FDS", "0"), environment.pop("LISTEN_FDNAMES", "")
    found: dict[str, int] = {}
    if ours and count.isdecimal():
        for fd, name in zip(range(FIRST_FD, FIRST_FD + int(count)), names.split(":"), strict=False):
            os.set_inheritable(fd, False)
            if name in found:
                os.close(found[name])  # stored twice: the same
            found[name] = fd
    return found
