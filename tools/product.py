"""One end of the product under test: `mpq-supervisor run` in a namespace, with its log and control socket."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from mpq_supervisor import ctl
from mpq_supervisor.requests import SOCKET_NAME, Request, Response, Verb

Side = Literal["site", "hub"]
_STOP_SECONDS = 10


class Product:
    """A running supervisor. `execute` starts a command in the namespace of a side, whatever its sides are called.

    It is told a NOTIFY_SOCKET of ours, as systemd would, and so tells us when it is ready.
    """

    def __init__(
        self, execute: Callable[..., subprocess.Popen[Any]], side: str, config: Path, directory: Path
    ) -> None:
        self.runtime = directory / side
        self.runtime.mkdir(mode=0o755, exist_ok=True)
        self.log = directory / f"{side}.log"
        address = self.runtime / "notify.sock"
        address.unlink(missing_ok=True)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(str(address))
        self._ready = False
        argv = [sys.executable, "-m", "mpq_supervisor", "run", "--config", str(config)]
        with self.log.open("a") as log:
            self._process = execute(
                side,
                [*argv, "--runtime-dir", str(self.runtime)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "NOTIFY_SOCKET": str(address)},
            )

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        return self._process.pid

    def wait_ready(self, seconds: float = 10) -> None:
        """Return when it is ready, which does not say that a tunnel is UP. Raises `RuntimeError` if it never is."""
        if self._ready:
            return
        end = time.monotonic() + seconds
        pidfd = os.pidfd_open(self.pid)
        try:
            while (left := end - time.monotonic()) > 0:
                readable = select.select([self._notify.fileno(), pidfd], [], [], left)[0]
                if self._notify.fileno() in readable:
                    if b"READY=1" in self._notify.recv(4096).split(b"\n"):
                        self._ready = True
                        return
                elif pidfd in readable:
                    raise RuntimeError(f"{self.log.stem} ended with exit code {self._process.wait()}")
        finally:
            os.close(pidfd)
        raise RuntimeError(f"{self.log.stem} is not ready after {seconds} s")

    def stop(self) -> int:
        """SIGTERM, and SIGKILL where that is not obeyed within 10 s; returns the exit code. May be called again."""
        self._process.terminate()
        try:
            return self._process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._notify.close()

    def ctl(self, verb: Verb, *names: str, wait: float = 0.0) -> Response:
        """What `mpq-supervisor ctl --json VERB NAME …` prints. Raises OSError when no supervisor answers."""
        self._drain()
        return ctl.ask(self.runtime / SOCKET_NAME, Request(verb, names, wait))

    def _drain(self) -> None:
        """Read away status lines: nobody wants them, but a full socket would be worth a warning to the sender."""
        while select.select([self._notify], [], [], 0)[0]:
            self._notify.recv(4096)
