"""Links that come, go and change: after each event the kernel is as it should be, and nobody else noticed.

Meanwhile each tunnel carries numbered probes, and a TCP connection that lives from the first event to the last and
has data under way during each. The router counts what does not belong on the WAN where it came.
"""

from __future__ import annotations

import select
import socket
import time
from contextlib import ExitStack
from typing import NamedTuple

from mpq_supervisor.lifecycle import State
from tools.acceptance.ground import running, say
from tools.acceptance.link_events import Changer, Event, make_plan
from tools.kernel import Kernel, kernel
from tools.probe_report import ProbeStream
from tools.results import Results, percentile
from tools.sockets import open_connection
from tools.system import System
from tools.topology import HUB6, SERVER, WANS
from tools.traffic import start_probes
from tools.wait import pause

EVENTS = 200
SEED = 1
PORT = 7300
RATE = 50.0
CALM_NS = 1_000_000_000
"""After an event of its own WAN a stream may still lose what is sent within this time."""
PATIENCE = 40.0
"""Seconds after which what is not yet as it should be counts as wrong."""


class Report(NamedTuple):
    """What came of a number of events.

    `wrong` is what was never as it should be, `quiet` how many seconds each took until all was; `broken` are tunnels
    whose TCP connection broke, each with the WAN of the event; `astray` are packets on a WAN where they do not
    belong, `clear` such of the LANs; `others_lost` are probes of other WANs than the event's, of all `sent`.
    """

    wrong: list[str]
    quiet: list[float]
    broken: list[tuple[str, int]]
    astray: int
    clear: int
    others_lost: int
    sent: int


def links(results: Results, count: int = EVENTS) -> None:
    """200 seeded events of links: kernel as desired when quiet, nothing by a wrong WAN, no TCP connection breaks."""
    with running(edit=eager) as system:
        report = exercise(system, make_plan(SEED, count))
    others = sum(1 for name, wan in report.broken if system.tunnels[name].wan != f"wan{wan}")
    results.add("links.not_as_desired", [len(report.wrong)], f"in {count} events", target=0)
    results.add("links.quiet.p50", report.quiet, "s")
    results.add("links.quiet.p99", [percentile(sorted(report.quiet), 99)], "s")
    results.add("links.by_a_wrong_wan", [report.astray], "packets", target=0)
    results.add("links.in_clear", [report.clear], "packets", target=0)
    results.add("links.tcp.broken_on_other_wans", [others], f"of {6 * count}", target=0)
    results.add("links.tcp.broken_on_the_wan", [len(report.broken) - others], f"of {3 * count}", target=0)
    results.add("links.others_lost", [report.others_lost], f"of {report.sent} probes", target=0)
    say(f"wrong {report.wrong}; astray {report.astray}, in clear {report.clear}; broken {report.broken}")


def eager(text: str) -> str:
    """For `running`: a tunnel has its traffic back at once, and the last WAN's go over IPv6."""
    wan = f'interface = "wan{WANS[-1]}"\n'
    text = text.replace(wan, f'{wan}hub_address = "{HUB6}"\n')
    return text.replace('role = "site"\n', 'role = "site"\nwatchdog = { failback_after = 0.3 }\n')


def exercise(system: System, plan: list[Event]) -> Report:
    """Does the events, one after the other, each when the last one's effects are over."""
    wrong: list[str] = []
    quiet: list[float] = []
    broken: list[tuple[str, int]] = []
    spans: list[tuple[int, int, int]] = []
    with ExitStack() as stack:
        site = stack.enter_context(kernel(system, "site"))
        system.lab.run("router", ["nft", guard_table()])
        _until_quiet(system, site)
        connections = _Connections(stack, system)
        probes = start_probes(system.lab, "lan", "server", system.deployment.probes(), RATE)
        changer = Changer(system.lab)
        for number, event in enumerate(plan, 1):
            begin = time.monotonic_ns()
            connections.send()
            changer.do(event)
            done = time.monotonic()
            left = _until_quiet(system, site)
            wrong += [f"{number} {event.kind}: {line}" for line in left]
            quiet.append(time.monotonic() - done)
            lost = connections.receive()
            broken += [(name, event.wan) for name in lost]
            spans.append((event.wan, begin, time.monotonic_ns()))
            say(f"{number:4} {event.kind:8} wan{event.wan}: quiet after {quiet[-1]:.1f} s {left or ''}{lost or ''}")
        streams = probes.result()
    astray = system.lab.counters("wrong")["wrong"]
    if astray:
        say(system.lab.run("router", ["nft", "list", "table", "inet", "wrong"]).stdout)
    others_lost = sum(_unexcused(system, stream, spans) for stream in streams)
    sent = sum(len(stream.sent) for stream in streams)
    return Report(wrong, quiet, broken, astray, system.lab.leaks().site, others_lost, sent)


def guard_table() -> str:
    """nft table of the router that counts what came by a WAN with another one's address, or to another one's port."""
    rules = [
        f'iifname "r{k}" {what} counter name "wrong"'
        for n, k in enumerate(WANS)
        for what in (
            f"ip saddr & 255.192.255.0 != 100.64.{k}.0 add @wrong4 {{ iifname . ip saddr }}",
            f"ip6 saddr & ffff:ffff:ffff:: != 2001:db8:{k}:: ip6 saddr != {{ ::, fe80::/10 }} "
            "add @wrong6 { iifname . ip6 saddr }",
            f"udp dport 45010-45012 udp dport != {45010 + n} add @ports {{ iifname . udp dport }}",
        )
    ]
    kinds = {"wrong4": "ipv4_addr", "wrong6": "ipv6_addr", "ports": "inet_service"}
    sets = [f"set {name} {{ type ifname . {kind}; size 64; flags dynamic; }}" for name, kind in kinds.items()]
    chain = "\n".join(["type filter hook prerouting priority raw - 1;", *rules])
    return "\n".join(["table inet wrong {", "counter wrong { }", *sets, f"chain prerouting {{\n{chain}\n}}", "}"])


# ---------------------------------------------------------------- helpers


class _Connections:
    """A TCP connection through each tunnel, from the LAN host to the server. One that broke is replaced."""

    def __init__(self, stack: ExitStack, system: System) -> None:
        self._stack, self._system = stack, system
        with system.inside("server"):
            self._listener = stack.enter_context(socket.create_server((SERVER, PORT)))
        self._pairs = {name: self._connect(name) for name in system.tunnels}
        self._number = 0

    def send(self) -> None:
        """Gives each something to carry, both ways."""
        self._number += 1
        for pair in self._pairs.values():
            for sock in pair:
                sock.send(self._message())

    def receive(self) -> list[str]:
        """Those on which it has not arrived."""
        broken = [name for name, pair in self._pairs.items() if not all(map(self._has_arrived, pair))]
        for name in broken:
            self._pairs[name] = self._connect(name)
        return broken

    def _message(self) -> bytes:
        return self._number.to_bytes(8)

    def _has_arrived(self, sock: socket.socket) -> bool:
        try:
            return bool(select.select([sock], [], [], PATIENCE)[0]) and sock.recv(8) == self._message()
        except OSError:
            return False

    def _connect(self, name: str) -> tuple[socket.socket, socket.socket]:
        with self._system.inside("lan"):
            near = self._stack.enter_context(open_connection(SERVER, PORT, self._system.deployment.via(name)))
        return near, self._stack.enter_context(self._listener.accept()[0])


def _unexcused(system: System, stream: ProbeStream, spans: list[tuple[int, int, int]]) -> int:
    """How many a stream lost apart from events of its WAN, which count from what was under way until all is calm."""
    own = [span for span in spans if system.tunnels[stream.name].wan == f"wan{span[0]}"]
    excused = [(stream.under_way_ns(begin), end + CALM_NS) for _, begin, end in own]
    lost = [at for at in stream.losses_ns() if not any(begin <= at <= end for begin, end in excused)]
    if lost:
        say(f"{stream.name} {stream.way} lost {len(lost)} without an event of its WAN")
    return len(lost)


def _until_quiet(system: System, site: Kernel) -> list[str]:
    """Waits until every tunnel is UP and nothing differs; what is then still wrong."""
    end = time.monotonic() + PATIENCE
    while True:
        states = {name: worker.state for name, worker in system.workers("site").items()}
        wrong = [f"{name} is {state}" for name, state in states.items() if state is not State.UP]
        wrong += site.differences()
        if not wrong or time.monotonic() > end:
            return wrong
        pause(0.1)
