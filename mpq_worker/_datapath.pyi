"""The native packet loop. Times are seconds of one clock, sizes bytes, addresses packed."""

from collections.abc import Iterable, Sequence

DROP_REASONS: tuple[str, ...]

ACKED: int
"""Events of a path: `take_ack` has news."""
PHASE_CHANGED: int
"""The peer sends under its next key, which took the place of the current one."""
FOREIGN_SOURCE: int
"""A packet with an inner source that is not allowed came, the first since `take_foreign_source`."""
IN_FLIGHT: int
"""Something is in flight where nothing was."""

QUEUE_LOW: int
"""Bytes: a site's TUN is read while less waits in its one queue."""

Ack = tuple[int, int, int, int, int, int, int, float, float, float, bool, float, float, float, bool]
"""acked, acked_bytes, lost, lost_bytes, spurious, newest (-1: none); of that packet delivered, delivered_time,
first_sent_time, sent_time, app_limited; rtt (0: no sample), the peer's delay; loss_time (0: none); window filled."""

class Path:
    """One connection's 1-RTT packets. Give it keys and its peer, bind its connection IDs, then it carries."""

    def __init__(
        self,
        datapath: Datapath,
        *,
        inner_mtu: int,
        queue_bytes: int,
        target: float,
        interval: float,
        next_number: int,
        delivered: int,
        now: float,
    ) -> None:
        """`next_number` is the next packet number to use, `delivered` the bytes delivered before; `target` and
        `interval` are CoDel's (RFC 8289)."""

    def set_header_keys(self, suite: int, send: bytes, receive: bytes) -> None:
        """`suite` as in TLS (RFC 8446 B.4). First of all. Raises ValueError for one that is not known."""

    def set_send_key(self, secret: bytes, iv: bytes, phase: bool) -> None: ...
    def set_receive_key(self, secret: bytes, iv: bytes, phase: bool, phase_start: int) -> None: ...
    def set_next_key(self, secret: bytes, iv: bytes) -> None:
        """What the peer's next packets but for its phase bit will be opened with."""

    def advance_phase(self, first_number: int, now: float) -> None:
        """Python opened a packet under the next key."""

    def set_peer(self, cid: bytes, reset_token: bytes, remote: bytes) -> None:
        """`remote` as `datagram` takes it; empty on a connected socket. Packets from elsewhere are Python's."""

    def allow(self, prefixes: Iterable[tuple[bytes, int]] | None) -> None:
        """Inner sources whose packets are let through; None: all."""

    def send_message(self, payload: bytes) -> bool:
        """Queue a DATAGRAM payload that is no IP packet, at most 64 bytes, before all others. False: no room."""

    def probe_mtu(self, size: int, now: float) -> int:
        """Send PING and PADDING in a UDP payload of `size`, and a small packet after it; the probe's number, -1 if
        none could leave. Its loss is told by `take_fates` only."""

    def configure(
        self,
        *,
        window: int,
        rate: float,
        elsewhere: int,
        ack_delay: float,
        tell_delay: float,
        pto: float,
        loss_delay: float,
    ) -> None:
        """What Python decides: bytes that may be in flight, `elsewhere` of them its own; bytes per second (0: not
        paced); how long an acknowledgement may wait, and how long Python for those that came (2 ms at least, where
        the window is filled no longer); the probe timeout; when a packet is lost by time."""

    inner_mtu: int
    asked: float | None
    """When something left that wants an answer, since a packet last opened."""

    @property
    def next_number(self) -> int:
        """The next packet number to use."""

    def sent_elsewhere(self, number: int, size: int, now: float) -> None:
        """Python used this number, the next one or a later one, for a packet of `size` bytes (0: not in flight)."""

    def take_fates(self) -> list[tuple[int, bool]]:
        """Python's packets, and probes, that were acknowledged (True) or lost."""

    def hand_over(self, successor: Path) -> None:
        """What is queued goes by `successor`, before what is queued there."""

    def has_received(self, number: int) -> bool:
        """Whether a packet came before, or may have."""

    def note_received(self, number: int, now: float) -> None:
        """Python opened it."""

    def acknowledge_soon(self, now: float) -> None:
        """What Python opened wants an acknowledgement."""

    def acknowledge(self, ranges: Sequence[tuple[int, int]], delay: float, now: float) -> None:
        """Python read an ACK frame: at least one range (low, high), both inclusive, newest first."""

    def detect_loss(self, now: float) -> None: ...
    def take_ack(self) -> Ack:
        """What acknowledgements said since the last call."""

    def take_foreign_source(self) -> bytes: ...
    @property
    def largest_received(self) -> int: ...
    @property
    def largest_acked(self) -> int: ...
    @property
    def oldest_sent(self) -> int:
        """All below it are acknowledged or lost."""

    @property
    def large_lost(self) -> int:
        """Packets above what every path carries that were lost since one of that size was acknowledged."""

    @property
    def bytes_in_flight(self) -> int: ...
    @property
    def packets_in_flight(self) -> int: ...
    @property
    def last_sent(self) -> float: ...
    @property
    def queued(self) -> int:
        """Bytes in the send queue."""

    @property
    def queued_packets(self) -> int: ...
    @property
    def waits(self) -> bool:
        """Whether packets wait for window or pacer."""

    @property
    def receive_phase(self) -> int: ...
    @property
    def phase_start(self) -> int: ...
    @property
    def sealed(self) -> int:
        """Packets under the current send key."""

    @property
    def opened(self) -> int: ...
    @property
    def failed(self) -> int: ...
    @property
    def first_received(self) -> int: ...
    @property
    def heard(self) -> float:
        """When a packet last opened."""

    @property
    def drops(self) -> tuple[int, int]:
        """Packets that found the queue full, and that CoDel dropped."""

    @property
    def totals(self) -> tuple[int, int, int, int]:
        """IP packets and their bytes, in and out."""

class Datapath:
    """What the paths of a worker share. It takes and gives bytes until it has descriptors to read and write."""

    def __init__(self, *, hub: bool) -> None: ...
    def bind(self, cid: bytes, path: Path) -> None:
        """Packets to this connection ID of ours are for `path`."""

    def unbind(self, cid: bytes) -> None: ...
    def route(self, address: bytes, bits: int, path: Path | None) -> None:
        """Packets to this prefix go by `path`; None: by none."""

    def use(self, path: Path | None) -> None:
        """All packets go by `path`; None: by the routes."""

    def remove(self, path: Path) -> None:
        """Forget a path with its connection IDs and routes. Naming it again is a ValueError."""

    def attach(self, tun: int, udp: int) -> None:
        """Use descriptors from now on, with what offloads they have. Raises OSError if `tun` is none."""

    def use_udp(self, fd: int) -> None: ...
    @property
    def features(self) -> tuple[str, ...]:
        """Of vnet, tso, uso, udp_segment, udp_gro those in use."""

    def fileno(self) -> int:
        """Readable when it is time to `wake`."""

    @property
    def now(self) -> float:
        """The time by which the last call went."""

    def may_read(self, may_read: bool) -> None:
        """Whether the TUN is ours to read; the loop itself stops while a site's queue is filled."""

    def wake(self) -> bool:
        """Do what is due; whether there is something for Python. Raises OSError when the TUN is gone."""

    def offload(self, *, tcp: bool, udp: bool) -> None:
        """Which super-packets `take_frames` may give."""

    def frame(self, data: bytes, now: float, header: bytes = b"") -> None:
        """A packet from the TUN, with its virtio header or without."""

    def datagram(self, data: bytes, now: float, remote: bytes = b"", segment: int = 0) -> list[bytes]:
        """A UDP payload, or several of `segment` bytes. Returns those that are Python's, untouched."""

    def take_datagrams(self) -> list[tuple[Path, bytes]]: ...
    def take_frames(self) -> list[bytes]:
        """For the TUN, each with its virtio header of 10 bytes."""

    def take_foreign(self) -> list[tuple[bytes, bytes]]:
        """UDP payloads that are Python's, with where they came from."""

    def take_other(self) -> list[tuple[Path, bytes]]:
        """DATAGRAM payloads that are no IP packets."""

    def take_too_big(self) -> list[tuple[bytes, int]]:
        """The heads of packets that were too big, with the size that is not."""

    def take_events(self) -> list[tuple[Path, int]]: ...
    def flush(self, now: float) -> None:
        """Send what is due, and all that was built; write all that came."""

    def deadline(self) -> float | None:
        """When to call `flush` unless something comes before; with descriptors the loop has a timer of its own."""

    def count(self, reason: str, number: int = 1) -> None:
        """A drop of Python's."""

    def drops(self) -> dict[str, int]: ...
    @property
    def totals(self) -> tuple[int, int, int, int]:
        """IP packets and their bytes, in and out."""

class Timer:
    """A timerfd, for the microseconds that an event loop's own timers do not have."""

    def __init__(self) -> None: ...
    def fileno(self) -> int: ...
    def set(self, deadline: float | None) -> None:
        """When it becomes readable, by time.monotonic(); None: never."""

    def clear(self) -> None:
        """Call when it was readable."""

def plain_tun(fd: int) -> bool:
    """Take a TUN's offloads away; whether its packets have a virtio header. Raises OSError if it is none."""

def segment(frame: bytes) -> list[bytes] | None:
    """The IP packets of a frame that begins with its virtio header; None if the two do not fit together."""
