"""What a plan consists of: the frozen Structs that `plan` fills in and everybody else reads. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from mpq_supervisor.arithmetic import ClassPlan
from mpq_supervisor.classifier import PrefixSets, RulePlan
from mpq_supervisor.decode import nearest
from mpq_supervisor.schema import FloodLimits, Identity, Portal, Supervisor, Watchdog
from mpq_worker.contract import SiteEntry, Timing, TrafficClass, Transport


class WanPlan(msgspec.Struct, frozen=True):
    """One uplink; `table` holds its own routes, `rate_mbit` is what HTB may send (None: no HTB); `fallback`
    names the WANs whose tunnels take over while one of this WAN is down."""

    name: str
    interface: str
    suffix: int
    table: int
    hub_addresses: tuple[str, ...]
    hub_port: int
    rate_mbit: float | None
    fallback: tuple[str, ...]


class TunnelPlan(msgspec.Struct, frozen=True):
    """One worker of a site. `name` is also its TUN; `traffic_class` is None for a plain 1:1 tunnel."""

    name: str
    traffic_class: TrafficClass | None
    wan: str
    interface: str
    index: int
    source_ports: tuple[int, int]  # one for each generation: in a planned restart both are in use
    hub_addresses: tuple[str, ...]
    hub_port: int
    door: int
    inner4: str | None
    inner6: str | None
    peer4: str | None
    peer6: str | None
    mtu: int
    table: int
    mark: int
    dscp: int
    priority: int
    txqueuelen: int
    uid: int

    @property
    def tun(self) -> str:
        """Name of the TUN interface."""
        return self.name

    @property
    def group(self) -> str:
        """What it belongs to beside its class: its WAN."""
        return self.wan

    @property
    def inner(self) -> tuple[str, ...]:
        """Inner addresses, as the contract wants them."""
        return _present(self.inner4, self.inner6)

    @property
    def peers(self) -> tuple[str, ...]:
        """The hub's inner addresses."""
        return _present(self.peer4, self.peer6)


class LanPlan(msgspec.Struct, frozen=True):
    """Where traffic that enters by `interface` goes, by class; a class without a tunnel is refused. With a
    `traffic_class` of its own it is all of that one.

    `vlan` and `parent` make the interface, `addresses` ("172.16.1.1/30") are given to it; `behind` are prefixes and
    the router of each there, None for what is on the link. `zone` is the conntrack zone of its flows; by `mark` and
    `table` their answers find back, though other LANs have the same prefix."""

    name: str
    interface: str
    wan: str
    tunnels: dict[TrafficClass, str]
    traffic_class: TrafficClass | None
    vlan: int | None
    parent: str | None
    addresses: tuple[str, ...]
    behind: tuple[tuple[str, str | None], ...]
    masquerade: bool
    table: int
    mark: int
    zone: int

    @property
    def bound(self) -> str | None:
        """The one tunnel of all its traffic, where the interface decides that."""
        return None if self.traffic_class is None else self.tunnels.get(self.traffic_class)


class HubWorkerPlan(msgspec.Struct, frozen=True):
    """One worker of a hub. `slot` is that of generation 0, `addresses` are those its port is bound to, `subnets` its
    listener's inner ones, `routes` the inner hosts and LAN prefixes whose packets belong into `tun`. Revoked
    sites are left out."""

    name: str
    listener: str
    traffic_class: TrafficClass | None
    tun: str
    index: int
    slot: int
    port: int
    addresses: tuple[str, ...]
    inner4: str | None
    inner6: str | None
    subnets: tuple[str, ...]
    sites: tuple[SiteEntry, ...]
    routes: tuple[str, ...]
    mtu: int
    dscp: int
    priority: int
    txqueuelen: int
    uid: int

    @property
    def inner(self) -> tuple[str, ...]:
        """Inner addresses, as the contract wants them."""
        return _present(self.inner4, self.inner6)

    @property
    def group(self) -> str:
        """What it belongs to beside its class: its listener."""
        return self.listener


class HostPlan(msgspec.Struct, frozen=True):
    """All that a host runs. A site has `tunnels`, a hub has `hub_workers`; the other is empty."""

    role: Literal["site", "hub"]
    name: str
    identity: Identity
    hub_name: str
    classes: tuple[ClassPlan, ...]
    wans: tuple[WanPlan, ...]
    lans: tuple[LanPlan, ...]
    rules: tuple[RulePlan, ...]
    sets: PrefixSets
    tunnels: tuple[TunnelPlan, ...]
    hub_workers: tuple[HubWorkerPlan, ...]
    nat_interface: str | None
    nat_lans: bool
    limits: FloodLimits
    supervisor: Supervisor
    watchdog: Watchdog
    portal: Portal | None

    @property
    def workers(self) -> tuple[TunnelPlan, ...] | tuple[HubWorkerPlan, ...]:
        """The workers of this host, in the order in which they are shown."""
        return self.tunnels or self.hub_workers

    def worker(self, name: str) -> TunnelPlan | HubWorkerPlan:
        """The worker of this name. Raises UnknownName."""
        for worker in self.workers:
            if worker.name == name:
                return worker
        raise UnknownName(name, (worker.name for worker in self.workers))

    def carriers(self, tunnel: TunnelPlan) -> tuple[TunnelPlan, ...]:
        """Who may carry what belongs to a tunnel: itself, then those of its class by its WAN's `fallback`."""
        wan = next(wan for wan in self.wans if wan.name == tunnel.wan)
        same_class = {other.wan: other for other in self.tunnels if other.traffic_class == tunnel.traffic_class}
        return (tunnel, *(same_class[name] for name in wan.fallback if name in same_class))

    def stand_ins(self, tunnel: TunnelPlan) -> tuple[TunnelPlan, ...]:
        """The others that may carry all that belongs to a tunnel: none where a LAN of it keeps its addresses, as the
        hub knows these by this tunnel only."""
        routed = [lan for lan in self.lans if not lan.masquerade]
        theirs = {
            name for lan in routed for name in (lan.tunnels.values() if lan.traffic_class is None else (lan.bound,))
        }
        return () if tunnel.name in theirs else self.carriers(tunnel)[1:]

    @property
    def timing(self) -> Timing:
        """What every worker is told about liveness."""
        return Timing(probe_interval=self.watchdog.probe_interval, peer_timeout=self.watchdog.peer_timeout)

    def transport(self, worker: TunnelPlan | HubWorkerPlan) -> Transport:
        """What one worker tells QUIC."""
        supervisor = self.supervisor
        return Transport(
            inner_mtu=worker.mtu, key_update_packets=supervisor.key_update_packets, native=supervisor.native
        )


class UnknownName(LookupError):
    """No worker, class, WAN or listener is called `word`; the text says what is near."""

    def __init__(self, word: str, known: Iterable[str]) -> None:
        super().__init__(f'no "{word}" here{nearest(word, known)}')
        self.word = word


def _present(*addresses: str | None) -> tuple[str, ...]:
    return tuple(address for address in addresses if address is not None)
