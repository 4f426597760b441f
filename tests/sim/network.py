"""Two cores and the network between them in virtual time: delay, loss, reordering, a bottleneck, all seeded."""

from __future__ import annotations

import heapq
import random
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from mpq_worker.contract import SLOTS, FromWorker, SignRequest
from mpq_worker.hub import HubTunnel
from mpq_worker.tunnel import SiteTunnel

Core = SiteTunnel | HubTunnel
IP_UDP_HEADERS = 28


@dataclass
class Link:
    """One direction. `rate` in bytes per second with a buffer of `buffer` bytes; None is infinite."""

    delay: float = 0.010
    loss: float = 0.0
    reorder: float = 0.0
    reorder_delay: float = 0.005
    rate: float | None = None
    buffer: int = 100_000
    mtu: int = 1500  # of IPv4 packets
    sent: int = 0
    lost: int = 0
    busy_until: float = 0.0


@dataclass
class Node:
    """A core with its address, its key, and what came out of it."""

    core: Core
    addr: tuple[str, int]
    key: ec.EllipticCurvePrivateKey
    uplink: Link = field(default_factory=Link)
    delivered: list[tuple[float, bytes]] = field(default_factory=list)
    messages: list[FromWorker] = field(default_factory=list)
    captured: list[bytes] = field(default_factory=list)
    bytes_to: Counter[tuple[str, int]] = field(default_factory=Counter)
    signs: bool = True
    alive: bool = True
    capture: bool = False
    tun: Tun | None = None
    lag: float = 0.0  # how late its process gets to see a datagram
    told: Callable[[FromWorker], None] = lambda message: None


@dataclass
class Tun:
    """One TUN of several workers: a short queue of packets to be read, and all that was written, in order."""

    nodes: list[Node] = field(default_factory=list)
    queue: deque[bytes] = field(default_factory=lambda: deque(maxlen=100))
    dropped: int = 0
    written: list[bytes] = field(default_factory=list)

    def add(self, node: Node) -> None:
        self.nodes.append(node)
        node.tun = self


@dataclass
class Port:
    """A hub's port, steered by connection ID as by `sockets`; `door` is who admits."""

    slots: dict[int, Node]
    door: Node

    def pick(self, data: bytes) -> Node | None:
        first = data[6] if data[0] & 0x80 else data[1]
        return self.door if first >= SLOTS else self.slots.get(first)


class Network:
    """Events in order of virtual time; `run(until)` advances it."""

    def __init__(self, seed: int = 1) -> None:
        self.now = 100.0
        self.random = random.Random(seed)
        self.nodes: dict[tuple[str, int], Node] = {}
        self.ports: dict[tuple[str, int], Port] = {}
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._wake: dict[int, float] = {}

    def add(self, node: Node) -> Node:
        self.nodes[node.addr] = node
        self.flush(node)
        return node

    def at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self._order), action))

    def every(self, interval: float, until: float, action: Callable[[], None]) -> None:
        """Call `action` each `interval` from now on."""

        def step() -> None:
            action()
            if self.now + interval < until:
                self.at(self.now + interval, step)

        self.at(self.now, step)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self._queue and self._queue[0][0] <= end:
            when, _, action = heapq.heappop(self._queue)
            self.now = max(self.now, when)
            action()
        self.now = end

    def send_packet(self, node: Node, packet: bytes) -> None:
        """An IP packet arrives from the node's TUN."""
        if node.alive and node.core.want_packets(self.now):
            node.core.handle_packet(packet, self.now)
            self.flush(node)

    def inject(self, tun: Tun, packet: bytes) -> None:
        """An IP packet is routed into a TUN that at most one worker reads."""
        readers = [node for node in tun.nodes if node.alive and node.core._duty.reads]
        assert len(readers) <= 1, "two readers of one TUN"
        tun.dropped += len(tun.queue) == tun.queue.maxlen
        tun.queue.append(packet)
        for node in readers:
            self.flush(node)

    def flush(self, node: Node) -> None:
        """What a driver does in one wake-up."""
        tun = node.tun
        while tun is not None and tun.queue and node.alive and node.core.want_packets(self.now):
            node.core.handle_packet(tun.queue.popleft(), self.now)
        self._flush(node)

    def _flush(self, node: Node) -> None:
        core = node.core
        for data, addr in core.poll_transmit(self.now):
            self._transmit(node, data, (addr[0], addr[1]))
        while (packet := core.poll_packet()) is not None:
            node.delivered.append((self.now, packet))
            if node.tun is not None:
                node.tun.written.append(packet)
        while (message := core.poll_message()) is not None:
            node.messages.append(message)
            node.told(message)
            if isinstance(message, SignRequest) and node.signs:
                self.at(self.now + 0.001, lambda message=message: self._sign(node, message))  # type: ignore[misc]  # a lambda's default
        deadline = core.poll_timeout()
        if deadline is not None and self._wake.get(id(node)) != deadline:
            self._wake[id(node)] = deadline
            # a clock never stands still: a timer that is due again at once comes a microsecond later
            self.at(max(deadline, self.now) + 1e-6, lambda: self._timer(node, deadline))

    def _sign(self, node: Node, request: SignRequest) -> None:
        if node.alive:
            signature = node.key.sign(request.data, ec.ECDSA(hashes.SHA256()))
            node.core.handle_signature(request.seq, signature, self.now)
            self.flush(node)

    def _timer(self, node: Node, deadline: float) -> None:
        if node.alive and self._wake.get(id(node)) == deadline:
            self._wake.pop(id(node))
            node.core.handle_timer(self.now)
            self.flush(node)

    def _transmit(self, node: Node, data: bytes, to: tuple[str, int]) -> None:
        link = node.uplink
        link.sent += 1
        node.bytes_to[to] += len(data)
        if node.capture:
            node.captured.append(data)
        if self.random.random() < link.loss or len(data) + IP_UDP_HEADERS > link.mtu:
            link.lost += 1
            return
        arrival = self.now + link.delay
        if link.rate is not None:
            start = max(self.now, link.busy_until)
            if (start - self.now) * link.rate > link.buffer:
                link.lost += 1
                return
            link.busy_until = start + len(data) / link.rate
            arrival = link.busy_until + link.delay
        if self.random.random() < link.reorder:
            arrival += link.reorder_delay
        source = node.addr
        self.at(arrival, lambda: self._arrive(data, source, to))

    def _arrive(self, data: bytes, source: tuple[str, int], to: tuple[str, int]) -> None:
        port = self.ports.get(to)
        node = self.nodes.get(to) if port is None else port.pick(data)
        if node is not None and node.lag:
            self.at(self.now + node.lag, lambda: self._receive(node, data, source))
        elif node is not None:
            self._receive(node, data, source)

    def _receive(self, node: Node, data: bytes, source: tuple[str, int]) -> None:
        if node.alive:
            contacted = (b"",) if isinstance(node.core, HubTunnel) else ()  # a hub's socket tells the address as well
            node.core.handle_udp(data, (*source, *contacted), self.now)
            self.flush(node)
