"""What mpq has set in the kernel, taken away by hand one by one: all of it comes back. And what costs nothing."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TypeVar

from mpq_supervisor.network import Address, Route, Rule
from tools.acceptance.ground import running, say
from tools.kernel import Kernel, kernel
from tools.product import Side
from tools.results import Results, percentile
from tools.system import SIDES, System
from tools.topology import WANS
from tools.wait import pause, until

RATE_MBIT = 100.0
REPEATS = 10
SETTLE = 0.3
"""Longer than mpq waits for the end of a burst of changes."""
LAN = '[[lan]]\nname = "spare"\ninterface = "lan9"\nwan = "wan4"\naddress = "172.16.9.1/24"\n'
FOREIGN = ("unreachable", "192.0.2.0/24", "table", "4242")
PATIENCE = 10.0
TARGET_MS = 1000.0
_GROUPS = (1, 5, 7, 8, 9, 11, 19)  # RTNLGRP_ of links, and of addresses, routes and rules of both families
_ADD_MEMBERSHIP, _SOL_NETLINK = 1, 270
_T = TypeVar("_T")


def repair(results: Results) -> None:
    """Every rule, route, address, TUN, qdisc and nft table deleted by hand, one by one: each comes back, how soon."""
    with running(rate_mbit=RATE_MBIT, edit=_with_a_lan) as system:
        system.lab.run("site", ["ip", "link", "add", "lan9", "type", "veth", "peer", "name", "lan9p"])
        system.lab.run("site", ["ip", "link", "set", "lan9", "up"])
        with kernel(system, "site") as site:
            until(lambda: not site.differences())
        before = {side: _shown(system, side) for side in SIDES}
        for side in SIDES:
            with kernel(system, side) as there:
                _entries(results, side, there)
                _objects(results, system, side, there)
        system.lab.wait_up()
        pause(SETTLE)
        wrong = sum(len(set(before[side]) ^ set(_shown(system, side))) for side in SIDES)
        results.add("repair.differs_afterwards", [wrong], "lines of ip, nft and tc", target=0)
        messages = _messages_of_idle_passes(system)
    results.add("repair.applied_again.messages", [messages], f"changes in {REPEATS} passes over both ends", target=0)
    say(f"{wrong} lines differ afterwards; {messages} netlink messages of mpq in {REPEATS} passes")


# ---------------------------------------------------------------- helpers


def _with_a_lan(text: str) -> str:
    text = text.replace('role = "site"\n', 'role = "site"\nwatchdog = { failback_after = 0.3 }\n')
    return text + LAN if 'role = "site"' in text else text


def _entries(results: Results, side: Side, there: Kernel) -> None:
    entries = there.entries()
    index = {name: link.index for name, link in there.netlink.links().items()}
    netlink = there.netlink

    def routes_of(closing: bool) -> Iterable[Route]:
        return sorted((r for r in entries.routes if (r.interface is None) == closing), key=str)

    def address(entry: Address) -> None:
        netlink.delete_address(entry, index[entry.interface])

    def route(entry: Route) -> None:
        netlink.delete_route(entry, index.get(entry.interface or ""))

    def back(entry: Rule | Route | Address) -> bool:
        now = there.entries()
        return entry in now.everything()

    _each(results, f"{side}.rule", sorted(entries.rules, key=str), netlink.delete_rule, back)
    _each(results, f"{side}.route", routes_of(False), route, back)
    _each(results, f"{side}.unreachable", routes_of(True), route, back)
    _each(results, f"{side}.address", sorted(entries.addresses.union(entries.lan_addresses), key=str), address, back)


def _objects(results: Results, system: System, side: Side, there: Kernel) -> None:
    """What has parts: back when its listing is as it was; a TUN, when all of its addresses and routes are."""

    def remove(command: str) -> None:
        system.lab.run(side, command.split())

    def is_as_before(*commands: str) -> Callable[[str], bool]:
        def shown() -> list[str]:
            return [_fixed(system.lab.run(side, command.split(), check=False).stdout) for command in commands]

        before = shown()
        return lambda _: shown() == before

    tables = system.lab.run(side, ["nft", "list", "tables"]).stdout.split("table inet ")[1:]
    for name in sorted(table.strip() for table in tables):
        shown = f"nft --stateless --terse list table inet {name}"
        _each(results, f"{side}.table_{name}", [f"nft delete table inet {name}"], remove, is_as_before(shown))
        _each(results, f"{side}.chain_{name}", [f"nft flush table inet {name}"], remove, is_as_before(shown))
    if side == "site":
        commands = [f"tc qdisc del dev wan{k} root" for k in WANS]
        _each(results, f"{side}.qdisc", commands, remove, is_as_before(*(f"tc class show dev wan{k}" for k in WANS)))
    tuns = [f"ip link del {worker.tun}" for worker in there.plan.workers]
    _each(results, f"{side}.tun", tuns, remove, lambda _: not there.differences())


def _each(
    results: Results, key: str, entries: Iterable[_T], delete: Callable[[_T], object], back: Callable[[_T], bool]
) -> None:
    """Deletes one after the other; the next one when the last is back."""
    entries, times = list(entries), []
    if not entries:
        return
    for entry in entries:
        begin = time.monotonic()
        delete(entry)
        while not back(entry):
            if time.monotonic() - begin > PATIENCE:
                raise TimeoutError(f"{entry} is not back after {PATIENCE} s")
            pause(0.005)
        times.append((time.monotonic() - begin) * 1000)
    ordered = sorted(times)
    unit = f"ms, of {len(times)}"
    results.add(f"repair.{key}.p50", [percentile(ordered, 50)], unit)
    results.add(f"repair.{key}.max", [ordered[-1]], unit, target=TARGET_MS)
    say(f"{key}: {len(times)} deleted, back after p50 {percentile(ordered, 50):.0f}, max {ordered[-1]:.0f} ms")


def _shown(system: System, side: Side) -> list[str]:
    """The whole of a host's network in the words of ip, nft and tc, without what numbers of interfaces tell."""
    state = system.state_of(side)
    return [f"{what}: {_fixed(line)}" for what in ("links", "rules", "routes", "qdiscs") for line in state[what]] + [
        system.lab.run(side, ["nft", "--stateless", "--terse", "list", "ruleset"]).stdout
    ]


def _fixed(text: str) -> str:
    """Without the numbers that the kernel itself gives to qdiscs."""
    return re.sub(r"\b[89a-f][0-9a-f]{3}:", "", text)


def _messages_of_idle_passes(system: System) -> int:
    """Changes that mpq asks for when others change what is none of its business, and so make it look again."""
    count = 0
    for side in SIDES:
        with system.inside(side):
            heard = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
        with heard:
            heard.bind((0, 0))
            heard.setblocking(False)
            for group in _GROUPS:
                heard.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)
            handles = system.lab.run(side, ["nft", "--handle", "--stateless", "--terse", "list", "ruleset"]).stdout
            for verb in ("add", "del") * (REPEATS // 2):
                system.lab.run(side, ["ip", "route", verb, *FOREIGN])
                system.lab.run(side, ["nft", verb.replace("del", "delete"), "table", "inet", "foreign"])
                pause(SETTLE)
            count += sum(1 for _ in _received(heard)) - REPEATS  # the other ones are the foreign route's
            after = system.lab.run(side, ["nft", "--handle", "--stateless", "--terse", "list", "ruleset"]).stdout
            count += handles != after
    return count


def _received(sock: socket.socket) -> Iterator[bytes]:
    with suppress(BlockingIOError):
        while True:
            yield sock.recv(1 << 16)
