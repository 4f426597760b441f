"""The host's network, as the fleet uses it: TUNs and sockets to lend to workers, the state of the WANs.

    up()      closes (nftables, backstops, rules), then opens (TUNs, addresses, routes, HTB)
    watch()   from then on keeps it so, and tells when a WAN changed
    down()    "closed": what is left refuses LAN traffic; "open": nothing is left

Every method is quick (some 10 ms at most, for nft) and may be called inside the event loop.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable
from functools import partial
from logging import Logger
from typing import Literal

import psutil

from mpq_supervisor import guard, nft, ruleset, sockets, sysctl
from mpq_supervisor.classifier import Packet
from mpq_supervisor.classify import Verdict, verdicts
from mpq_supervisor.clear import take_away
from mpq_supervisor.damping import Damper
from mpq_supervisor.desired import Desired, closed, desired
from mpq_supervisor.events import Kind, marks
from mpq_supervisor.monitor import Monitor
from mpq_supervisor.netlink import Netlink
from mpq_supervisor.network import LinkState, Snapshot, link_state
from mpq_supervisor.notify import Notifier
from mpq_supervisor.plan import HostPlan, HubWorkerPlan, TunnelPlan
from mpq_supervisor.reconcile import reconcile
from mpq_supervisor.repairs import Repairs
from mpq_supervisor.status import WanCounters
from mpq_supervisor.store import Store, slot_name
from mpq_supervisor.tun import is_there, open_tun
from mpq_supervisor.vlan import make_vlans
from mpq_worker.contract import SINK_SLOT, SLOTS
from mpq_worker.errors import HostFault

GUARD_INTERVAL = 5.0
"""Seconds for which the counters of `guard` are good: to read them takes a process."""
_Port = tuple[str, int]
"""Address and port that a group of sockets is bound to."""


class Host:
    """Owns every descriptor that it hands out; the receiver gets copies (SCM_RIGHTS)."""

    def __init__(self, plan: HostPlan, log: Logger, store: Store | None = None) -> None:
        self._plan = plan
        self._store = store or Store(Notifier({}), {})  # one that keeps nothing
        self._log = log
        self._netlink = Netlink()
        self._table = nft.Table(ruleset.TABLE, seal=self._store.recall("nft/table"))
        self._guard = nft.Table(guard.TABLE, dynamic=True, seal=self._store.recall("nft/guard"))
        self._monitor: Monitor | None = None
        self._callback: Callable[[str], None] = lambda wan: None
        self._told: dict[str, LinkState] = {}
        self._tuns: dict[str, int] = {}
        self._sockets: dict[tuple[str, int], socket.socket] = {}  # by tunnel and generation
        self._groups: dict[_Port, sockets.Group] = {}
        self._lent: dict[str, set[int]] = {}  # by hub worker, the slots of its processes
        self._down: frozenset[str] = frozenset()
        self._last: dict[tuple[str, int], str] = {}  # see `desired`
        self._there = Snapshot()  # as the last look found it
        self._damper = Damper()
        self._refused: tuple[str, ...] = ()
        self._in_place = frozenset[object]()  # after the last look
        self._repairs = Repairs()
        self._guarded: dict[str, int] = {}
        self._guarded_at = -GUARD_INTERVAL
        self.links: dict[str, LinkState] = {}

    @property
    def changes(self) -> int:
        """Changes asked of the kernel so far; a second `up` adds none."""
        return self._netlink.changes + self._table.changes + self._guard.changes

    def check(self) -> list[str]:
        """What of the host's settings is wrong, a line each, and what mends it."""
        return sysctl.check(self._plan, self._netlink.snapshot())

    def up(self) -> None:
        """Makes the host's network what the plan says, and puts back what others removed. Raises HostFault.

        Where nothing differs it changes nothing.
        """
        self._filter()
        self._open()
        self._refresh()

    def watch(self, callback: Callable[[str], None]) -> None:
        """From now on does so whenever something changes, and tells the name of each WAN that is not as it was."""
        self._callback, self._told = callback, self.links
        self._monitor = Monitor(self._on_change)
        self._monitor.look()  # at what happened between `up` and now

    def apply(self, plan: HostPlan) -> None:
        """Goes over to a new plan, or stays with the old one and raises HostFault, whatever it was that failed.

        What only the old one had is closed here; a worker that still holds a copy keeps that until it ends.
        """
        old, self._plan = self._plan, plan
        self._in_place = frozenset()  # what goes and comes now is the plan's doing
        try:
            self.up()
        except Exception as error:  # whatever it was, the old plan holds
            self._plan = old
            for part in (self._filter, self._open, self._refresh):
                self._attempt(part)  # the next change of the network, or reload, has it tried again
            text = str(error) if isinstance(error, HostFault | OSError) else f"a fault of mpq's own: {error!r}"
            raise HostFault(text) from error
        finally:
            self._close_what_went()

    def down(self, on_stop: Literal["closed", "open"]) -> None:
        """Gives everything back, or everything but what refuses LAN traffic. The workers must be gone."""
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        for port in list(self._groups):
            self._close_port(port)
        for sock in self._sockets.values():
            sock.close()
        for tun in list(self._tuns):
            self._close_tun(tun)
        self._sockets = {}
        if on_stop == "open":
            refused = take_away(self._netlink, self._table, self._guard)
        else:
            refused = reconcile(self._netlink, partial(closed, self._plan)).refused
            if self._plan.role == "hub":
                self._guard.remove()
        for line in refused:
            self._log.warning("network: %s", line)
        self._netlink.close()

    def divert(self, down: frozenset[str]) -> None:
        """From now on the traffic of these tunnels goes by others, or is refused where there is none."""
        if down == self._down:
            return
        for name in down ^ self._down:
            what = "its traffic goes by others or is refused" if name in down else "has its traffic back"
            self._log.info("%s: %s", name, what)
        self._down = down
        self._on_change(nftables=False)

    def tunnel_fds(self, tunnel: TunnelPlan, generation: int) -> tuple[int, int] | None:
        """TUN and a fresh UDP socket for a site's worker; None while its WAN cannot reach the hub."""
        udp = self.rebind(tunnel, generation)
        return None if udp is None else (self._tun(tunnel.tun), udp)

    def rebind(self, tunnel: TunnelPlan, generation: int) -> int | None:
        """A new UDP socket on the WAN's present address, in the place of the last; None as above."""
        old = self._sockets.pop((tunnel.name, generation), None)
        if old is not None:
            old.close()
        ends = self.links[tunnel.wan].reach(tunnel.hub_addresses)
        if ends is None:
            return None
        local, remote = (ends[0], tunnel.source_ports[generation]), (ends[1], tunnel.hub_port)
        try:
            sock = sockets.site_socket(tunnel.interface, local, remote, tunnel.dscp, tunnel.priority)
        except OSError as error:  # the WAN went this very moment; `watch` will tell
            self._log.warning("%s: no UDP socket from %s to %s: %s", tunnel.name, *ends, error.strerror)
            return None
        self._sockets[tunnel.name, generation] = sock
        return sock.fileno()

    def hub_fds(self, worker: HubWorkerPlan, generation: int) -> tuple[int, int]:
        """TUN and UDP socket for a hub's worker, the same ones at every call."""
        group = self._groups[_port(worker)]
        self._lent.setdefault(worker.name, set()).add(worker.slot + generation)
        return self._tun(worker.tun), group.lend(worker.slot + generation, worker.dscp, worker.priority)

    def admit(self, worker: HubWorkerPlan, generation: int) -> None:
        """New connections of a hub's worker go to its process of this generation, which has its socket."""
        self._groups[_port(worker)].admit(worker.slot + generation)

    def forget(self, worker: TunnelPlan | HubWorkerPlan, generation: int) -> None:
        """The process of this generation has gone, and none comes in its place."""
        if isinstance(worker, TunnelPlan):
            sock = self._sockets.pop((worker.name, generation), None)
            if sock is not None:
                sock.close()
        else:
            self._lent.get(worker.name, set()).discard(worker.slot + generation)
            self._close_what_went()

    def sunk(self, worker: HubWorkerPlan) -> int:
        """Datagrams that came to a hub worker's port and named no slot of it, ever; 0 when the port is closed."""
        group = self._groups.get(_port(worker))
        return group.drops(SINK_SLOT) if group is not None else 0

    def guarded(self) -> dict[str, int]:
        """Packets of strangers that a hub's `guard` has dropped, by its counters; none when they cannot be read."""
        if self._plan.role != "hub":
            return {}
        now = time.monotonic()
        if now >= self._guarded_at + GUARD_INTERVAL:
            self._guarded_at = now
            try:
                self._guarded = self._guard.counters()
            except HostFault as fault:  # somebody removed the table; it is put back, and counts from nought
                self._guarded = {}
                self._log.debug("network: %s", fault)
        return self._guarded

    def wan_counters(self) -> dict[str, WanCounters]:
        """What the interfaces of the WANs have carried; without those that are not there, none if we cannot look."""
        try:
            there = psutil.net_io_counters(pernic=True, nowrap=False) if self._plan.wans else {}
        except OSError as error:  # we have no descriptor left
            self._log.debug("network: %s", error)
            return {}
        return {
            wan.name: WanCounters(wan.interface, counted.bytes_recv, counted.bytes_sent)
            for wan in self._plan.wans
            if (counted := there.get(wan.interface)) is not None
        }

    def classify(self, packet: Packet) -> tuple[Verdict, ...]:
        """Where the first packet of such a flow would go, for each LAN that it may come from."""
        return verdicts(self._plan, self._netlink.snapshot(), self._down, packet)

    def counters(self) -> dict[str, int]:
        """Packets by counter of `ruleset`: of each class, what was refused, of each rule. Raises HostFault."""
        return self._table.counters()

    def _tun(self, name: str) -> int:
        """The TUN to lend. Deleted, it ends its worker before `watch` can tell; then it is mended here."""
        if not is_there(self._tuns[name]):
            self._open()
            self._refresh()
        return self._tuns[name]

    def _filter(self) -> None:
        damaged = [ruleset.TABLE] if self._table.apply(ruleset.render(self._plan)) else []
        self._store.note("nft/table", self._table.seal)
        if self._plan.role == "hub":
            damaged += [guard.TABLE] if self._guard.apply(guard.render(self._plan)) else []
            self._store.note("nft/guard", self._guard.seal)
        self._tell_repairs([f"nftables table {name}" for name in damaged])

    def _open(self) -> None:
        """Opens what the plan has and we have not. A TUN that somebody deleted is opened anew."""
        there = self._netlink.links()
        for worker in self._plan.workers:
            if worker.tun in self._tuns and worker.tun not in there:
                text = "%s: somebody deleted the TUN %s"
                self._log.warning(text, worker.name, worker.tun, extra=marks(Kind.REPAIR, worker))
                self._close_tun(worker.tun)
            if worker.tun not in self._tuns:
                self._tuns[worker.tun] = self._kept_tun(worker.tun) or open_tun(worker.tun)
                self._store.put(f"tun/{worker.tun}", self._tuns[worker.tun])
        for worker in self._plan.hub_workers:
            port, shared = _port(worker), worker.traffic_class is None
            if port not in self._groups:
                self._groups[port] = self._open_port(port, shared)
            self._groups[port].share(shared=shared)

    def _close_what_went(self) -> None:
        plan = self._plan
        for key in self._sockets.keys() - {(tunnel.name, g) for tunnel in plan.tunnels for g in (0, 1)}:
            self._sockets.pop(key).close()
        for tun in self._tuns.keys() - {worker.tun for worker in plan.workers}:
            self._close_tun(tun)
        slots: dict[_Port, set[int]] = {}
        for worker in plan.hub_workers:
            slots.setdefault(_port(worker), set()).update(self._lent.get(worker.name, ()))
        for port in self._groups.keys() - slots.keys():
            self._close_port(port)
        for port, group in self._groups.items():
            group.keep(slots[port])

    def _kept_tun(self, name: str) -> int | None:
        fd = self._store.take(f"tun/{name}")
        if fd is not None and not is_there(fd):
            os.close(fd)
            self._store.drop(f"tun/{name}")
            return None
        return fd

    def _close_tun(self, name: str) -> None:
        self._store.drop(f"tun/{name}")
        os.close(self._tuns.pop(name))

    def _open_port(self, port: _Port, shared: bool) -> sockets.Group:
        """All slots as an earlier supervisor left them, or all anew."""
        names = [slot_name(*port, slot) for slot in range(SLOTS)]
        kept = [fd for fd in map(self._store.take, names) if fd is not None]
        if len(kept) < SLOTS:
            for fd in kept:
                os.close(fd)
            for name in names:
                self._store.drop(name)
            kept = []
        group = sockets.Group(*port, shared=shared, kept=kept)
        for name, fd in zip(names, group.descriptors, strict=True):
            self._store.put(name, fd)
        return group

    def _close_port(self, port: _Port) -> None:
        for slot in range(SLOTS):
            self._store.drop(slot_name(*port, slot))
        self._groups.pop(port).close()

    def _refresh(self) -> None:
        """Reads the kernel's state and reconciles it. Where that fails, what the WANs are is known all the same."""
        refused = make_vlans(self._netlink, self._plan.lans)
        try:
            outcome = reconcile(self._netlink, self._desired)
        finally:
            self._see_links()
        refused += outcome.refused
        before, self._in_place = self._in_place, outcome.in_place
        self._tell_repairs([str(thing) for thing in outcome.done if thing in before and thing in self._in_place])
        for line in refused:
            if line not in self._refused:
                self._log.warning("network: %s", line)
        self._refused = refused

    def _see_links(self) -> None:
        states = {wan.name: link_state(wan, self._there) for wan in self._plan.wans}
        hubs = {wan.name: wan.hub_addresses for wan in self._plan.wans}
        now = {name: (state, state.reach(hubs[name]) is not None) for name, state in states.items()}
        self.links = self._damper.step(now, time.monotonic())

    def _desired(self, there: Snapshot) -> Desired:
        self._there = there
        for wan in self._plan.wans:
            state = link_state(wan, there)
            self._last |= {(wan.name, v): a for v in (4, 6) if (a := state.local_address(v)) is not None}
        return desired(self._plan, there, self._down, self._last)

    def _on_change(self, nftables: bool) -> None:
        for part in (self._filter, self._open, self._refresh) if nftables else (self._open, self._refresh):
            self._attempt(part)
        told, self._told = self._told, self.links
        for name, state in self.links.items():
            before = told.get(name)
            if before != state:
                self._tell(before, state)
                self._callback(name)
        wakes_at = self._damper.wakes_at()
        if wakes_at is not None and self._monitor is not None:
            self._monitor.look(max(0.0, wakes_at - time.monotonic()))

    def _attempt(self, part: Callable[[], None]) -> None:
        """This host's trouble must neither end the loop that mends it, nor keep the other parts from theirs."""
        try:
            part()
        except (HostFault, OSError) as error:
            self._log.error("network: %s", error)
        except Exception:  # noqa: BLE001 - it is told, with its traceback
            self._log.exception("network: a fault of mpq's own")

    def _tell_repairs(self, things: list[str]) -> None:
        line = self._repairs.line(things, time.monotonic())
        if line is not None:
            self._log.warning("network: %s", line, extra=marks(Kind.REPAIR))

    def _tell(self, before: LinkState | None, state: LinkState) -> None:
        word, text = state.condition
        if before is None or before.condition != (word, text):
            level = logging.INFO if word == "ready" else logging.WARNING
            self._log.log(level, "%s: %s", state.wan, text, extra=marks(Kind.LINK, wan=state.wan, reason=word))


def _port(worker: HubWorkerPlan) -> _Port:
    return sockets.bind_address(worker.addresses), worker.port
