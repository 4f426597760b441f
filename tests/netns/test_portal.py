"""The portal beside nine tunnels: its figures against the kernel's, and what its death does to them."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
from collections.abc import Iterator
from typing import NamedTuple

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from mpq_supervisor.portal.auth import hash_of
from tests.netns.product import System, ok
from tools.product import Side
from tools.system import SIDES
from tools.wait import end, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

PORT = 8450
RTT = 0.020  # of the fixture's lab
NOISE = 5
"""Packets of the kernel's own that it counts at a TUN and the worker drops."""
TOKEN = secrets.token_urlsafe(32)

Samples = dict[str, dict[frozenset[tuple[str, str]], float]]


class Portal(NamedTuple):
    """That of one end."""

    system: System
    side: Side

    def get(self, path: str) -> bytes:
        with self.system.inside(self.side):
            connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=10)
            connection.connect()
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            return body
        finally:
            connection.close()

    def metrics(self) -> Samples:
        """Sample name → labels → value."""
        found: Samples = {}
        for family in text_string_to_metric_families(self.get("/metrics").decode()):
            for sample in family.samples:
                found.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
        return found

    def by_tunnel(self, name: str) -> dict[str, float]:
        """The values of a metric of tunnels."""
        return {dict(labels)["tunnel"]: value for labels, value in self.metrics().get(name, {}).items()}

    def rtts(self) -> list[float]:
        """Of all paths, smoothed."""
        return list(self.metrics()["mpq_path_rtt_seconds"].values())

    def answers(self) -> bool:
        try:
            return len(self.by_tunnel("mpq_tunnel_up")) == 9
        except ConnectionError:
            return False

    def pid(self) -> int:
        (pid,) = (
            child.pid
            for child in psutil.Process(self.system.products[self.side].pid).children()
            if "mpq_supervisor.portal" in child.cmdline()
        )
        return pid


@pytest.fixture(scope="module")
def portals(running: System) -> Iterator[dict[Side, Portal]]:
    """One at each end, begun by a reload that touches no tunnel."""
    token = f'{{ name = "test", role = "operator", hash = "{hash_of(TOKEN)}" }}'
    pids = {side: running.pids(side) for side in SIDES}
    for side in SIDES:
        running.edit(side, f'role = "{side}"', f'role = "{side}"\nportal = {{ token = [{token}] }}')
        ok(running.lab.ctl(side, "reload"))
    found = {side: Portal(running, side) for side in SIDES}
    for portal in found.values():
        until(portal.answers, seconds=60)
    assert {side: running.pids(side) for side in SIDES} == pids
    with running.logged("site") as lines:
        yield found
    print("\n".join(lines))
    running.restore()


def test_counters_agree_with_the_kernel(running: System, portals: dict[Side, Portal]) -> None:
    portal = portals["site"]

    def worker() -> dict[str, tuple[float, float]]:
        samples = [portal.by_tunnel(f"mpq_tunnel_{way}_packets_total") for way in ("received", "sent")]
        return {name: (samples[0][name], samples[1][name]) for name in running.tunnels}

    def settled() -> dict[str, tuple[float, float]]:
        """Once a report has told of all that went before."""
        at = portal.metrics()["mpq_feed_timestamp_seconds"][frozenset()]
        until(lambda: portal.metrics()["mpq_feed_timestamp_seconds"][frozenset()] > at + 2)
        return worker()

    before, kernel_before = settled(), running.counters("site")
    with running.pinged() as pings:
        until(
            lambda: min(c[0] - kernel_before[n][0] for n, c in running.counters("site").items() if n in before) > 300
        )
    assert not pings.lost()
    kernel_after, after = running.counters("site"), settled()
    for name in running.tunnels:
        for way in (0, 1):
            counted = after[name][way] - before[name][way]
            kernel = kernel_after[name][way] - kernel_before[name][way]
            assert abs(counted - kernel) <= NOISE + 0.01 * kernel, (name, way, counted, kernel)


def test_round_trips_agree_with_the_lab(portals: dict[Side, Portal]) -> None:
    for portal in portals.values():

        def agrees(portal: Portal = portal) -> bool:
            return all(0.9 * RTT <= rtt < 1.5 * RTT for rtt in portal.rtts())

        until(agrees, lambda portal=portal: str(portal.rtts()))  # type: ignore[misc]
    samples = portals["site"].metrics()
    paths = {(dict(k)["tunnel"], dict(k)["path"], dict(k)["site"]) for k in samples["mpq_path_rtt_seconds"]}
    assert len(paths) == 9
    assert {site for _, _, site in paths} == {"ship1"}
    assert all(count > 0 for count in samples["mpq_path_probe_rtt_seconds_count"].values())


def test_a_killed_worker_is_counted(running: System, portals: dict[Side, Portal]) -> None:
    portal = portals["site"]
    pid = running.pids("site")["br2"]
    end(pid)
    running.until_replaced("site", "br2", pid)
    cause = frozenset({("tunnel", "br2"), ("wan", "wan5"), ("class", "bulk"), ("cause", "crash")})
    until(lambda: portal.metrics().get("mpq_tunnel_restarts_total", {}).get(cause) == 1.0)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_no_tunnel_notices_what_becomes_of_the_portal(
    running: System, portals: dict[Side, Portal], number: signal.Signals
) -> None:
    portal, pids = portals["site"], running.pids("site")
    with running.pinged() as pings:
        os.kill(portal.pid(), number)
        if number == signal.SIGSTOP:
            os.kill(portal.pid(), signal.SIGCONT)
        until(portal.answers, seconds=60)  # it comes last on the CPU
    assert not pings.lost()
    assert running.pids("site") == pids
