"""The portal beside nine tunnels: its figures against the kernel's, and what its death does to them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.netns.portals import Portal, open_portals
from tests.netns.product import System
from tools.product import Side
from tools.wait import end, until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

RTT = 0.020  # of the fixture's lab
NOISE = 5
"""Packets of the kernel's own that it counts at a TUN and the worker drops."""


@pytest.fixture(scope="module")
def portals(running: System) -> Iterator[dict[Side, Portal]]:
    with open_portals(running) as portals:
        yield portals


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

        until(agrees, lambda portal=portal: str(portal.rtts()))  # type: ignore[misc]  # a lambda's default
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


def test_a_field_is_changed_in_the_file_and_in_the_kernel(running: System, portals: dict[Side, Portal]) -> None:
    portal, file, pids = portals["site"], running.configs["site"], running.pids("site")
    path, field = "/api/v1/tunnels/br2/config", "wan[wan5].rate_mbit"
    known = {one["path"]: one for one in json.loads(portal.get(path))}
    assert (known[field]["effect"], known[field]["coupled"]) == ("hot", False)
    status, body = portal.ask("PATCH", path, "admin", {"changes": {field: 77.0}})
    assert (status, json.loads(body)["workers"]) == (200, {}), body
    assert "rate_mbit = 77.0" in file.read_text()
    with running.inside("site"):
        assert (
            "77Mbit"
            in subprocess.run(["tc", "class", "show", "dev", "wan5"], stdout=-1, text=True, check=True).stdout
        )
    assert running.products["site"].ctl("plan").lines == ("no difference",)
    text = file.read_text()
    status, body = portal.ask("PATCH", path, "admin", {"changes": {field: -1}})
    assert (status, "rate_mbit" in json.loads(body)["extra"][0], file.read_text()) == (422, True, text)
    assert portal.ask("PATCH", path, "operator", {"changes": {field: 1.0}})[0] == 403
    assert portal.ask("PATCH", path, "admin", {"changes": {field: known[field]["value"]}})[0] == 200
    assert running.pids("site") == pids
