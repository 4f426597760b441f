"""One end of the product under test: `mpq-supervisor run` in a namespace, with its log and control socket."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

Side = Literal["site", "hub"]
_STOP_SECONDS = 10


class Product:
    """A running supervisor. `execute` starts a command in the namespace of a side."""

    def __init__(
        self, execute: Callable[..., subprocess.Popen[Any]], side: Side, config: Path, directory: Path
    ) -> None:
        self.runtime = directory / side
        self.runtime.mkdir(mode=0o755, exist_ok=True)
        self.log = directory / f"{side}.log"
        argv = [
            sys.executable,
            "-m",
            "mpq_supervisor",
            "run",
            "--config",
            str(config),
            "--runtime-dir",
            str(self.runtime),
        ]
        with self.log.open("a") as log:
            self._process = execute(side, argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    @property
    def pid(self) -> int:
        """Process id of the supervisor."""
        return self._process.pid

    def stop(self) -> int:
        """SIGTERM, and SIGKILL where that is not obeyed within 10 s; returns the exit code. May be called again."""
        self._process.terminate()
        try:
            return self._process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def ctl(self, *arguments: str) -> Any:
        """`mpq-supervisor ctl --json …`, parsed. Raises `RuntimeError` with what it said if it fails."""
        argv = [
            sys.executable,
            "-m",
            "mpq_supervisor",
            "ctl",
            "--runtime-dir",
            str(self.runtime),
            "--json",
            *arguments,
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"ctl {' '.join(arguments)}: exit {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)
