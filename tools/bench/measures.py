"""What is measured of one contender at a time. Each measure returns figures by the ids that they have in results."""

from __future__ import annotations

import resource
from collections.abc import Callable

import psutil

from tools.bench import load
from tools.bench.bed import INNER_MTU, Contender
from tools.product import Side
from tools.results import percentile, ratio
from tools.sockets import Via
from tools.traffic import TcpFlow, TcpRun

Sample = dict[str, float]
Measure = Callable[[Contender], Sample]

TCP_SECONDS = 3
PING_SECONDS = 2.0
IDLE_INTERVAL_US = 4000
LOADED_INTERVAL_US = 2000
IP_UDP_HEADERS = 28
UDP_SIZES = {"64B": 64, "200B": 200, "full": INNER_MTU}
"""Of whole IP packets."""
_PORT = 7200


def one_stream(contender: Contender) -> Sample:
    """One TCP stream up; CPU seconds per Gbit of both ends, of the tools, of the machine; PSS of the processes."""
    before = _cpu(contender)
    mbit = _tcp(contender, 1, reverse=False)
    gbit = mbit * TCP_SECONDS / 1000
    costs = {f"tcp.cpu.{who}": ratio(time - before[who], gbit) for who, time in _cpu(contender).items()}
    memory = {f"memory.busy.{end}": sum(contender.pss(side)) for end, side in _ends(contender).items()}
    return {"tcp.one_stream": mbit, **costs, **memory}


def other_streams(contender: Contender) -> Sample:
    """One stream down, four streams up and down."""
    return {
        "tcp.one_stream_down": _tcp(contender, 1, reverse=True),
        "tcp.four_streams": _tcp(contender, 4, reverse=False),
        "tcp.four_streams_down": _tcp(contender, 4, reverse=True),
    }


def udp(contender: Contender) -> Sample:
    """The highest rates free of loss, in 1,000 packets per second, by the size of the packets."""
    return {
        f"udp.{label}": load.highest_rate(contender, size - IP_UDP_HEADERS) / 1000
        for label, size in UDP_SIZES.items()
    }


def idle_rtt(contender: Contender) -> Sample:
    """Round trips while nothing else is under way, in ms."""
    return _round_trips("rtt.idle", load.ping(contender, IDLE_INTERVAL_US, PING_SECONDS))


def loaded_rtt(contender: Contender) -> Sample:
    """Round trips beside one TCP stream at full speed."""
    stream = TcpRun(contender, "site", "hub", _flow(contender, 1, reverse=False), TCP_SECONDS)
    times = load.ping(contender, LOADED_INTERVAL_US, PING_SECONDS)
    stream.result()
    return _round_trips("rtt.loaded", times)


MEASURES: tuple[Measure, ...] = (idle_rtt, loaded_rtt, one_stream, other_streams, udp)


def _flow(contender: Contender, streams: int, *, reverse: bool) -> TcpFlow:
    via = Via(device=contender.device)
    return TcpFlow(target=contender.far, port=_PORT, reverse=reverse, streams=streams, via=via)


def _tcp(contender: Contender, streams: int, *, reverse: bool) -> float:
    flow = _flow(contender, streams, reverse=reverse)
    return TcpRun(contender, "site", "hub", flow, TCP_SECONDS).result().mbit


def _cpu(contender: Contender) -> Sample:
    """CPU seconds so far; `tools` are the programs we started and that ended, the rest of `machine` is the kernel's
    work for others and whatever else runs here."""
    machine = psutil.cpu_times()
    tools = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        **{end: contender.cpu(side) for end, side in _ends(contender).items()},
        "tools": tools.ru_utime + tools.ru_stime,
        "machine": machine.user + machine.nice + machine.system + machine.irq + machine.softirq,
    }


def _ends(contender: Contender) -> dict[str, Side]:
    """Who sends and who receives, of those that have processes of their own."""
    ends: dict[str, Side] = {"send": "site", "receive": "hub"}
    return {end: side for end, side in ends.items() if contender.pids(side)}


def _round_trips(name: str, times: list[float | None]) -> Sample:
    answered = sorted(time / 1000 for time in times if time is not None)
    return {
        f"{name}.p50": percentile(answered, 50),
        f"{name}.p99": percentile(answered, 99),
        f"{name}.lost": 1 - len(answered) / len(times),
    }
