"""What `ctl status` and `show` tell: the Structs, and how they follow from a worker. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from mpq_supervisor.events import class_word
from mpq_supervisor.happenings import explain
from mpq_supervisor.lifecycle import SERVING, State
from mpq_supervisor.plan import HostPlan, TunnelPlan
from mpq_worker.contract import PathStats, SiteStatus

if TYPE_CHECKING:  # who only reads a status has no use for processes
    from mpq_supervisor.orders import Entry
    from mpq_supervisor.process import Worker


class WorkerStatus(msgspec.Struct, frozen=True):
    """One worker. Seconds, bytes and bit/s; ratios 0..1; None where it is not known (yet).

    `in` is from the tunnel to the TUN. `restarts` counts every process after the first. `uptime` is since Ready.
    """

    name: str
    traffic_class: str = msgspec.field(name="class")
    wan: str  # the WAN of a site's tunnel, the listener of a hub's worker
    tun: str
    state: State
    reason: str
    since: float  # seconds in this state
    uptime: float | None
    pid: int | None
    uid: int
    restarts: int
    failures: int
    last_exit: str | None
    rtt: float | None
    rtt_min: float | None
    probe_rtt: float | None
    jitter: float | None
    loss_tx: float | None
    loss_rx: float | None
    bytes_in: int
    bytes_out: int
    packets_in: int
    packets_out: int
    rate_in: float
    rate_out: float
    drops: dict[str, int]
    refusals: dict[str, int]
    reconnects: int
    key_updates: int
    pss: int
    loop_lag: float
    inner: tuple[str, ...]
    remote: str  # the hub's address and port, or the listener's
    sites: tuple[SiteStatus, ...]
    causes: dict[str, int] = {}  # of the restarts, see `lifecycle.cause`
    path: PathStats | None = None  # of a site's tunnel: the whole of what is above
    cpu: float = 0.0
    descriptors: int = 0
    rtt_counts: tuple[int, ...] = ()
    rtt_sum: float = 0.0
    features: tuple[str, ...] = ()  # of the kernel, that the data path uses
    connected: int | None = None  # at a hub: all connections, also those that `sites` has no room for

    @property
    def unnamed(self) -> int:
        """Connections that are not among `sites`."""
        return max(0, (self.connected or 0) - len(self.sites))


class WanCounters(msgspec.Struct, frozen=True):
    """Of a WAN: its interface, and the bytes that this has received and sent since it came to be, by the kernel's
    count: whoever sent them, with every header."""

    interface: str
    received: int
    sent: int


class HostStatus(msgspec.Struct, frozen=True):
    """The whole host. `uptime` is the supervisor's, `zygote_losses` how often the zygote had to be replaced."""

    role: str
    name: str
    pid: int
    uptime: float
    zygote_pid: int | None
    zygote_losses: int
    workers: tuple[WorkerStatus, ...]
    sites: tuple[str, ...]  # at a hub: every site that is configured, connected or not
    guarded: dict[str, int] = {}  # at a hub: packets of strangers that nftables dropped, see `guard`
    wans: dict[str, WanCounters] = {}  # at a site: of those whose interfaces are there


def worker_status(worker: Worker, now: float, sunk: int) -> WorkerStatus:
    """How a worker stands at monotonic time `now`; `sunk` is `Host.sunk`, shown among its drops.

    Counters are those of the last process; what is true of a moment only is not told of one that has ended.
    """
    entry, life, report, rates = worker.entry, worker.life, worker.report, worker.rates
    path = report.path or PathStats()
    if worker.process is None:
        path, rates = PathStats(), (0.0, 0.0)
        report = msgspec.structs.replace(report, path=None, sites=(), connected=None, pss=0, loop_lag=0.0)
    running = life.state in SERVING | {State.DEGRADED} and life.ready_at is not None
    ended = life.starts > (1 if worker.process else 0)
    return WorkerStatus(
        name=entry.name,
        traffic_class=class_word(entry.traffic_class),
        wan=entry.group,
        tun=entry.tun,
        state=life.state,
        reason=life.reason,
        since=now - life.since,
        uptime=now - life.ready_at if running and life.ready_at is not None else None,
        pid=worker.process.pid if worker.process else None,
        uid=entry.uid,
        restarts=max(0, life.starts - 1),
        failures=life.failures,
        last_exit=explain(life.last_exit) if ended else None,
        rtt=path.rtt,
        rtt_min=path.rtt_min,
        probe_rtt=path.probe_rtt,
        jitter=path.jitter,
        loss_tx=path.loss_tx,
        loss_rx=path.loss_rx,
        bytes_in=report.bytes_in,
        bytes_out=report.bytes_out,
        packets_in=report.packets_in,
        packets_out=report.packets_out,
        rate_in=rates[0],
        rate_out=rates[1],
        drops={**report.drops, "sunk": sunk} if sunk else report.drops,
        refusals=report.refusals,
        reconnects=report.reconnects,
        key_updates=path.key_updates,
        pss=report.pss,
        loop_lag=report.loop_lag,
        inner=entry.inner,
        remote=_remote(entry),
        sites=report.sites,
        causes=worker.causes,
        path=report.path,
        cpu=report.cpu,
        descriptors=report.descriptors,
        rtt_counts=report.rtt_counts,
        rtt_sum=report.rtt_sum,
        features=report.features,
        connected=report.connected,
    )


def configured_sites(plan: HostPlan) -> tuple[str, ...]:
    """Names of the sites that a hub serves."""
    return tuple(dict.fromkeys(site.name for worker in plan.hub_workers for site in worker.sites if site.inner))


def _remote(entry: Entry) -> str:
    if isinstance(entry, TunnelPlan):
        return f"{', '.join(entry.hub_addresses)} port {entry.hub_port}"
    return f"{', '.join(entry.addresses)} port {entry.port}"
