"""The product in the lab, for the end-to-end tests: both ends under a test's hand, and in order again after it."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from mpq_supervisor.requests import Code, Response
from tools.lab import Lab
from tools.lab_config import Deployment
from tools.ping import Stream
from tools.ping_report import StreamReport
from tools.product import Side
from tools.sockets import Via
from tools.system import SIDES
from tools.system import System as Base
from tools.topology import LANS, SERVER, SERVER6, WANS
from tools.traffic import PingRun, start_pings
from tools.wait import PATIENCE, until


class System(Base):
    """What a test does to site and hub `restore` undoes."""

    def __init__(self, lab: Lab, deployment: Deployment) -> None:
        super().__init__(lab, deployment)
        self._texts = {side: path.read_text() for side, path in self.configs.items()}

    # ------------------------------------------------------------ undoing

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
            if not self.runs(side):
                self.start(side)
            elif changed:
                ok(self.lab.ctl(side, "reload"))
            ok(self.lab.ctl(side, "start", "all", wait=PATIENCE))
        self.until_answered()

    # ------------------------------------------------------------ traffic

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
        enough = 15 * len(streams) // len(first)  # of each stream, of which every LAN sends as many
        until(lambda: all(self.counters("lan")[lan][1] - before[lan][1] >= enough for lan in first))
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
        """When a stream with one fault lost probes that the fault does not excuse: those that were not under way
        when it came, and those sent after the first answer that came after it."""
        report = self.reports[name]
        recovered = report.first_answer_ns(fault_ns)
        assert recovered is not None, f"{name} never came back"
        return [at for at in report.losses_ns() if not report.under_way_ns(fault_ns) <= at <= recovered]


def lan_of(tunnel: str) -> int:
    """Number of the LAN whose traffic a tunnel of the lab carries: that of its WAN."""
    return int(tunnel[-1])


def wan_of(tunnel: str) -> int:
    return WANS[lan_of(tunnel) - 1]


def ok(response: Response) -> Response:
    """`response`, which must be good."""
    assert response.code is Code.OK, response.lines
    return response
