"""The product in the lab, for the end-to-end tests: both ends under a test's hand, and in order again after it."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from mpq_supervisor.control import Code, Response
from mpq_supervisor.lifecycle import State
from mpq_supervisor.status import HostStatus, WorkerStatus
from tests.netns.namespace import inside
from tools import namespaces
from tools.lab import Lab
from tools.lab_config import Deployment
from tools.ping import Stream
from tools.ping_report import StreamReport
from tools.product import Product, Side
from tools.sockets import Via
from tools.topology import LANS, SERVER, SERVER6, WANS, Role
from tools.traffic import PingRun, start_pings

SIDES: tuple[Side, ...] = ("hub", "site")
PATIENCE = 15.0
"""Seconds after which what a test waits for counts as not happening."""
IN_FLIGHT_NS = 200_000_000
"""Longer than anything of before a fault can still be under way."""


class System:
    """Site and hub of a deployment; what a test does to them `restore` undoes."""

    def __init__(self, lab: Lab, deployment: Deployment) -> None:
        self.lab = lab
        self.deployment = deployment
        self.tunnels = deployment.tunnels
        self.products: dict[Side, Product] = {}
        self.configs: dict[Side, Path] = {"site": deployment.site, "hub": deployment.hub}
        self._texts = {side: path.read_text() for side, path in self.configs.items()}

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

    def kill(self, side: Side) -> None:
        """SIGKILL to the supervisor of one end; returns when it is dead."""
        end(self.products.pop(side).pid)

    def edit(self, side: Side, old: str, new: str) -> None:
        """Change every `old` in a configuration file, which must be there."""
        text = self.configs[side].read_text()
        assert old in text
        self.configs[side].write_text(text.replace(old, new))

    def restore(self) -> None:
        """Everything as at the beginning: configuration, both ends, nine tunnels that answer."""
        for side in SIDES:
            changed = self.configs[side].read_text() != self._texts[side]
            if changed:
                self.configs[side].write_text(self._texts[side])
            if not self._runs(side):
                self.start(side)
            elif changed:
                ok(self.lab.ctl(side, "reload"))
            ok(self.lab.ctl(side, "start", "all", wait=PATIENCE))
        self.until_answered()

    def _runs(self, side: Side) -> bool:
        return side in self.products and Path(f"/proc/{self.products[side].pid}/exe").exists()

    # ------------------------------------------------------------ looking

    def status(self, side: Side) -> HostStatus:
        """What `ctl status` says."""
        response = self.lab.ctl(side, "status")
        assert response.status is not None
        return response.status

    def workers(self, side: Side) -> dict[str, WorkerStatus]:
        """All workers of one end, by name."""
        return {worker.name: worker for worker in self.status(side).workers}

    def pids(self, side: Side) -> dict[str, int]:
        """The pid of every worker of one end; all must have one."""
        return {name: pid_of(worker) for name, worker in self.workers(side).items()}

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

    # ------------------------------------------------------------ traffic

    @contextmanager
    def inside(self, role: Role) -> Iterator[None]:
        """What this thread opens meanwhile is in that namespace."""
        fd = os.open(namespaces.NETNS / self.lab.name(role), os.O_RDONLY)
        try:
            with inside(fd):
                yield
        finally:
            os.close(fd)

    def streams(self, *, v6: bool = False) -> list[Stream]:
        """100 pings/s by each tunnel, from the LAN host to the server."""
        if not v6:
            return [Stream(name=name, target=SERVER, via=self.deployment.via(name)) for name in self.tunnels]
        return [
            Stream(
                name=f"{name} IPv6",
                target=SERVER6,
                via=Via(source=f"fd00:16:{lan_of(name)}::9", dscp=self.deployment.via(name).dscp),
            )
            for name in self.tunnels
        ]

    @contextmanager
    def pinged(self, *, v6: bool = False) -> Iterator[Pings]:
        """Pings by every tunnel, flowing when the body begins and until it ends; then the reports are there."""
        before = self.counters("lan")
        streams = [*self.streams(), *(self.streams(v6=True) if v6 else [])]
        pings = Pings(start_pings(self.lab, "lan", streams, 120, linger=1.0))
        first = [f"lan{n}" for n in LANS]
        until(lambda: all(self.counters("lan")[lan][1] - before[lan][1] >= 15 for lan in first))
        try:
            yield pings
        finally:
            pings.stop()

    def until_answered(self) -> None:
        """Wait until the server answers through every tunnel."""
        waiting = set(self.tunnels)
        with ExitStack() as stack:
            by_name = {}
            for name in self.tunnels:
                with self.inside("lan"):
                    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)
                stack.enter_context(sock)
                via = self.deployment.via(name)
                sock.bind((via.source, 0))
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, via.dscp << 2)
                by_name[name] = sock

            def answered() -> bool:
                for name in list(waiting):
                    with suppress(OSError):
                        by_name[name].sendto(b"\x08\0\0\0\0\0\0\0", (SERVER, 0))
                readable = select.select([by_name[name] for name in waiting], [], [], 0.1)[0]
                waiting.difference_update(name for name in list(waiting) if by_name[name] in readable)
                return not waiting

            until(answered, lambda: f"no answer by {sorted(waiting)}")


class Pings:
    """Echo streams by name, once `stop` has been called."""

    def __init__(self, run: PingRun) -> None:
        self._run = run
        self.reports: dict[str, StreamReport] = {}

    def stop(self) -> None:
        self._run.stop()
        self.reports = self._run.result()

    def lost(self) -> dict[str, int]:
        """Probes that were never answered, of the streams that lost any."""
        lost = {name: report.window().lost for name, report in self.reports.items()}
        assert all(report.window().sent >= 10 for report in self.reports.values())
        return {name: count for name, count in lost.items() if count}

    def lost_after_recovery(self, name: str, fault_ns: int) -> list[int]:
        """When a stream with one fault lost probes that the fault does not excuse: sent well before it, or after
        the first answer that came after it."""
        report = self.reports[name]
        recovered = report.first_answer_ns(fault_ns)
        assert recovered is not None, f"{name} never came back"
        return [at for at in report.losses_ns() if not fault_ns - IN_FLIGHT_NS <= at <= recovered]


def until(condition: Callable[[], object], what: Callable[[], str] = str, seconds: float = PATIENCE) -> None:
    """Look again and again, some 50 times a second, until it holds; fails with `what()` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what()}"
        select.select([], [], [], 0.02)


def end(pid: int, number: signal.Signals = signal.SIGKILL) -> None:
    """Send a deadly signal and wait for the death."""
    fd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(fd, number)
        assert select.select([fd], [], [], PATIENCE)[0]
    finally:
        os.close(fd)


def pid_of(worker: WorkerStatus) -> int:
    assert worker.pid is not None, f"{worker.name} is {worker.state}"
    return worker.pid


def lan_of(tunnel: str) -> int:
    """Number of the LAN whose traffic a tunnel of the lab carries: that of its WAN."""
    return int(tunnel[-1])


def wan_of(tunnel: str) -> int:
    return WANS[lan_of(tunnel) - 1]


def ok(response: Response) -> Response:
    """`response`, which must be good."""
    assert response.code is Code.OK, response.lines
    return response
