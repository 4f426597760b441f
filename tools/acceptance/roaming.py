"""What changes under a tunnel while it lives: the address that a NAT gives it, and its keys."""

from __future__ import annotations

import json
import select
import socket
import time
from contextlib import ExitStack

from tools.acceptance.ground import RTT_MS, add_outages, load, longest_outage_ms, running, say, total
from tools.results import Results
from tools.sockets import Via, open_datagram
from tools.system import System
from tools.traffic import start_load, start_probes
from tools.wait import pause, until

REBINDS = 50
SPACING = 1.0
SETTLE = 2.0
PROBE_INTERVAL = 0.25  # seconds; how often an idle site probes its path
WAN = 5
TUNNELS = ("cr2", "br2", "df2")
KPPS = 5.0
KEY_SECONDS = 20
KEY_PACKETS = 5000
_SIZE = 700
"""Bytes of payload: two of these do not share one packet of the tunnel, so that packets and losses can be counted."""


def rebind(results: Results) -> None:
    """50 times another public address by the NAT of wan5: under traffic, and while the site sends nothing."""
    with running() as system:
        system.lab.rebind(WAN)
        pause(SETTLE)
        probes = start_probes(system.lab, "lan", "server", system.deployment.probes())
        times = _rebinds(system)
        streams = probes.result()
        idle = _idle(system)
    own = [stream for stream in streams if stream.name in TUNNELS]
    _, others, _ = total(stream for stream in streams if stream.name not in TUNNELS)
    busy = [longest_outage_ms(own, begin, begin + round(SPACING * 1e9)) for begin in times]
    for name, outages in (("busy", busy), ("idle", idle)):
        add_outages(results, f"rebind.{name}.outage", outages, p50=200)
        say(f"{REBINDS} rebindings, {name}: outage {min(outages):.0f} to {max(outages):.0f} ms")
    results.add("rebind.others_lost", [others], "probes", target=0)


def key_updates(results: Results) -> None:
    """Keys changed every 5,000 packets by both ends, 5 kpps, 2 % loss and reordering: none lost by the update."""

    def often(text: str) -> str:
        return text.replace("supervisor = {", f"supervisor = {{ key_update_packets = {KEY_PACKETS},")

    with running(edit=often) as system:
        lab, flow = system.lab, system.deployment.flow("df2")
        lab.reorder(WAN, 2, 3)
        lab.loss(flow, 2, "up")
        before = _drops(system)
        flows = [load(system.deployment, "df2", "up", KPPS * 8e-3 * _SIZE, _SIZE)]
        sent = start_load(lab, "site", "hub", flows, KEY_SECONDS).result()["df2"]
        pause(SETTLE)  # the last report
        dropped = lab.loss_counts()[flow].lost
        after = _drops(system)
        site = system.workers("site")["df2"]
    drops = {name: count - before.get(name, 0) for name, count in after.items() if count > before.get(name, 0)}
    missing = sent.sent - sent.received
    results.add("key_updates.updates", [site.key_updates], f"in {KEY_SECONDS} s", target=5, better="higher")
    results.add("key_updates.reconnects", [site.reconnects], "reconnects", target=0)
    unexplained = missing - dropped - sum(drops.values())
    unit = f"of {sent.sent}; the router took {dropped}, full queues {sum(drops.values())}"
    results.add("key_updates.lost_otherwise", [unexplained], unit, target=0)
    say(f"{site.key_updates} updates, {sent.sent} sent, {missing} missing, {dropped} by the router, drops {drops}")


# ---------------------------------------------------------------- helpers


def _drops(system: System) -> dict[str, int]:
    """What queues of both ends had no room for, by place and reason."""
    drops = {f"site {name}": count for name, count in system.workers("site")["df2"].drops.items()}
    links = json.loads(system.lab.run("site", ["ip", "-j", "-s", "link", "show", "df2"]).stdout)
    return {**drops, "TUN of the site": links[0]["stats64"]["tx"]["dropped"]}


def _rebinds(system: System) -> list[int]:
    pause(SETTLE)
    times = []
    for _ in range(REBINDS):
        times.append(time.monotonic_ns())
        system.lab.rebind(WAN)
        pause(SPACING)
    return times


def _idle(system: System) -> list[float]:
    """Milliseconds from each rebinding until the hub reaches a site again that had nothing to send."""
    target = system.tunnels[TUNNELS[0]].inner4
    assert target is not None
    found = []
    with ExitStack() as stack:
        with system.inside("hub"):
            sock = stack.enter_context(open_datagram(target, socket.IPPROTO_ICMP, Via()))
        for number in range(REBINDS):
            pause(SPACING + number / REBINDS * PROBE_INTERVAL)  # at every phase of the site's own probes
            begin = time.monotonic()
            system.lab.rebind(WAN)
            pause(2 * RTT_MS / 1000)  # what was under way has passed
            until(lambda: _answers(sock, target), seconds=10)
            found.append((time.monotonic() - begin) * 1000 - RTT_MS)
            until(lambda: not _answers(sock, ""))
    return found


def _answers(sock: socket.socket, target: str) -> bool:
    """Send an echo request, if there is a target, and see whether anything comes within 5 ms."""
    if target:
        sock.sendto(b"\x08\0\0\0\0\0\0\0", (target, 0))
    if not select.select([sock], [], [], 0.005)[0]:
        return False
    sock.recv(2048)
    return True
