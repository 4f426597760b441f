"""A flood against a hub's port: what it costs the critical class of another WAN, and that of the same port."""

from __future__ import annotations

from pathlib import Path

from tools import flood
from tools.acceptance.ground import running, say
from tools.lab_config import HUB_NAME, SITE_NAME
from tools.ping import Stream
from tools.ping_report import Window
from tools.results import Results
from tools.sockets import Via
from tools.system import System
from tools.topology import HUB
from tools.traffic import start_flood, start_pings
from tools.wait import pause

PROBES = 10_000
RATE = 200.0
SETTLE = 2.0
WATCHED, TARGET = "cr2", "br2"
"""The tunnel whose probes count, and the one whose class and port are flooded."""


def flooded(results: Results) -> None:
    """Spoofed Initials, then garbage, as fast as one process sends: cr2 loses 0 of 10,000 probes."""
    with running() as system:
        quiet = _watch(system)
        _report(results, "flood.quiet", quiet)
        plan = system.tunnels[TARGET]
        assert plan.traffic_class is not None
        pki = system.deployment.pki
        for kind in ("initials", "garbage"):
            order = flood.Order(
                kind=kind,
                hub=HUB,
                port=plan.hub_port,
                hub_name=HUB_NAME,
                traffic_class=plan.traffic_class,
                ca=Path(pki, "ca.crt").read_text(),
                certificate=Path(pki, f"{SITE_NAME}.crt").read_text(),
            )
            before = system.counters("hub")["ens3"][0]
            run = start_flood(system.lab, "router", order)
            pause(SETTLE)
            window = _watch(system)
            sent = run.result()
            arrived = system.counters("hub")["ens3"][0] - before
            results.add(f"flood.{kind}.rate", [sent.sent / sent.seconds / 1000], "kpps")
            results.add(f"flood.{kind}.at_the_hub", [arrived / sent.seconds / 1000], "kpps")
            say(f"{kind}: {sent.sent} sent in {sent.seconds:.1f} s, {arrived} packets came to the hub")
            _report(results, f"flood.{kind}", window)
            pause(SETTLE)


# ---------------------------------------------------------------- helpers


def _watch(system: System) -> Window:
    target = system.tunnels[WATCHED].peer4
    assert target is not None
    stream = Stream(name=WATCHED, target=target, rate=RATE, via=Via(device=WATCHED))
    return start_pings(system.lab, "site", [stream], PROBES / RATE).result()[WATCHED].window()


def _report(results: Results, key: str, window: Window) -> None:
    results.add(f"{key}.{WATCHED}.lost", [window.lost], f"of {window.sent}", target=0)
    results.add(f"{key}.{WATCHED}.rtt_p50", [window.p50_ms], "ms")
    results.add(f"{key}.{WATCHED}.rtt_p99", [window.p99_ms], "ms")
    say(f"{key}: {WATCHED} lost {window.lost} of {window.sent}, p50 {window.p50_ms:.1f}, p99 {window.p99_ms:.1f} ms")
