"""What a real Prometheus reads of nine tunnels at work, beside the kernel, the router and what the lab injects."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from statistics import fmean, median
from typing import Any

import msgspec
import pytest

from tests.netns.portals import Portal
from tests.netns.product import System, wan_of
from tests.portal_full.prometheus import INTERVAL, RULES, Prometheus, prometheus
from tools.acceptance.ground import echo
from tools.ping import Stream
from tools.product import Side
from tools.results import Results
from tools.sockets import Via
from tools.topology import HUB, WANS
from tools.traffic import start_pings

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

SECONDS = int(os.environ.get("MPQ_SECONDS", "60"))
RTTS = dict(zip(WANS, (20, 60, 110), strict=True))
LOSSY, LOSSY_AT_HUB, LOSS = "br2", "mt5.bulk", 10
RATE, SIZE = 200.0, 1000
AGREES = 1.0
"""Percent that a counter may differ from another's of the same packets."""
PORTS = "45010-45012"  # of the hub
DROPPED = "mpq_tunnel_dropped_packets_total"
WHAT = ("received_packets", "sent_packets", "received_bytes", "sent_bytes")
OUTER = {"sent": "dst", "received": "src"}


@pytest.fixture(scope="module")
def server(
    running: System, portals: dict[Side, Portal], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    with prometheus(running, "site", tmp_path_factory.mktemp("prometheus")) as server:
        yield server


def test_promtool_is_content(portals: dict[Side, Portal]) -> None:
    checked = subprocess.run(["promtool", "check", "rules", RULES], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
    for portal in portals.values():
        page = portal.get("/metrics")
        lint = subprocess.run(["promtool", "check", "metrics"], input=page, capture_output=True, check=False)
        assert (lint.returncode, lint.stdout, lint.stderr) == (0, b"", b""), portal.side


def test_minutes_of_work(running: System, portals: dict[Side, Portal], server: Prometheus, results: Results) -> None:
    """Nine tunnels carry traffic both ways over WANs of 20, 60 and 110 ms; one of them loses every tenth packet."""
    lab, names, deployment = running.lab, running.tunnels, running.deployment
    for wan, rtt in RTTS.items():
        lab.delay(wan, rtt)
    lab.loss(deployment.flow(LOSSY), LOSS, "up")
    server.until_scraped(4)
    begin, kernel = counters(server), kernel_counters(running)
    at_the_hub = hub_received(portals["hub"])
    captures = {
        (wan, way): lab.capture("router", f"r{wan}", f"udp {end} portrange {PORTS}")
        for wan in WANS
        for way, end in OUTER.items()
    }
    lossless = lab.loss_counts()[deployment.flow(LOSSY)]
    # echoes, which no end makes super-packets of: the kernel counts those as one
    streams = [msgspec.structs.replace(echo(deployment, name, RATE), size=SIZE) for name in names]
    bare = [Stream(name=f"wan{wan}", target=HUB, rate=20.0, size=SIZE, via=Via(device=f"wan{wan}")) for wan in WANS]
    replies = start_pings(lab, "site", streams + bare, SECONDS).result()
    lossy = f'mpq_path_loss_ratio{{tunnel="{LOSSY}",direction="sent"}}'
    (gauge,) = server.ask(f"100 * avg_over_time({lossy}[{SECONDS - 10}s] offset {INTERVAL}s)")
    firing = [alert["labels"] for alert in server.get("alerts")["alerts"] if alert["state"] == "firing"]
    server.until_scraped(2)
    outside = {key: capture.stop() for key, capture in captures.items()}
    dropped = lab.loss_counts()[deployment.flow(LOSSY)]
    grown = {key: value - begin[key] for key, value in counters(server).items()}

    # the kernel's counters of each TUN; what was read of it and dropped, CoDel's choice, is the worker's to tell
    now = kernel_counters(running)
    results.add("prometheus.dropped", [sum(grown[DROPPED, name] for name in names)], "packets")
    for what in WHAT:
        away = {}
        for name in names:
            counted, sent = grown[f"mpq_tunnel_{what}_total", name], grown["mpq_tunnel_sent_packets_total", name]
            if what.startswith("sent"):  # all are of one size
                counted *= 1 + grown[DROPPED, name] / sent
            away[name] = apart(counted, now[name][what] - kernel[name][what])
        results.add(f"prometheus.{what}.off_the_kernel", [max(away.values())], "%", target=AGREES)
        assert max(away.values()) <= AGREES, away
    # the router's of each WAN
    for (wan, way), there in outside.items():
        counted = sum(grown[f"mpq_path_{way}_packets_total", name] for name in names if wan_of(name) == wan)
        results.add(f"prometheus.wan{wan}.{way}.outside", [there], "packets")
        row = results.add(f"prometheus.wan{wan}.{way}.off_the_outside", [apart(counted, there)], "%", target=AGREES)
        assert row.met, (counted, there)
    # what the lab injects
    for wan, rtt in RTTS.items():
        mine = [name for name in names if wan_of(name) == wan]
        probes = [mean_ms(grown, "mpq_path_probe_rtt_seconds", name) for name in mine]
        gauges = server.ask(f'1e3 * avg_over_time(mpq_path_rtt_seconds{{wan="wan{wan}"}}[{SECONDS}s])')
        pings = [replies[name].window().p50_ms for name in mine]
        bare_wan = replies[f"wan{wan}"].window().p50_ms
        smoothed = [one.values[0] for one in gauges]
        kinds = {"bare": [bare_wan], "ping": pings, "probe": probes, "smoothed": smoothed}
        for kind, values in kinds.items():
            results.add(f"prometheus.wan{wan}.{kind}_rtt", values, "ms")
            assert min(values) >= 0.98 * rtt, (wan, kind, values)
        for kind in ("probe", "smoothed"):
            beyond = median(kinds[kind]) - bare_wan
            results.add(f"prometheus.wan{wan}.{kind}_rtt.beyond_the_bare_wan", [beyond], "ms")
            results.add(f"prometheus.wan{wan}.{kind}_rtt.off", [apart(median(kinds[kind]), rtt)], "%", target=10)
    injected = 100 * (dropped.lost - lossless.lost) / (dropped.seen - lossless.seen)
    arrived = hub_received(portals["hub"]) - at_the_hub
    lost = 100 * (1 - arrived / grown["mpq_path_sent_packets_total", LOSSY])
    results.add("prometheus.loss.injected", [injected], "%")
    results.add("prometheus.loss.sent_and_received", [lost], "%")
    results.add("prometheus.loss.gauge", gauge.values, "%")
    assert abs(lost - injected) < 0.5
    assert abs(gauge.values[0] - injected) < 2
    others = sum(grown["mpq_path_lost_packets_total", name] for name in names if name != LOSSY)
    results.add("prometheus.loss.of_the_others", [others], "packets")
    if SECONDS >= 45:
        assert {(labels["alertname"], labels.get("tunnel")) for labels in firing} == {("MpqLoss", LOSSY)}


def test_the_scrapes(portals: dict[Side, Portal], server: Prometheus, results: Results) -> None:
    (good,) = server.ask('up{job="mpq"}[1h]')
    results.add("prometheus.scrapes", [len(good.values)], "scrapes")
    results.add("prometheus.scrapes.failed", [good.values.count(0)], "scrapes", target=0)
    (complaints,) = server.ask('sum({__name__=~"prometheus_target_scrapes?_.*(exceeded|out_of|duplicate).*_total"})')
    results.add("prometheus.scrapes.complaints", complaints.values, "samples", target=0)
    (samples,) = server.ask('scrape_samples_scraped{job="mpq"}')
    results.add("prometheus.page.samples", samples.values, "samples")
    results.add("prometheus.page.size", [len(portals["site"].get("/metrics")) / 1e3], "kB")
    (took,) = server.ask('scrape_duration_seconds{job="mpq"}[1h]')
    results.add("prometheus.scrape.mean", [1e3 * fmean(took.values)], "ms")
    results.add("prometheus.scrape.max", [1e3 * max(took.values)], "ms")
    assert good.values.count(0) == complaints.values[0] == 0
    assert sum(family["health"] != "ok" for group in server.get("rules")["groups"] for family in group["rules"]) == 0


# ---------------------------------------------------------------- helpers


def counters(server: Prometheus) -> dict[tuple[str, str], float]:
    """As they were last scraped, by metric and tunnel."""
    found = server.ask('{__name__=~"mpq_(tunnel|path)_.*_(total|sum|count)",reason="",cause=""}')
    counted = {(one.labels["__name__"], one.labels["tunnel"]): one.values[0] for one in found}
    drops = {one.labels["tunnel"]: one.values[0] for one in server.ask(f"sum by (tunnel) ({DROPPED})")}
    return counted | {(DROPPED, name): drops.get(name, 0.0) for _, name in counted}


def hub_received(portal: Portal) -> float:
    """Packets of the lossy tunnel that the hub has opened."""
    values = portal.metrics()["mpq_path_received_packets_total"]
    (found,) = (value for labels, value in values.items() if ("tunnel", LOSSY_AT_HUB) in labels)
    return found


def kernel_counters(running: System) -> dict[str, dict[str, int]]:
    """Of each interface of the site, by its name; at a TUN, received is what comes out of the tunnel."""
    links: list[dict[str, Any]] = json.loads(running.lab.run("site", ["ip", "-j", "-s", "link"]).stdout)
    return {
        link["ifname"]: {
            f"{way}_{what}": link["stats64"][short][what]
            for way, short in (("received", "rx"), ("sent", "tx"))
            for what in ("packets", "bytes")
        }
        for link in links
    }


def mean_ms(grown: dict[tuple[str, str], float], histogram: str, tunnel: str) -> float:
    """What a histogram of seconds says."""
    return 1e3 * grown[f"{histogram}_sum", tunnel] / grown[f"{histogram}_count", tunnel]


def apart(one: float, other: float) -> float:
    """By how many percent of the other."""
    return 100 * abs(one - other) / other
