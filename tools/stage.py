"""Where the product and the traffic tools run: network namespaces of one machine with processes in them.

A `Stage` is a context manager that leaves nothing behind, whatever happens inside. What its namespaces are and how
they are joined is for the one that builds on it: `lab.Lab`, or `bench.bed.Bed`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mpq_supervisor.requests import Code, Response, Verb
from tools import namespaces
from tools.capture import Capture
from tools.manager import Manager
from tools.product import Product

_LOG_TAIL = 2000


class Stage:
    """Namespaces named `{prefix}-{role}`.

    The default prefix carries the maker's pid, by which a later stage knows what a killed maker left and clears it
    away; another prefix is for one that shall stay. `release` is the module that the next product runs from,
    `environment` what products have in theirs beside ours.
    """

    release = "mpq_supervisor"
    environment: Mapping[str, str] = {}

    def __init__(self, prefix: str | None = None) -> None:
        self.prefix = prefix or f"mpq{os.getpid()}"
        self.directory = namespaces.directory_of(self.prefix)
        self._started: list[subprocess.Popen[Any]] = []
        self._products: dict[str, Product] = {}
        self._managers: dict[str, Manager] = {}

    def __enter__(self) -> Self:
        namespaces.remove_stale()
        namespaces.remove(self.prefix)
        try:
            self.directory.mkdir(mode=0o711)
            self._build()
        except BaseException:
            self._show_logs()
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if error is not None:
            self._show_logs()
        self.close()

    def close(self) -> None:
        """End what runs here and delete it. May be called again."""
        for product in self._products.values():
            product.stop()
        namespaces.remove(self.prefix)  # kills what runs in them
        for manager in self._managers.values():
            manager.close()
        self._products.clear()
        self._managers.clear()
        self.end()

    # ---- processes ----

    def end(self) -> None:
        """End every command that `exec` started."""
        for process in self._started:
            process.kill()  # does nothing to one that was waited for
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe:
                    pipe.close()
        self._started.clear()

    def name(self, role: str) -> str:
        """Name of a namespace, as `ip netns` lists it."""
        return f"{self.prefix}-{role}"

    def exec(self, role: str, argv: Sequence[str], **popen: Any) -> subprocess.Popen[Any]:
        """Start a command in a namespace; it ends with the stage at the latest, and not by a terminal's Ctrl-C.

        `popen` is `subprocess.Popen`'s.
        """
        process = subprocess.Popen([*namespaces.enter(self.name(role)), *argv], process_group=0, **popen)
        self._started.append(process)
        return process

    def run(self, role: str, argv: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in a namespace to its end and return its output. Raises `CalledProcessError` if `check`."""
        command = [*namespaces.enter(self.name(role)), *argv]
        return subprocess.run(command, capture_output=True, text=True, check=check, process_group=0)

    def capture(self, role: str, device: str, expression: str) -> Capture:
        """Count the packets on an interface that match a pcap filter, from now until `stop`."""
        return Capture(lambda argv, **popen: self.exec(role, argv, **popen), device, expression)

    # ---- the product ----

    def start(self, side: str, config: Path) -> Product:
        """Run `mpq-supervisor run` with this configuration at one end; its log is `directory/SIDE.log`."""
        if side in self._products and self._products[side].alive:
            self._products[side].stop()
        if side not in self._managers:
            self._managers[side] = Manager(self.directory / f"{side}.notify", self.environment)
        self._products[side] = Product(self.exec, side, config, self.directory, self._managers[side], self.release)
        return self._products[side]

    def restart(self, side: str, config: Path) -> Product:
        """As `systemctl restart` does: the supervisor alone, which leaves its workers to the next one."""
        self._products.pop(side).leave()
        return self.start(side, config)

    def forget(self, side: str) -> None:
        """Close what a supervisor that has died had stored, as if no service manager kept it."""
        self._managers[side].forget()

    def stop(self, side: str) -> int:
        """SIGTERM to the supervisor of one end; returns its exit code."""
        return self._products.pop(side).stop()

    def ctl(self, side: str, verb: Verb, *names: str, wait: float = 0.0) -> Response:
        """What `mpq-supervisor ctl --json` of one end prints. Raises OSError when no supervisor answers."""
        if side not in self._products:
            raise ConnectionError(f"no supervisor runs at the {side}")
        return self._products[side].ctl(verb, *names, wait=wait)

    def wait_up(self, seconds: float = 15.0) -> None:
        """Return when every tunnel of the site is UP. Raises `RuntimeError` with what is not in time."""
        for product in self._products.values():
            product.wait_ready(seconds)
        response = self.ctl("site", "start", "all", wait=seconds)
        if response.code is not Code.OK:
            raise RuntimeError("; ".join(response.lines))

    def _show_logs(self) -> None:
        for log in sorted(self.directory.glob("*.log")):
            print(f"--- {log.name}\n{log.read_text(errors='replace')[-_LOG_TAIL:]}", file=sys.stderr)

    def _build(self) -> None:
        """Make the namespaces and what joins them; `directory` is there, and empty."""
        raise NotImplementedError
