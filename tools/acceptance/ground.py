"""What the experiments stand on: the lab with nine tunnels up, and the traffic that measures them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

from tools.lab import Lab
from tools.lab_config import Deployment, deploy
from tools.ping import Stream
from tools.ping_report import Window
from tools.probe_report import ProbeStream
from tools.results import Results, percentile
from tools.sockets import Via
from tools.system import System
from tools.topology import WANS, Role
from tools.udp_load import LoadFlow

RTT_MS = 20
MBIT = 15.0
LOAD_PORT = 7000

Way = Literal["up", "down"]
ENDS: dict[Way, tuple[Role, Role]] = {"up": ("site", "hub"), "down": ("hub", "site")}
WAYS: tuple[Way, ...] = ("up", "down")


@contextmanager
def running(
    *,
    rate_mbit: float | None = None,
    site_cpus: tuple[int, ...] = (),
    hub_cpus: tuple[int, ...] = (),
    edit: Callable[[str], str] = str,
) -> Iterator[System]:
    """Both ends in a lab, all nine tunnels up. `edit` changes the text of both configuration files."""
    with Lab() as lab:
        for wan in WANS:
            lab.delay(wan, RTT_MS)
        deployment = deploy(lab.directory, rate_mbit=rate_mbit, site_cpus=site_cpus, hub_cpus=hub_cpus)
        for path in (deployment.site, deployment.hub):
            path.write_text(edit(path.read_text()))
        system = System(lab, deployment)
        system.start("hub", "site")
        lab.wait_up()
        yield system


@contextmanager
def nine(
    *,
    rate_mbit: float | None = None,
    site_cpus: tuple[int, ...] = (),
    hub_cpus: tuple[int, ...] = (),
) -> Iterator[tuple[Lab, Deployment]]:
    """The lab and the deployment of a running system."""
    with running(rate_mbit=rate_mbit, site_cpus=site_cpus, hub_cpus=hub_cpus) as system:
        yield system.lab, system.deployment


def echo(deployment: Deployment, tunnel: str, rate: float = 100.0) -> Stream:
    """Pings from the site through one tunnel to the hub's inner address."""
    plan = deployment.tunnels[tunnel]
    assert plan.peer4 is not None
    return Stream(name=tunnel, target=plan.peer4, rate=rate, via=Via(device=tunnel))


def load(deployment: Deployment, tunnel: str, way: Way, mbit: float | None, size: int = 1200) -> LoadFlow:
    """UDP through one tunnel: from the site to the hub's inner address, or from the hub to the site's."""
    plan = deployment.tunnels[tunnel]
    target, via = (plan.peer4, Via(device=tunnel)) if way == "up" else (plan.inner4, Via())
    assert target is not None
    return LoadFlow(name=tunnel, target=target, port=LOAD_PORT + plan.index, mbit=mbit, size=size, via=via)


def describe(window: Window) -> str:
    """A window in words."""
    return f"{window.lost} of {window.sent} pings lost, RTT p50 {window.p50_ms:.1f} p99 {window.p99_ms:.1f} ms"


def say(text: str) -> None:
    """A line of progress."""
    print(text, flush=True)


def add_outages(results: Results, key: str, outages: list[float], *, p50: float | None = None) -> None:
    """Rows for outages in ms, one a fault: the median with all of them, the 99th percentile, the longest."""
    results.add(f"{key}.p50", outages, "ms", target=p50)
    results.add(f"{key}.p99", [percentile(sorted(outages), 99)], "ms")
    results.add(f"{key}.max", [max(outages)], "ms")


def total(streams: Iterable[ProbeStream]) -> tuple[int, int, int]:
    """Probes sent, lost, and overtaken, all streams together."""
    streams = list(streams)
    return (
        sum(len(stream.sent) for stream in streams),
        sum(stream.lost for stream in streams),
        sum(len(stream.reordered) for stream in streams),
    )


def longest_outage_ms(streams: Iterable[ProbeStream], begin_ns: int, end_ns: int) -> float:
    """The longest outage of any stream that began within a window; 0 if none lost anything then."""
    return max((outage.ms for stream in streams for outage in stream.outages(begin_ns, end_ns)), default=0.0)
