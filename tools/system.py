"""The product at both ends of a lab, under one hand: start, end, look at it, and at what it does to its hosts."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import psutil

from mpq_supervisor.lifecycle import State
from mpq_supervisor.portal_process import COMMAND, PAUSE
from mpq_supervisor.status import HostStatus, WorkerStatus
from tools import namespaces
from tools.lab import Lab
from tools.lab_config import Deployment
from tools.product import Product, Side
from tools.setns import inside
from tools.topology import Role
from tools.wait import PATIENCE, Held, end, until

SIDES: tuple[Side, ...] = ("hub", "site")
AGAIN = PAUSE[1] + PATIENCE
"""Seconds after which what ended, even again and again, counts as not coming back."""


class System:
    """Site and hub of a deployment."""

    def __init__(self, lab: Lab, deployment: Deployment) -> None:
        self.lab = lab
        self.deployment = deployment
        self.tunnels = deployment.tunnels
        self.products: dict[Side, Product] = {}
        self.configs: dict[Side, Path] = {"site": deployment.site, "hub": deployment.hub}
        self.misses = 0  # see `hold`

    # ------------------------------------------------------------ running

    def start(self, *sides: Side) -> None:
        """Run these ends; returns when they are ready, which is not UP."""
        for side in sides:
            self.products[side] = self.lab.start(side, self.configs[side])
        for side in sides:
            self.products[side].wait_ready()

    def stop(self, side: Side) -> int:
        """SIGTERM; returns the exit code."""
        del self.products[side]
        return self.lab.stop(side)

    def restart(self, side: Side) -> None:
        """The supervisor of one end alone, as `systemctl restart` does; returns when the next one is ready."""
        self.products[side] = self.lab.restart(side, self.configs[side])
        self.products[side].wait_ready()

    def kill(self, side: Side) -> None:
        """SIGKILL to the supervisor of one end; returns when it is dead."""
        end(self.products.pop(side).pid)

    def runs(self, side: Side) -> bool:
        """Whether a supervisor of ours is alive there."""
        return side in self.products and Path(f"/proc/{self.products[side].pid}/exe").exists()

    # ------------------------------------------------------------ looking

    def answers(self, side: Side) -> bool:
        """Whether a supervisor can be asked there."""
        try:
            self.status(side)
        except OSError:
            return False
        return True

    def status(self, side: Side) -> HostStatus:
        """What `ctl status` says. Raises OSError when no supervisor answers, or not to the end."""
        try:
            response = self.lab.ctl(side, "status")
        except msgspec.MsgspecError as error:
            raise ConnectionError(f"{side}: {error}") from error
        assert response.status is not None
        return response.status

    def workers(self, side: Side) -> dict[str, WorkerStatus]:
        """All workers of one end, by name."""
        return {worker.name: worker for worker in self.status(side).workers}

    def pids(self, side: Side) -> dict[str, int]:
        """The pid of every worker of one end; all must have one."""
        return {name: pid_of(worker) for name, worker in self.workers(side).items()}

    def portal(self, side: Side) -> int | None:
        """The pid of one end's portal, of which `ctl` does not tell; None while there is none. Raises
        `psutil.NoSuchProcess` where no supervisor lives."""
        for child in psutil.Process(self.products[side].pid).children():
            with suppress(psutil.NoSuchProcess):  # it ended just now
                if COMMAND[-1] in child.cmdline():
                    return child.pid
        return None

    def hold(self, side: Side, name: str) -> Held:
        """A process of one end, to be closed by the caller: a worker, the `zygote`, the `portal` or the `supervisor`.

        One that goes before we have it was not the one: the next one is waited for, and `misses` counts it.
        """
        found: list[Held] = []

        def have() -> bool:
            found.extend(self._hold(side, name))
            return bool(found)

        until(have, lambda: f"{side} has no {name}", seconds=AGAIN)
        return found[0]

    def _hold(self, side: Side, name: str) -> list[Held]:
        """The process, if it is there, and still the one when we have it; nobody otherwise."""
        pid = self._pid(side, name)
        if pid is None:
            return []
        try:
            held = Held(pid)
        except ProcessLookupError:
            self.misses += 1
            return []
        if not held.ended and self._pid(side, name) == pid:
            return [held]
        held.close()
        self.misses += 1
        return []

    def _pid(self, side: Side, name: str) -> int | None:
        if name == "supervisor":
            return self.products[side].pid
        if name == "portal":
            return self.portal(side)
        status = self.status(side)
        return status.zygote_pid if name == "zygote" else {w.name: w.pid for w in status.workers}[name]

    def until_state(self, side: Side, state: State, *names: str) -> dict[str, WorkerStatus]:
        """Wait for workers (all, without a name) to be in a state."""
        workers: dict[str, WorkerStatus] = {}

        def reached() -> bool:
            workers.update(self.workers(side))
            return all(workers[name].state is state for name in names or workers)

        until(reached, lambda: str({name: (w.state, w.reason) for name, w in workers.items()}))
        return workers

    def until_replaced(self, side: Side, name: str, pid: int) -> WorkerStatus:
        """Wait until a worker is UP in another process than `pid`."""
        seen: list[WorkerStatus] = []

        def replaced() -> bool:
            seen.append(self.workers(side)[name])
            return seen[-1].state is State.UP and seen[-1].pid != pid

        until(replaced)
        return seen[-1]

    def log(self, side: Side) -> str:
        """What one end has logged so far."""
        return (self.lab.directory / f"{side}.log").read_text()

    @contextmanager
    def logged(self, side: Side) -> Iterator[list[str]]:
        """The lines that one end logs meanwhile; the list is filled at the end."""
        begin = len(self.log(side))
        lines: list[str] = []
        try:
            yield lines
        finally:
            lines += self.log(side)[begin:].splitlines()

    @contextmanager
    def inside(self, role: Role) -> Iterator[None]:
        """What this thread opens meanwhile is in that namespace."""
        fd = os.open(namespaces.NETNS / self.lab.name(role), os.O_RDONLY)
        try:
            with inside(fd):
                yield
        finally:
            os.close(fd)

    def state_of(self, side: Side) -> dict[str, list[str]]:
        """All of the kernel's network state that mpq could leave behind, in words."""

        def ask(*argv: str) -> list[str]:
            return sorted(" ".join(line.split()) for line in self.lab.run(side, argv).stdout.splitlines())

        return {
            "links": sorted(self.counters(side)),
            "rules": ask("ip", "rule") + ask("ip", "-6", "rule"),
            "routes": [route for f in "46" for route in ask("ip", f"-{f}", "route", "show", "table", "all")],
            "tables": ask("nft", "list", "tables"),
            "qdiscs": ask("tc", "qdisc"),
            "processes": [str(pid) for pid in namespaces.pids([self.lab.name(side)])],
        }

    def counters(self, role: Role) -> dict[str, tuple[int, int]]:
        """Packets received and sent by every interface of a namespace, by its name."""
        links = json.loads(self.lab.run(role, ["ip", "-j", "-s", "link"]).stdout)
        return {
            link["ifname"]: (link["stats64"]["rx"]["packets"], link["stats64"]["tx"]["packets"]) for link in links
        }


def pid_of(worker: WorkerStatus) -> int:
    """The worker's process, which must be there."""
    assert worker.pid is not None, f"{worker.name} is {worker.state}"
    return worker.pid


def open_files(pid: int) -> list[str]:
    """The target of each descriptor of a process, but for what it asks of itself for a moment (`mpq_worker.usage`).

    Raises OSError when it is gone.
    """
    targets = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it was open for a moment only
            targets.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return [target for target in targets if not target.startswith(f"/proc/{pid}/")]
