"""Traffic across a stage: echo streams, numbered UDP, TCP. Each starts at once and is asked for its result later.

pings = start_pings(stage, "lan", [Stream(name="cr2", target=SERVER, via=Via(source="172.16.2.9", dscp=46))], 10)
loads = start_load(stage, "lan", "server", [LoadFlow(name="br2", target=SERVER, port=7002, mbit=15)], 10)
loads.result()["br2"].received_ratio, pings.result()["cr2"].window().lost
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import IO, Any, cast

import msgspec

from tools import flood, ping, probe, udp_load
from tools.ping_report import StreamReport
from tools.probe_report import ProbeStream, Record, join
from tools.sockets import Via
from tools.stage import Stage
from tools.topology import Role

_ROOT = Path(__file__).resolve().parent.parent


class _Run:
    """A tool of ours in a namespace; it ends early when its stdin is closed and then prints a report."""

    def __init__(self, stage: Stage, role: Role, tool: str, *arguments: str) -> None:
        argv = [sys.executable, "-m", f"tools.{tool}", *arguments]
        self.process = stage.exec(role, argv, cwd=_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.stdout = cast(IO[bytes], self.process.stdout)

    def wait_ready(self) -> None:
        """Return when the tool says that it listens. Raises `RuntimeError` if it ends instead."""
        if self.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{self.process.args!r} did not start")

    def stop(self) -> None:
        """Tell it to come to its end."""
        cast(IO[bytes], self.process.stdin).close()

    def read(self) -> bytes:
        """Its report, when it has ended by itself or by `stop`. Raises `RuntimeError` if it failed."""
        report = self.stdout.read()
        if self.process.wait():
            raise RuntimeError(f"{self.process.args!r} failed")
        self.stop()
        return report


class PingRun:
    """Echo streams on their way."""

    def __init__(self, stage: Stage, role: Role, order: ping.Order) -> None:
        self._run = _Run(stage, role, "ping", msgspec.json.encode(order).decode())

    def stop(self) -> None:
        """Send no more."""
        self._run.stop()

    def result(self) -> dict[str, StreamReport]:
        """The reports by name, when the time is over or after `stop`."""
        reports = msgspec.json.decode(self._run.read(), type=list[StreamReport])
        return {report.name: report for report in reports}


def start_pings(
    stage: Stage, role: Role, streams: list[ping.Stream], seconds: float, *, linger: float = 1.0
) -> PingRun:
    """Start echo streams in one namespace; `linger` is how long answers are waited for after the last probe."""
    return PingRun(stage, role, ping.Order(streams=streams, seconds=seconds, linger=linger))


class Echo:
    """A UDP echo server, listening when the constructor returns; `stop` or the end of the stage ends it."""

    def __init__(self, stage: Stage, role: Role, ports: list[int]) -> None:
        self._run = _Run(stage, role, "udp_echo", *map(str, ports))
        self._run.wait_ready()

    def stop(self) -> None:
        """End it."""
        self._run.stop()
        self._run.process.wait()


class ProbeRun:
    """Numbered probes both ways between two namespaces, on their way until `result` is asked for."""

    def __init__(self, stage: Stage, near: Role, far: Role, order: probe.ProbeOrder) -> None:
        text = msgspec.json.encode(order).decode()
        self._far = _Run(stage, far, "probe", "far", text)
        self._far.wait_ready()
        self._near = _Run(stage, near, "probe", "near", text)
        self._near.wait_ready()

    def result(self) -> list[ProbeStream]:
        """Send no more; every flow in both directions, when what is under way has arrived."""
        for run in (self._near, self._far):
            run.stop()
        near, far = (msgspec.msgpack.decode(run.read(), type=list[Record]) for run in (self._near, self._far))
        return join(near, far)


def start_probes(stage: Stage, near: Role, far: Role, flows: list[probe.ProbeFlow], rate: float = 200.0) -> ProbeRun:
    """Start probes through tunnels: from `near` to each flow's target in `far`, and back."""
    return ProbeRun(stage, near, far, probe.ProbeOrder(flows=flows, rate=rate))


class FloodRun:
    """A flood on its way, until `result` is asked for."""

    def __init__(self, stage: Stage, role: Role, order: flood.Order) -> None:
        self._run = _Run(stage, role, "flood", msgspec.json.encode(order).decode())
        self._run.wait_ready()

    def result(self) -> flood.Report:
        """Send no more."""
        self._run.stop()
        return msgspec.json.decode(self._run.read(), type=flood.Report)


def start_flood(stage: Stage, role: Role, order: flood.Order) -> FloodRun:
    """Start a flood from one namespace."""
    return FloodRun(stage, role, order)


class LoadResult(msgspec.Struct, frozen=True):
    """One UDP flow, both ends joined; `overrun` and `refused` are failures of the tools' hosts, not of the way."""

    sent: int
    received: int
    duplicated: int
    reordered: int
    overrun: int
    refused: int
    seconds: float
    mbit: float

    @property
    def received_ratio(self) -> float:
        """Share of what was sent that arrived; nan where nothing was sent."""
        return self.received / self.sent if self.sent else float("nan")


class LoadRun:
    """UDP flows on their way."""

    def __init__(self, stage: Stage, sender: Role, receiver: Role, order: udp_load.SendOrder) -> None:
        self._flows = order.flows
        self._far = _Run(stage, receiver, "udp_load", "receive", msgspec.json.encode(order.flows).decode())
        self._far.wait_ready()
        self._near = _Run(stage, sender, "udp_load", "send", msgspec.json.encode(order).decode())

    def stop(self) -> None:
        """Send no more."""
        self._near.stop()

    def result(self) -> dict[str, LoadResult]:
        """The results by name, when the time is over and what is under way has arrived."""
        sent = msgspec.json.decode(self._near.read(), type=dict[str, udp_load.Sent])
        self._far.stop()
        received = msgspec.json.decode(self._far.read(), type=dict[str, udp_load.Received])
        return {flow.name: _join(flow, sent[flow.name], received[flow.name]) for flow in self._flows}


def _join(flow: udp_load.LoadFlow, sent: udp_load.Sent, received: udp_load.Received) -> LoadResult:
    return LoadResult(
        sent=sent.sent,
        received=received.received,
        duplicated=received.duplicated,
        reordered=received.reordered,
        overrun=received.overrun,
        refused=sent.refused,
        seconds=sent.seconds,
        mbit=received.received * flow.size * 8 / 1e6 / sent.seconds if sent.seconds else 0.0,
    )


def start_load(stage: Stage, sender: Role, receiver: Role, flows: list[udp_load.LoadFlow], seconds: float) -> LoadRun:
    """Start UDP flows from one namespace to another, the receiver first."""
    return LoadRun(stage, sender, receiver, udp_load.SendOrder(flows=flows, seconds=seconds))


class TcpFlow(msgspec.Struct, frozen=True, kw_only=True):
    """TCP by iperf3 to a port of `target`, `streams` at once; `reverse` is from the server to the client."""

    target: str
    port: int
    reverse: bool = False
    streams: int = 1
    via: Via = Via()


class TcpResult(msgspec.Struct, frozen=True):
    """What the receiving end got; `error` is iperf3's word where it failed, and the figures are then 0."""

    mbit: float
    retransmits: int
    error: str = ""


class TcpRun:
    """A TCP stream on its way for whole seconds (iperf3 knows no others)."""

    def __init__(self, stage: Stage, client: Role, server: Role, flow: TcpFlow, seconds: int) -> None:
        listen = ["iperf3", "-s", "-1", "-p", str(flow.port), "--forceflush"]
        self._server = stage.exec(server, listen, stdout=subprocess.PIPE, text=True)
        lines = cast(IO[str], self._server.stdout)
        while "listening" not in (line := lines.readline()):
            if not line:
                raise RuntimeError(f"iperf3 does not listen on {flow.port}")
        argv = [
            "iperf3",
            "-J",
            "-c",
            flow.target,
            "-p",
            str(flow.port),
            "-t",
            str(seconds),
            "--connect-timeout",
            "5000",
        ]
        argv += ["-R"] * flow.reverse + ["-P", str(flow.streams), "--dscp", str(flow.via.dscp)]
        argv += ["-B", flow.via.source] if flow.via.source else []
        argv += ["--bind-dev", flow.via.device] if flow.via.device else []
        self._client = stage.exec(client, argv, stdout=subprocess.PIPE)

    def result(self) -> TcpResult:
        """Its figures, when the time is over."""
        report: dict[str, Any] = msgspec.json.decode(self._client.communicate()[0])
        self._server.kill()  # it ended by itself, unless the client never reached it
        self._server.communicate()
        if "error" in report:
            return TcpResult(0.0, 0, report["error"])
        end = report["end"]
        return TcpResult(end["sum_received"]["bits_per_second"] / 1e6, end["sum_sent"].get("retransmits", 0))
