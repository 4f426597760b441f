"""One end of the product under test: `mpq-supervisor run` in a namespace, with its log and control socket."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from mpq_supervisor import ctl
from mpq_supervisor.requests import SOCKET_NAME, Request, Response, Verb
from tools.manager import Manager

Side = Literal["site", "hub"]
_STOP_SECONDS = 10


class Product:
    """A running supervisor. `execute` starts a command in the namespace of a side, whatever its sides are called.

    `manager` is its systemd: it is told when the supervisor is ready, and keeps descriptors for the next one.
    `module` is what runs, where that is another release.
    """

    def __init__(
        self,
        execute: Callable[..., subprocess.Popen[Any]],
        side: str,
        config: Path,
        directory: Path,
        manager: Manager | None = None,
        module: str = "mpq_supervisor",
    ) -> None:
        self.runtime = directory / side
        self.runtime.mkdir(mode=0o755, exist_ok=True)
        self.log = directory / f"{side}.log"
        self._manager = manager or Manager(directory / f"{side}.notify")
        argv = [sys.executable, "-m", module, "run", "--config", str(config)]
        command, environment, fds = self._manager.activate([*argv, "--runtime-dir", str(self.runtime)])
        with self.log.open("a") as log:
            self._process = execute(
                side, command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, pass_fds=fds
            )

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the supervisor runs."""
        return self._process.poll() is None

    def wait_ready(self, seconds: float = 10) -> None:
        """Return when it is ready, which does not say that a tunnel is UP. Raises `RuntimeError` if it never is."""
        end = time.monotonic() + seconds
        while not self._manager.ready.wait(0.01):
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.log.stem} ended with exit code {self._process.returncode}")
            if time.monotonic() > end:
                raise RuntimeError(f"{self.log.stem} is not ready after {seconds} s")

    def leave(self) -> int:
        """What `systemctl restart` sends: ends the supervisor alone, for the next one to adopt its workers."""
        self._process.send_signal(signal.SIGUSR1)
        return self._process.wait(timeout=_STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM, and SIGKILL where that is not obeyed within 10 s; returns the exit code. May be called again."""
        self._process.terminate()
        try:
            return self._process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            self._manager.forget()

    def ctl(self, verb: Verb, *names: str, wait: float = 0.0) -> Response:
        """What `mpq-supervisor ctl --json VERB NAME …` prints. Raises OSError when no supervisor answers."""
        return ctl.ask(self.runtime / SOCKET_NAME, Request(verb, names, wait))
