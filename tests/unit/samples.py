"""What a feed tells of a site with one tunnel."""

from __future__ import annotations

import msgspec

from mpq_supervisor.life import State as Life
from mpq_supervisor.portal.messages import HostSample, Setup, WorkerSample
from mpq_supervisor.portal.state import State
from mpq_supervisor.status import WanCounters, WorkerStatus
from mpq_worker.contract import RTT_BOUNDS, PathStats

SETUP = Setup(
    role="site", name="ship1", uid=46999, listen=(("127.0.0.1", 8450),), certificate="", key="", tokens=(),
    directory="/nowhere", history_mb=16,
    alarms=(), webhook=None,
)  # fmt: skip
PATH = PathStats(
    rtt=0.0214, rtt_min=0.02, probe_rtt=0.021, jitter=0.0003, loss_tx=0.001, loss_rx=0.002, congestion_window=30_000,
    bytes_in_flight=1500, packets_sent=10, packets_lost=1, packets_received=9, key_updates=1, datagram_size=1440,
)  # fmt: skip
WORKER = WorkerStatus(
    name="cr2", traffic_class="critical", wan="wan5", tun="cr2", state=Life.UP, reason="", since=3.25, uptime=3.25,
    pid=4711, uid=47003, restarts=1, failures=0, last_exit="killed by signal 9", rtt=PATH.rtt, rtt_min=PATH.rtt_min,
    probe_rtt=PATH.probe_rtt, jitter=PATH.jitter, loss_tx=PATH.loss_tx, loss_rx=PATH.loss_rx, bytes_in=1, bytes_out=2,
    packets_in=3, packets_out=4, rate_in=15_000_000.0, rate_out=0.0, drops={"codel": 2, "queue_full": 3},
    refusals={"identity": 1}, reconnects=0, key_updates=1, pss=8_000_000, loop_lag=0.001, inner=("10.200.11.1",),
    remote="198.51.100.2 port 45011", sites=(), causes={"crash": 1}, path=PATH, cpu=1.5, descriptors=9,
    rtt_counts=(0, 0, 0, 0, 3, *[0] * (len(RTT_BOUNDS) - 5), 1), rtt_sum=2.06,
    connected=1,
)  # fmt: skip


def host_sample(*workers: WorkerStatus, sites: tuple[str, ...] = (), at: float = 1.0) -> HostSample:
    """A host with these."""
    return HostSample(
        at=at, uptime=61.0, pid=1, zygote_pid=2, zygote_losses=0, workers=tuple(w.name for w in workers), sites=sites,
        lost=0, guarded={"first": 3, "strangers": 0},
        wans={"wan5": WanCounters("wan5", 64_300, 64_100)},
    )  # fmt: skip


def state_with(*workers: WorkerStatus, setup: Setup = SETUP) -> State:
    """What is known once the feed has told of these."""
    state = State(setup)
    for worker in workers:
        state.take(WorkerSample(1.0, worker), 1.0)
    sites = tuple(site.site for worker in workers for site in worker.sites)
    state.take(host_sample(*workers, sites=tuple(dict.fromkeys(sites))), 1.0)
    return state


def changed(**changes: object) -> WorkerStatus:
    """`WORKER` but for these."""
    return msgspec.structs.replace(WORKER, **changes)
