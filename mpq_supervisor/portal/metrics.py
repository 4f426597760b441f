"""Every metric: its name, type, labels and meaning, and how it follows from what the feed told. Pure.

One row each; `exposition` prints them, docs/metrics.md and etc/grafana are compared with them. Prefix `mpq_`, base
units, and no label whose values a stranger could multiply.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal, TypeAlias

from mpq_supervisor.life import SERVING
from mpq_supervisor.life import State as Life
from mpq_supervisor.portal.state import Path, Refusal, State, Tunnel
from mpq_worker.contract import RTT_BOUNDS

Kind: TypeAlias = Literal["gauge", "counter", "histogram", "info"]


@dataclass(frozen=True)
class Buckets:
    """A histogram: counts of each bucket and of what is above them, and the sum of what was counted."""

    counts: tuple[int, ...]
    sum: float

    def cumulative(self) -> Iterator[tuple[str, int]]:
        """Each upper bound, and how many were not above it."""
        return zip([*map(str, RTT_BOUNDS), "+Inf"], accumulate(self.counts), strict=True)


Value: TypeAlias = float | Mapping[str, float] | Buckets | None
"""None: not known now. A mapping: by the row's own label."""


@dataclass(frozen=True)
class Group:
    """Tunnels that belong together: those of a class, or of a WAN or listener."""

    tunnels: tuple[Tunnel, ...]

    def sum(self, name: str) -> float:
        """Over the totals of that name."""
        return sum(tunnel.totals[name] for tunnel in self.tunnels)

    def up(self) -> float:
        """How many serve."""
        return float(sum(tunnel.status.state in SERVING for tunnel in self.tunnels))

    def connections(self) -> float:
        """Sites that are connected, or a site's own connections."""
        return float(
            sum(
                len(tunnel.paths("")) if tunnel.status.connected is None else tunnel.status.connected
                for tunnel in self.tunnels
            )
        )


@dataclass(frozen=True)
class Row:
    """One metric. `label` is its own, beside those of its scope."""

    name: str
    kind: Kind
    help: str
    value: Callable[[Any], Value]
    label: str = ""


@dataclass(frozen=True)
class Scope:
    """What a metric is said of: the labels, and the things with their label values at a monotonic time."""

    labels: tuple[str, ...]
    things: Callable[[State, float], Iterable[tuple[tuple[str, ...], Any]]]
    rows: tuple[Row, ...]


# ---------------------------------------------------------------- who they are said of


def _portal(state: State, _: float) -> Iterator[tuple[tuple[str, ...], State]]:
    yield (), state


def _supervisor(state: State, now: float) -> Iterator[tuple[tuple[str, ...], bool]]:
    yield (), state.fresh(now)


def _host(state: State, now: float) -> Iterator[tuple[tuple[str, ...], State]]:
    if state.host is not None and state.fresh(now):
        yield (), state


def _tunnels(state: State, now: float) -> Iterator[tuple[tuple[str, ...], Tunnel]]:
    for name, tunnel in state.tunnels.items():
        if tunnel.fresh(now):
            yield (name, tunnel.status.wan, tunnel.status.traffic_class), tunnel


def _paths(state: State, now: float) -> Iterator[tuple[tuple[str, ...], Path]]:
    for labels, tunnel in _tunnels(state, now):
        for path in tunnel.paths(state.setup.name):
            yield (*labels, path.via, path.site), path


def _groups(state: State, now: float, key: Callable[[Tunnel], str]) -> Iterator[tuple[tuple[str, ...], Group]]:
    members: dict[str, list[Tunnel]] = {}
    for tunnel in state.tunnels.values() if state.fresh(now) else ():  # all: a sum of fewer would seem to begin anew
        members.setdefault(key(tunnel), []).append(tunnel)
    for name, tunnels in members.items():
        yield (name,), Group(tuple(tunnels))


def _classes(state: State, now: float) -> Iterator[tuple[tuple[str, ...], Group]]:
    return _groups(state, now, lambda tunnel: tunnel.status.traffic_class)


def _wans(state: State, now: float) -> Iterator[tuple[tuple[str, ...], Group]]:
    return _groups(state, now, lambda tunnel: tunnel.status.wan)


def _total(name: str) -> Callable[[Tunnel], Value]:
    return lambda tunnel: tunnel.totals[name]


def _path_total(name: str) -> Callable[[Path], Value]:
    return lambda path: path.totals[name]


def _sum(name: str) -> Callable[[Group], Value]:
    return lambda group: group.sum(name)


def _states(tunnel: Tunnel) -> Value:
    return {str(state): float(state is tunnel.status.state) for state in Life}


def _loss(path: Path) -> Value:
    ratios = {"sent": path.stats.loss_tx, "received": path.stats.loss_rx}
    return {direction: ratio for direction, ratio in ratios.items() if ratio is not None}


def _rtts(path: Path) -> Value:
    return Buckets(path.rtt_counts, path.rtt_sum) if len(path.rtt_counts) > len(RTT_BOUNDS) else None


def _sums(prefix: str, what: str) -> tuple[Row, ...]:
    return (
        Row(f"mpq_{prefix}_tunnels", "gauge", f"Tunnels of this {what}.", lambda g: float(len(g.tunnels))),
        Row(f"mpq_{prefix}_tunnels_up", "gauge", f"Tunnels of this {what} that serve.", Group.up),
        Row(
            f"mpq_{prefix}_connections", "gauge", f"Connections of this {what}; at a hub one per site.",
            Group.connections,
        ),
        Row(f"mpq_{prefix}_received_bytes_total", "counter", f"Sum over this {what}.", _sum("bytes_in")),
        Row(f"mpq_{prefix}_sent_bytes_total", "counter", f"Sum over this {what}.", _sum("bytes_out")),
        Row(f"mpq_{prefix}_received_packets_total", "counter", f"Sum over this {what}.", _sum("packets_in")),
        Row(f"mpq_{prefix}_sent_packets_total", "counter", f"Sum over this {what}.", _sum("packets_out")),
    )  # fmt: skip


# ---------------------------------------------------------------- the rows

# fmt: off
SUPERVISOR = Scope((), _supervisor, (
    Row("mpq_supervisor_up", "gauge",
        "1 while the supervisor is heard of, 0 from 5 s of silence on; then this and the portal's are all there is.",
        float),
))
PORTAL = Scope((), _portal, (
    Row("mpq_build_info", "info", "Always 1; what runs here: its version, role and name.", lambda s: 1.0),
    Row("mpq_feed_timestamp_seconds", "gauge", "When the supervisor was heard last, Unix time.",
        lambda s: s.host and s.host.at),
    Row("mpq_history_bytes", "gauge", "Size of the history on disk; 0 while there is none.",
        lambda s: s.history_bytes),
    Row("mpq_history_lost_seconds_total", "counter", "Seconds that the disk did not take.", lambda s: s.history_lost),
    Row("mpq_webhook_waiting_messages", "gauge", "What the receiver of webhooks has not taken; absent without one.",
        lambda s: s.delivery and s.delivery.waiting),
    Row("mpq_webhook_failures_total", "counter", "Attempts to hand the receiver of webhooks a message that failed.",
        lambda s: s.delivery and s.delivery.failures),
    Row("mpq_webhook_lost_alarms_total", "counter",
        "Alarms that were over before the queue of webhooks had room to tell of them.",
        lambda s: s.delivery and s.delivery.lost),
    Row("mpq_portal_refused_connections_total", "counter", "Connections that the portal ended or did not take.",
        lambda s: {str(reason): s.refused[reason] for reason in Refusal}, "reason"),
))
HOST = Scope((), _host, (
    Row("mpq_supervisor_uptime_seconds", "gauge", "Since the supervisor started.", lambda s: s.host.uptime),
    Row("mpq_zygote_losses_total", "counter", "How often the process that forks workers had to be replaced.",
        lambda s: s.host.zygote_losses),
    Row("mpq_feed_lost_total", "counter", "Messages of the supervisor that the portal was too slow for.",
        lambda s: s.host.lost),
    Row("mpq_guard_dropped_packets_total", "counter",
        "Packets of strangers that a hub's nftables dropped: first packets, and everything else.",
        lambda s: s.guarded.below(""), "reason"),
    Row("mpq_wan_interface_received_bytes_total", "counter",
        "Of the WAN's interface, by the kernel's count since it came to be: whoever it was for, every header.",
        lambda s: {name: wan.received for name, wan in s.host.wans.items()}, "wan"),
    Row("mpq_wan_interface_sent_bytes_total", "counter",
        "Likewise, the other way; both together are what `quota` counts at a site.",
        lambda s: {name: wan.sent for name, wan in s.host.wans.items()}, "wan"),
))
TUNNEL = Scope(("tunnel", "wan", "class"), _tunnels, (
    Row("mpq_tunnel_state", "gauge", "1 for the state that the tunnel is in, 0 for the others.", _states, "state"),
    Row("mpq_tunnel_up", "gauge", "1 while the tunnel serves: UP, planned restarts included.",
        lambda t: float(t.status.state in SERVING)),
    Row("mpq_tunnel_uptime_seconds", "gauge", "Since its process became ready; absent while there is none.",
        lambda t: t.status.uptime),
    Row("mpq_tunnel_received_bytes_total", "counter", "IP bytes out of the tunnel into the TUN.", _total("bytes_in")),
    Row("mpq_tunnel_sent_bytes_total", "counter", "IP bytes from the TUN into the tunnel.", _total("bytes_out")),
    Row("mpq_tunnel_received_packets_total", "counter", "IP packets out of the tunnel into the TUN.",
        _total("packets_in")),
    Row("mpq_tunnel_sent_packets_total", "counter", "IP packets from the TUN into the tunnel.",
        _total("packets_out")),
    Row("mpq_tunnel_dropped_packets_total", "counter", "Packets that went no further, by reason.",
        lambda t: t.totals.below("drops."), "reason"),
    Row("mpq_tunnel_refusals_total", "counter", "Peers that this hub's worker refused, by reason.",
        lambda t: t.totals.below("refusals."), "reason"),
    Row("mpq_tunnel_connections", "gauge",
        "Sites' connections with this hub's worker, also those of which it has no room to tell more.",
        lambda t: t.status.connected),
    Row("mpq_tunnel_reconnects_total", "counter", "Connections made anew while the process ran.",
        _total("reconnects")),
    Row("mpq_tunnel_restarts_total", "counter", "Processes after the first, by cause.",
        lambda t: t.status.causes, "cause"),
    Row("mpq_worker_cpu_seconds_total", "counter", "User and system CPU time.", _total("cpu")),
    Row("mpq_worker_memory_pss_bytes", "gauge", "Proportional set size of the process; looked at every 10 s.",
        lambda t: t.status.pss or None),
    Row("mpq_worker_open_descriptors", "gauge", "Open file descriptors, of 64; looked at every 10 s.",
        lambda t: t.status.descriptors or None),
    Row("mpq_worker_loop_lag_seconds", "gauge", "How late the data loop was at worst in the last second.",
        lambda t: t.status.loop_lag),
))
PATH = Scope(("tunnel", "wan", "class", "path", "site"), _paths, (
    Row("mpq_path_rtt_seconds", "gauge", "Smoothed round trip (RFC 9002).", lambda p: p.stats.rtt),
    Row("mpq_path_rtt_min_seconds", "gauge", "Least round trip of the connection (RFC 9002).",
        lambda p: p.stats.rtt_min),
    Row("mpq_path_probe_rtt_seconds", "histogram", "Round trips of the probes, by which a site measures.", _rtts),
    Row("mpq_path_jitter_seconds", "gauge", "Mean deviation of successive probe round trips (RFC 3550).",
        lambda p: p.stats.jitter),
    Row("mpq_path_loss_ratio", "gauge", "Lost of what was sent, and of what the peer sent us, in the last second.",
        _loss, "direction"),
    Row("mpq_path_congestion_window_bytes", "gauge", "What may be in flight.", lambda p: p.stats.congestion_window),
    Row("mpq_path_in_flight_bytes", "gauge", "Sent and neither acknowledged nor lost.",
        lambda p: p.stats.bytes_in_flight),
    Row("mpq_path_datagram_bytes", "gauge", "The largest UDP payload that is sent.",
        lambda p: p.stats.datagram_size or None),
    Row("mpq_path_sent_packets_total", "counter", "QUIC packets, with mere acknowledgements.", _path_total("sent")),
    Row("mpq_path_lost_packets_total", "counter", "QUIC packets that were declared lost.", _path_total("lost")),
    Row("mpq_path_received_packets_total", "counter", "QUIC packets that opened.", _path_total("received")),
    Row("mpq_path_key_updates_total", "counter", "Changes of the packet protection keys (RFC 9001).",
        _path_total("key_updates")),
))
CLASS = Scope(("class",), _classes, _sums("class", "class"))
WAN = Scope(("wan",), _wans, _sums("wan", "WAN or listener"))
# fmt: on

SCOPES = (SUPERVISOR, PORTAL, HOST, TUNNEL, PATH, CLASS, WAN)


def labels_of(scope: Scope, row: Row) -> tuple[str, ...]:
    """All labels of a metric."""
    if row.kind == "info":
        return ("version", "role", "host")
    return (*scope.labels, row.label) if row.label else scope.labels


def samples(state: State, now: float) -> Iterator[tuple[str, dict[str, str], float]]:
    """Every value that is known at monotonic time `now`: the metric's name, its labels, the value."""
    for scope in SCOPES:
        for values, thing in scope.things(state, now):
            labels = dict(zip(scope.labels, values, strict=True))
            for row in scope.rows:
                value = row.value(thing)
                if isinstance(value, Buckets):
                    yield f"{row.name}_sum", labels, value.sum
                    for bound, count in value.cumulative():
                        yield f"{row.name}_bucket", {**labels, "le": bound}, count
                elif isinstance(value, float | int):
                    yield row.name, labels, value
                elif value is not None:
                    for own, number in value.items():
                        yield row.name, {**labels, row.label: own}, number
