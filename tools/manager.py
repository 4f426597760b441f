"""What of systemd a supervisor needs: readiness, and a store of descriptors that outlives it (sd_notify(3)).

    product ─ FDSTORE=1, FDNAME=…, SCM_RIGHTS ─▶ Manager ─ LISTEN_FDS, LISTEN_FDNAMES ─▶ the next product

As with systemd 252 the store survives a restart and a crash; `forget` is what a stop does.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

_FIRST_FD = 3
_MAX_FDS = 16


class Manager:
    """Listens at `address` until closed, in a thread, since products wait for it to read. `environment` is what a
    product gets beside ours."""

    def __init__(self, address: Path, environment: Mapping[str, str] | None = None) -> None:
        address.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(address))
        self._socket.settimeout(0.1)
        self._address = address
        self._environment = dict(environment or {})
        self._lock = threading.Lock()
        self._store: dict[str, int] = {}
        self._closing = False
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    @property
    def names(self) -> list[str]:
        """What is stored."""
        with self._lock:
            return list(self._store)

    def activate(self, argv: list[str]) -> tuple[list[str], dict[str, str], list[int]]:
        """The command that hands over what is stored and becomes `argv`, its environment, what it inherits."""
        self.ready.clear()
        with self._lock:
            names, fds = list(self._store), list(self._store.values())
        environment = {**os.environ, **self._environment, "NOTIFY_SOCKET": str(self._address)}
        if not fds:
            return argv, environment, []
        shim = [sys.executable, "-m", "tools.manager", ":".join(names), ",".join(map(str, fds))]
        return [*shim, *argv], environment, fds

    def forget(self) -> None:
        """Close all that is stored, as a stop of the service does."""
        with self._lock:
            for fd in self._store.values():
                os.close(fd)
            self._store.clear()

    def close(self) -> None:
        """Listen no more. May be called again."""
        if not self._closing:
            self._closing = True
            self._thread.join()
            self._socket.close()
            self.forget()

    def _listen(self) -> None:
        while not self._closing:
            try:
                data, fds, _, _ = socket.recv_fds(self._socket, 4096, _MAX_FDS)
            except TimeoutError:
                continue
            fields = dict(line.partition("=")[::2] for line in data.decode().splitlines())
            if "READY" in fields:
                self.ready.set()
            with self._lock:
                for fd in fds:
                    self._keep(fields.get("FDNAME", "stored"), fd)
                if "FDSTOREREMOVE" in fields and (stored := self._store.pop(fields["FDNAME"], None)) is not None:
                    os.close(stored)

    def _keep(self, name: str, fd: int) -> None:
        before = self._store.pop(name, None)
        if before is not None:
            os.close(before)
        self._store[name] = fd


def _become(names: str, fds: list[int], argv: list[str]) -> None:
    """What systemd does between fork and exec."""
    above = max(*fds, _FIRST_FD + len(fds)) + 1
    for offset, fd in enumerate(fds):
        os.dup2(fd, above + offset)
    for offset in range(len(fds)):
        os.dup2(above + offset, _FIRST_FD + offset)
    os.closerange(_FIRST_FD + len(fds), above + len(fds))
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)), LISTEN_FDNAMES=names)
    os.execvp(argv[0], argv)


if __name__ == "__main__":
    _become(sys.argv[1], [int(fd) for fd in sys.argv[2].split(",")], sys.argv[3:])
