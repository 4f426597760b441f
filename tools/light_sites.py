"""Many sites in one process: a tunnel core and a UDP socket each, without TUN, supervisor and worker.

    python -m tools.light_sites '{"pki": "/…/pki", "hub": "198.51.100.2", "port": 45010, …}'

Made to put connections on a hub by real handshakes. Each site has a certificate of its own, issued here, and is named
`{prefix}1`, `{prefix}2`, …, with that number at the hub. A few connect at a time; when all are ready it says so
by a line of JSON on stdout (`Ready`). They keep their connections until stdin ends, and then it reports (`Report`).
"""

from __future__ import annotations

import heapq
import select
import socket
import sys
import time
from ipaddress import ip_network
from pathlib import Path

import msgspec

from mpq_supervisor import pki
from mpq_supervisor.arithmetic import host, inner_number
from mpq_supervisor.signer import Signer
from mpq_worker import contract
from mpq_worker.contract import ConfigureSite, Credentials, SignRequest, Timing, TrafficClass, door_of
from mpq_worker.tunnel import SiteTunnel
from tools.sockets import Via, open_datagram

AT_A_TIME = 16
"""Sites that connect at once: as many strangers of one address as a hub takes without asking, or fewer."""
MAX_DATAGRAM = 2048


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """`count` sites of one class to one port of a hub; `inner` is that port's subnet. The authority's key is in
    `pki`."""

    pki: str
    hub_name: str
    hub: str
    port: int
    inner: str
    count: int
    prefix: str = "g"
    traffic_class: TrafficClass = TrafficClass.DEFAULT
    probe_interval: float = 10.0
    peer_timeout: float = 10.0
    via: Via = Via()


class Ready(msgspec.Struct, frozen=True):
    """All are connected, `seconds` after the first began."""

    sites: int
    seconds: float


class Report(msgspec.Struct, frozen=True):
    """What became of them: the number of times that one lost its hub, and that one connected anew."""

    silent: int
    reconnects: int


class LightSite:
    """One site."""

    def __init__(self, order: Order, authority: pki.Credential, number: int, now: float) -> None:
        credential = pki.issue_site(authority, f"{order.prefix}{number}")
        config = ConfigureSite(
            name=f"{order.prefix}{number}",
            site=f"{order.prefix}{number}",
            traffic_class=order.traffic_class,
            hub_name=order.hub_name,
            hub_address=(order.hub, order.port),
            door=door_of(order.traffic_class),
            inner=(host(ip_network(order.inner), inner_number(number, order.traffic_class)),),
            credentials=Credentials(authority.certificate_pem.decode(), credential.certificate_pem.decode()),
            timing=Timing(probe_interval=order.probe_interval, peer_timeout=order.peer_timeout),
        )
        self._signer = Signer(credential.key_pem, "site")
        self._hub = (order.hub, order.port)
        self.socket: socket.socket = open_datagram(order.hub, 0, order.via)
        self.socket.connect(self._hub)
        self.core = SiteTunnel(config, now)
        self.ready = False
        self.silent = 0

    def receive(self) -> None:
        """Take what is there."""
        now = time.monotonic()
        while True:
            try:
                data = self.socket.recv(MAX_DATAGRAM)
            except BlockingIOError:
                break
            except OSError:  # ICMP; silence says it too
                continue
            self.core.handle_udp(data, self._hub, now)
        self.flush(now)

    def flush(self, now: float) -> None:
        """Say what the core has to say."""
        for data, _ in self.core.poll_transmit(now):
            try:
                self.socket.send(data)
            except OSError:  # lost, as any datagram may be
                continue
        while self.core.poll_packet() is not None:
            pass  # there is no TUN
        signed = False
        while (message := self.core.poll_message()) is not None:
            if isinstance(message, SignRequest):
                self.core.handle_signature(message.seq, self._signer.sign(message.purpose, message.data), now)
                signed = True
            self.ready |= isinstance(message, contract.Ready)
            self.silent += isinstance(message, contract.PeerSilent)
        if signed:
            self.flush(now)


class LightSites:
    """All of them, in one loop."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._authority = pki.load_authority(Path(order.pki))
        self._sites: list[LightSite] = []
        self._by_fd: dict[int, int] = {}
        self._connecting: set[int] = set()
        self._timers: list[tuple[float, int]] = []
        self._armed: list[float | None] = []
        self._epoll = select.epoll()

    def run(self) -> Report:
        """Until stdin ends."""
        start = time.monotonic()
        said = False
        self._epoll.register(sys.stdin, select.EPOLLIN)
        while True:
            while len(self._connecting) < AT_A_TIME and len(self._sites) < self._order.count:
                self._add()
            if not said and not self._connecting:
                said = True
                ready = Ready(len(self._sites), time.monotonic() - start)
                print(msgspec.json.encode(ready).decode(), flush=True)
            timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
            for fd, _ in self._epoll.poll(timeout):
                if fd not in self._by_fd:
                    return self._end()
                self._sites[self._by_fd[fd]].receive()
                self._after(self._by_fd[fd])
            self._run_timers()

    def _add(self) -> None:
        place = len(self._sites)
        now = time.monotonic()
        site = LightSite(self._order, self._authority, place + 1, now)
        self._sites.append(site)
        self._armed.append(None)
        self._connecting.add(place)
        self._by_fd[site.socket.fileno()] = place
        self._epoll.register(site.socket, select.EPOLLIN)
        site.core.handle_timer(now)
        site.flush(now)
        self._after(place)

    def _after(self, place: int) -> None:
        site = self._sites[place]
        if site.ready:
            self._connecting.discard(place)
        deadline = site.core.poll_timeout()
        if deadline is not None and deadline != self._armed[place]:
            heapq.heappush(self._timers, (deadline, place))
        self._armed[place] = deadline

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            deadline, place = heapq.heappop(self._timers)
            if self._armed[place] == deadline:
                self._armed[place] = None
                self._sites[place].core.handle_timer(now)
                self._sites[place].flush(now)
                self._after(place)

    def _end(self) -> Report:
        now = time.monotonic()
        reports = [site.core.report(now) for site in self._sites]
        for site in self._sites:
            site.core.handle_stop(now)
            site.flush(now)
        return Report(sum(site.silent for site in self._sites), sum(report.reconnects for report in reports))


if __name__ == "__main__":
    sites = LightSites(msgspec.json.decode(sys.argv[1], type=Order))
    print(msgspec.json.encode(sites.run()).decode())
