"""What the product has of its two hosts: descriptors, processes, memory, network; and what it has kept too much."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from pathlib import Path

import msgspec

from tools import namespaces
from tools.system import SIDES, System, open_files

MEMORY_GROWTH = 0.1
MEMORY_SLACK = 2 << 20
"""A process may have grown by a share of what it had, and by this many bytes."""
_NUMBER = re.compile(r"\[\d+\]|[0-9a-f]{8,}")
_LINK_LOCAL = "fe80:"


class Inventory(msgspec.Struct, frozen=True):
    """By process ("site br2", "hub supervisor"): its descriptors by kind, its anonymous memory. The rest by host.

    Anonymous and not proportional: what a process shares with others changes when these are replaced. Not resident:
    pages of files, the zygote's image among them, come at use and go when they are not needed.
    """

    descriptors: dict[str, dict[str, int]]
    memory: dict[str, int]
    network: dict[str, list[str]]
    processes: dict[str, int]


def take_inventory(system: System) -> Inventory:
    """Look at both hosts now. Raises OSError where no supervisor answers; who does not run is left out."""
    descriptors, memory = {}, {}
    network: dict[str, list[str]] = {}
    processes: dict[str, int] = {}
    for side in SIDES:
        status = system.status(side)
        named = {"supervisor": status.pid, "zygote": status.zygote_pid, "portal": system.portal(side)}
        named |= {worker.name: worker.pid for worker in status.workers}
        for name, pid in named.items():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it went just now
                if pid is not None:
                    anonymous, fds = _anonymous(pid), _descriptors(pid)
                    memory[f"{side} {name}"], descriptors[f"{side} {name}"] = anonymous, fds
        processes[side] = len(namespaces.pids([system.lab.name(side)]))
        rules = system.lab.run(side, ["nft", "-s", "-t", "list", "ruleset"]).stdout.splitlines()
        state = {what: lines for what, lines in system.state_of(side).items() if what != "processes"}
        for what, lines in {**state, "nftables": rules}.items():
            network[f"{side} {what}"] = sorted(line for line in lines if _LINK_LOCAL not in line)
    return Inventory(descriptors, memory, network, processes)


def differences(before: Inventory, after: Inventory) -> list[str]:
    """What there is too much of in `after`, or too little, in words.

    Fewer descriptors are no leak: a zygote keeps one for each worker that it forked itself.
    """
    told = [f"{name} does not run" for name in before.memory.keys() - after.memory.keys()]
    for name, kinds in before.descriptors.items():
        leaked = Counter(after.descriptors.get(name)) - Counter(kinds)
        if leaked:
            told.append(f"{name}: descriptors {_difference(Counter(), leaked)}")
    for name, had in before.memory.items():
        grown = after.memory.get(name, 0)
        if grown > had * (1 + MEMORY_GROWTH) + MEMORY_SLACK:
            told.append(f"{name}: grew from {had / 1e6:.1f} to {grown / 1e6:.1f} MB")
    for side, count in before.processes.items():
        if after.processes[side] != count:
            told.append(f"{side}: {after.processes[side]} processes, {count} before")
    for what, lines in before.network.items():
        if after.network[what] != lines:
            told.append(f"{what}: {_difference(Counter(lines), Counter(after.network[what]))}")
    return told


def _anonymous(pid: int) -> int:
    """Bytes, from /proc/PID/smaps_rollup (proc(5))."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) << 10
    raise ProcessLookupError(f"process {pid} has no memory any more")


def _descriptors(pid: int) -> dict[str, int]:
    return dict(Counter(_NUMBER.sub("", target) for target in open_files(pid)))


def _difference(before: Counter[str], after: Counter[str]) -> str:
    more = [f"+{count} {line}" for line, count in (after - before).items()]
    less = [f"-{count} {line}" for line, count in (before - after).items()]
    return "; ".join([*more, *less])
