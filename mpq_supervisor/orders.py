"""From the plan to the messages that a worker is started and configured with. Pure."""

from __future__ import annotations

from collections.abc import Set
from hashlib import sha256
from typing import Literal

import msgspec

from mpq_supervisor import __version__
from mpq_supervisor.decode import Problem
from mpq_supervisor.network import LinkState
from mpq_supervisor.plan import HostPlan, HubWorkerPlan, TunnelPlan
from mpq_supervisor.schema import FloodLimits
from mpq_worker.contract import (
    CONTRACT_VERSION,
    MAX_MESSAGE,
    ConfigureHub,
    ConfigureSite,
    Credentials,
    Fork,
    Limits,
    LostPeer,
    SiteEntry,
    TrafficClass,
)

Entry = TunnelPlan | HubWorkerPlan
"""What the plan says of one worker."""

WorkerChange = Literal["add", "remove", "restart", "sites"]
"""`sites`: a hub's worker is told of them while it runs."""

MAX_SITES = 147_456
"""Bytes that a worker's sites may take in a message: a thousand with two addresses and a prefix. What `MAX_MESSAGE`
has besides is for certificates (`pki.MAX_CERTIFICATES`) and for the connections of a process that has died."""

NICE = {TrafficClass.CRITICAL: -5, TrafficClass.DEFAULT: 0, TrafficClass.BULK: 10}
"""The weight of a class where there is no cgroup for it; negative only if we have SYS_NICE, or no more ourselves."""


def class_of(entry: Entry) -> TrafficClass:
    """A worker for all classes counts as default."""
    return TrafficClass.DEFAULT if entry.traffic_class is None else entry.traffic_class


def sites_of(entry: Entry) -> tuple[SiteEntry, ...]:
    """Whom a hub's worker serves; nobody at a site."""
    return entry.sites if isinstance(entry, HubWorkerPlan) else ()


def fork_order(entry: Entry, plan: HostPlan, may_raise: bool) -> Fork:
    """How the worker is forked; `seq` is the zygote's to fill in. Every worker's group is its own, like its uid."""
    nice = NICE[class_of(entry)]
    return Fork(
        seq=0,
        name=entry.name,
        uid=entry.uid,
        gid=entry.uid,
        nice=nice if may_raise else max(nice, 0),
        cpus=plan.supervisor.cpus,
    )


def configure_site(
    tunnel: TunnelPlan, plan: HostPlan, credentials: Credentials, hub_address: tuple[str, int]
) -> ConfigureSite:
    """`hub_address` is what the socket that goes with it is connected to."""
    return ConfigureSite(
        name=tunnel.name,
        site=plan.name,
        traffic_class=class_of(tunnel),
        hub_name=plan.hub_name,
        hub_address=hub_address,
        door=tunnel.door,
        inner=tunnel.inner,
        credentials=credentials,
        timing=plan.timing,
        transport=plan.transport(tunnel),
        orphan_exit=plan.supervisor.on_orphan == "exit",
    )


def configure_hub(
    worker: HubWorkerPlan, plan: HostPlan, credentials: Credentials, reset_key: bytes, retry_key: bytes
) -> ConfigureHub:
    """`reset_key` is the worker's own, `retry_key` its port's, see `secrets`."""
    return ConfigureHub(
        name=worker.name,
        slot=worker.slot,
        inner=worker.inner,
        credentials=credentials,
        reset_key=reset_key,
        retry_key=retry_key,
        sites=worker.sites,
        timing=plan.timing,
        transport=plan.transport(worker),
        limits=_limits(plan.limits),
        orphan_exit=plan.supervisor.on_orphan == "exit",
    )


def check_sites(plan: HostPlan) -> list[Problem]:
    """Whether a hub's workers can be told of their sites: all of a worker's are in one message."""
    for worker in plan.hub_workers:
        size = len(msgspec.msgpack.encode(worker.sites))
        if size > MAX_SITES:
            text = f"{len(worker.sites)} sites take {size} bytes of a message to {worker.name}, {MAX_SITES} are free"
            return [Problem("site", text)]
    return []


def with_lost(message: ConfigureHub, lost: tuple[LostPeer, ...]) -> ConfigureHub:
    """`message` with `lost`, or with the first half of them, and so on, until it is none too large."""
    whole = msgspec.structs.replace(message, lost=lost)
    while whole.lost and len(msgspec.msgpack.encode(whole)) > MAX_MESSAGE:
        whole = msgspec.structs.replace(message, lost=whole.lost[: len(whole.lost) // 2])
    return whole


def worker_changes(
    old: HostPlan, new: HostPlan, *, credentials: bool = False, outdated: Set[str] = frozenset()
) -> dict[str, WorkerChange]:
    """What going over from one plan to the other does to each worker that it concerns. `credentials`: the files that
    `identity` names have other contents; `outdated`: workers that run, but not as `old` has it."""
    before = {entry.name: entry for entry in old.workers}
    after = {entry.name: entry for entry in new.workers}
    same = Credentials("", "")  # whether they are is the caller's word
    changes: dict[str, WorkerChange] = {name: "remove" for name in before if name not in after}
    for name, entry in after.items():
        if name not in before:
            changes[name] = "add"
        elif credentials or name in outdated or fingerprint(before[name], old, same) != fingerprint(entry, new, same):
            changes[name] = "restart"
        elif sites_of(before[name]) != sites_of(entry):
            changes[name] = "sites"
    return changes


def fingerprint(entry: Entry, plan: HostPlan, credentials: Credentials) -> str:
    """Two processes with the same one are the same program and told the same, but for what needs no restart: a hub's
    sites come and go while it runs, and what is the network's alone is no worker's business."""
    own: Entry
    message: ConfigureSite | ConfigureHub
    if isinstance(entry, TunnelPlan):
        own = msgspec.structs.replace(entry, txqueuelen=0, table=0, mark=0)
        message = configure_site(own, plan, credentials, ("", 0))
    else:
        own = msgspec.structs.replace(entry, txqueuelen=0, sites=(), routes=())
        message = configure_hub(own, plan, credentials, b"", b"")
    order = fork_order(own, plan, may_raise=True)
    told = (__version__, CONTRACT_VERSION, plan.name, plan.hub_name, own, message, order)
    return sha256(msgspec.msgpack.encode(told)).hexdigest()[:16]


def _limits(limits: FloodLimits) -> Limits:
    """One source may have an eighth of the handshakes; beyond a sixteenth, addresses have to be proven."""
    return Limits(
        connections=limits.connections,
        handshakes=limits.handshakes,
        per_source=limits.handshakes // 8,
        retry_from=limits.handshakes // 16,
    )


def obstacle(tunnel: TunnelPlan, link: LinkState | None) -> str:
    """Why a tunnel cannot run over its WAN as that is now; empty when it can."""
    if link is None:
        return f"{tunnel.wan}: no interface {tunnel.interface}"
    word, text = link.condition
    if word in ("missing", "carrier", "flaps"):
        return f"{tunnel.wan}: {text}"
    if link.reach(tunnel.hub_addresses) is None:
        return f"{tunnel.wan}: {tunnel.interface} has no address and route to {', '.join(tunnel.hub_addresses)}"
    return ""
