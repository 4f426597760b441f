"""Every message of the control stream and of the contract, as release 1 has them: a copy that is never edited.

The next release is tested against it, until there is one after that, see docs/decisions/versions.md.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

import msgspec
from msgspec import Meta

VERSIONS = (1,)
CONTRACT_VERSION = 1


class Claims(msgspec.Struct, frozen=True, omit_defaults=True):
    versions: tuple[int, ...]
    traffic_class: int
    inner: tuple[str, ...]
    certificate: bytes
    features: tuple[str, ...] = ()
    standby: bool = False


class Hello(msgspec.Struct, frozen=True, tag="hello", omit_defaults=True):
    claims: bytes
    signature: bytes


class Welcome(msgspec.Struct, frozen=True, tag="welcome", omit_defaults=True):
    version: int
    inner: tuple[str, ...]
    features: tuple[str, ...] = ()


class Take(msgspec.Struct, frozen=True, tag="take"):
    pass


class Move(msgspec.Struct, frozen=True, tag="move"):
    pass


class Moved(msgspec.Struct, frozen=True, tag="moved"):
    pass


Control = Hello | Welcome | Take | Move | Moved


class TrafficClass(IntEnum):
    CRITICAL = 0
    DEFAULT = 1
    BULK = 2


Number = Annotated[float, Meta(ge=-1000000000000.0, le=1000000000000.0)]


Word = Annotated[str, Meta(pattern="\\A[a-z0-9_]{1,32}\\Z")]


SiteWord = Annotated[str, Meta(pattern="\\A[A-Za-z0-9._-]{1,63}\\Z")]


Host = Annotated[str, Meta(pattern="\\A[0-9A-Za-z.:%_@-]{1,64}\\Z")]


class _Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    pass


class Fork(_Message, frozen=True):
    seq: int
    name: str
    uid: int
    gid: int
    nice: int = 0
    cpus: tuple[int, ...] = ()


class Forked(_Message, frozen=True):
    seq: int
    pid: int


class Reaped(_Message, frozen=True):
    pid: int
    status: int


class Ping(_Message, frozen=True):
    seq: int


class Pong(_Message, frozen=True):
    seq: int
    rss: int = 0


class QueueLimits(_Message, frozen=True):
    max_bytes: int = 131072
    target: float = 0.005
    interval: float = 0.1


class Timing(_Message, frozen=True):
    probe_interval: float = 0.25
    silence: float = 0.15
    peer_timeout: float = 1.0
    idle_timeout: float = 30.0


class Transport(_Message, frozen=True):
    inner_mtu: int = 1400
    key_update_packets: int = 4194304
    max_window: int = 4194304
    native: bool = True


class Credentials(_Message, frozen=True):
    ca: str
    certificate: str


class ConfigureSite(_Message, frozen=True):
    name: str
    site: str
    traffic_class: TrafficClass
    hub_name: str
    hub_address: tuple[str, int]
    door: int
    inner: tuple[str, ...]
    credentials: Credentials
    queue: QueueLimits = QueueLimits()
    timing: Timing = Timing()
    transport: Transport = Transport()
    orphan_exit: bool = False
    standby: bool = False


class SiteEntry(_Message, frozen=True):
    name: str
    identity: str
    inner: tuple[str, ...]
    prefixes: tuple[str, ...] = ()


class Limits(_Message, frozen=True):
    connections: int = 1024
    handshakes: int = 256
    per_source: int = 32
    retry_from: int = 16


class LostPeer(_Message, frozen=True):
    address: tuple[str, int]
    local: bytes
    cid: bytes


class ConfigureHub(_Message, frozen=True):
    name: str
    slot: int
    inner: tuple[str, ...]
    credentials: Credentials
    reset_key: bytes
    retry_key: bytes
    sites: tuple[SiteEntry, ...]
    queue: QueueLimits = QueueLimits()
    timing: Timing = Timing()
    transport: Transport = Transport()
    limits: Limits = Limits()
    orphan_exit: bool = False
    standby: bool = False
    lost: tuple[LostPeer, ...] = ()


class Rebind(_Message, frozen=True):
    hub_address: tuple[str, int]


class SetSites(_Message, frozen=True):
    sites: tuple[SiteEntry, ...]


class Signature(_Message, frozen=True):
    seq: int
    signature: bytes


class Drain(_Message, frozen=True):
    pass


class Lead(_Message, frozen=True):
    pass


class PeerMoved(_Message, frozen=True):
    inner: tuple[str, ...]


class Adopt(_Message, frozen=True):
    pass


class Stop(_Message, frozen=True):
    grace: float = 1.0


class Started(_Message, frozen=True):
    pid: int
    version: int


class Ready(_Message, frozen=True):
    pass


class PeerSilent(_Message, frozen=True):
    reason: str = ""


class PeerBack(_Message, frozen=True):
    pass


class SignRequest(_Message, frozen=True):
    seq: int
    purpose: str
    data: bytes


class Standing(_Message, frozen=True):
    ready: bool
    silent: bool = False
    local: str = ""


class Drained(_Message, frozen=True):
    left: int = 0


class Notice(_Message, frozen=True):
    kind: str
    text: str
    level: str = "info"


class Heartbeat(_Message, frozen=True):
    seq: int
    wakeups: int


class PathStats(_Message, frozen=True):
    rtt: Number | None = None
    rtt_min: Number | None = None
    probe_rtt: Number | None = None
    jitter: Number | None = None
    loss_tx: Number | None = None
    loss_rx: Number | None = None
    congestion_window: int = 0
    bytes_in_flight: int = 0
    packets_sent: int = 0
    packets_lost: int = 0
    packets_received: int = 0
    key_updates: int = 0
    datagram_size: int = 0


class SiteStatus(_Message, frozen=True):
    site: SiteWord
    peer: tuple[Host, int]
    since: Number
    path: PathStats
    bytes_in: int = 0
    bytes_out: int = 0
    local: bytes = b""
    cid: bytes = b""


class Report(_Message, frozen=True):
    bytes_in: int = 0
    bytes_out: int = 0
    packets_in: int = 0
    packets_out: int = 0
    drops: dict[Word, int] = {}
    refusals: dict[Word, int] = {}
    reconnects: int = 0
    path: PathStats | None = None
    sites: tuple[SiteStatus, ...] = ()
    pss: int = 0
    loop_lag: Number = 0.0
    cpu: Number = 0.0
    descriptors: int = 0
    rtt_counts: tuple[int, ...] = ()
    rtt_sum: Number = 0.0
    features: tuple[Word, ...] = ()


ToZygote = Fork | Ping


FromZygote = Forked | Reaped | Pong


ToWorker = ConfigureSite | ConfigureHub | Rebind | SetSites | Signature | Drain | Lead | PeerMoved | Adopt | Stop


FromWorker = (
    Started
    | Ready
    | PeerSilent
    | PeerBack
    | SignRequest
    | Notice
    | Heartbeat
    | Report
    | Drained
    | PeerMoved
    | Standing
)
