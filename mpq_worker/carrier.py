"""The native loop as a core sees it: peers in place of paths, addresses in place of bytes. Pure.

A peer is adopted when its handshake is complete. From then on its 1-RTT packets are built and opened in the loop, and
Python hears of acknowledgements, of key updates, and of what only it can decide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mpq_worker._datapath import Datapath, Path
from mpq_worker.contract import QueueLimits
from mpq_worker.errors import DropReason
from mpq_worker.peer import Peer
from mpq_worker.quic.session import Address
from mpq_worker.remote import pack_remote
from mpq_worker.routes import Prefix

VIRTIO_HEADER = 10


class Carrier:
    """`datapath` is the loop itself, for the driver to give it descriptors; without them it takes and gives bytes."""

    def __init__(self, queue: QueueLimits, *, hub: bool) -> None:
        self.datapath = Datapath(hub=hub)
        self._queue = queue
        self._no_path = DropReason.NO_ROUTE if hub else DropReason.NO_CONNECTION
        self._pack: Callable[[Address], bytes] = pack_remote if hub else lambda addr: b""
        self._peers: dict[Path, Peer] = {}
        self._outlet: Path | None = None

    def adopt(self, peer: Peer, now: float) -> None:
        """The handshake of `peer` is complete."""
        peer.path = path = peer.session.go_native(self.datapath, self._queue, self._pack, now)
        self._peers[path] = peer

    def bind(self, peer: Peer, cids: Iterable[bytes]) -> None:
        """The loop takes the packets to these connection IDs."""
        if peer.path is not None:
            for cid in cids:
                self.datapath.bind(cid, peer.path)

    def unbind(self, cids: Iterable[bytes]) -> None:
        """Python takes them."""
        for cid in cids:
            self.datapath.unbind(cid)

    def remove(self, peer: Peer) -> None:
        """The connection is over; its connection IDs and routes are gone already."""
        if peer.path is not None and self._peers.pop(peer.path, None) is not None:
            self.datapath.remove(peer.path)

    def use(self, peer: Peer | None) -> None:
        """All packets from the TUN go to `peer`."""
        path = None if peer is None else peer.path
        if path is not self._outlet:
            self._outlet = path
            self.datapath.use(path)

    def route(self, prefix: Prefix, peer: Peer | None) -> None:
        """Packets from the TUN to `prefix` go to `peer`, or nowhere."""
        address, bits = packed(prefix)
        self.datapath.route(address, bits, None if peer is None else peer.path)

    # ------------------------------------------------------------------ bytes

    def frame(self, packet: bytes, now: float) -> None:
        """An IP packet from the TUN."""
        self.datapath.frame(packet, now)

    def datagram(self, data: bytes, addr: Address, now: float) -> bool:
        """A UDP payload; False if it is for Python."""
        return bool(data) and not self.datapath.datagram(data, now, self._pack(addr))

    def datagrams(self) -> list[tuple[bytes, Address]]:
        """UDP payloads to send, if there is no descriptor for them; a connection that is over sends no more."""
        taken = self.datapath.take_datagrams()
        return [(data, self._peers[path].session.address) for path, data in taken if path in self._peers]

    def packets(self) -> list[bytes]:
        """IP packets for the TUN, if there is no descriptor to write them to."""
        return [frame[VIRTIO_HEADER:] for frame in self.datapath.take_frames()]

    # ------------------------------------------------------------------ what the loop has for Python

    def events(self) -> list[tuple[Peer, int]]:
        """See `_datapath` for their bits."""
        return [(self._peers[path], events) for path, events in self.datapath.take_events()]

    def messages(self) -> list[tuple[Peer, bytes]]:
        """DATAGRAM payloads that are no IP packets."""
        return [(self._peers[path], payload) for path, payload in self.datapath.take_other()]

    def drops(self) -> dict[DropReason, int]:
        """Since the beginning."""
        counted = self.datapath.drops()
        counted[self._no_path] = counted.pop("no_path")
        return {DropReason(reason): number for reason, number in counted.items()}


def packed(prefix: Prefix) -> tuple[bytes, int]:
    """A prefix as the loop takes it."""
    size, bits, network = prefix
    return (network << (8 * size - bits)).to_bytes(size, "big"), bits
