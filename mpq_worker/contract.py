"""The contract between supervisor, zygote and workers: messages and exit codes, nothing else.

Pure: this is the one module both packages share. Every message is a tagged msgspec Struct, encoded as
MessagePack, one message per SOCK_SEQPACKET packet (see `channel`). File descriptors named in a docstring
travel in the same packet, as SCM_RIGHTS, in the order given there.

    supervisor → zygote   Fork, Ping                zygote → supervisor   Forked, Reaped, Pong
    supervisor → worker   ConfigureSite | ConfigureHub, Rebind, SetSites, Signature, Drain, Lead, PeerMoved, Adopt,
                          Stop
    worker → supervisor   Started, Ready, PeerSilent, PeerBack, Heartbeat, Report, SignRequest, Notice, Drained,
                          PeerMoved, Standing

Times are seconds, sizes bytes, addresses text as `ipaddress` prints it, unless a field says otherwise.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated

import msgspec
from msgspec import Meta

CONTRACT_VERSION = 1
NEIGHBOURS = frozenset({CONTRACT_VERSION - 1, CONTRACT_VERSION, CONTRACT_VERSION + 1})
"""Whose workers a supervisor can have: those of the release before it, which it adopts and then replaces, and those
of the release after it, where somebody goes back. Between these, fields and messages are only added
(docs/decisions/versions.md)."""
MAX_MESSAGE = 196_608
"""Largest encoded message in bytes; senders bound what grows (sites, reports) and receivers refuse more."""
MAX_FDS = 8

MAX_RESET = 42
"""Largest stateless reset in bytes: smaller than any probe, so that the hub's packet filter can tell whom the hub
answers from whom it turns away."""

DRAIN_LIMIT = 32.0
HEARTBEAT_INTERVAL = 0.25
REPORT_INTERVAL = 1.0

RTT_BOUNDS = (
    0.002, 0.005, 0.010, 0.015, 0.020, 0.025, 0.030, 0.040, 0.050, 0.060, 0.080, 0.100, 0.125, 0.150, 0.200, 0.300,
    0.500, 1.0, 2.0,
)  # fmt: skip
"""Upper bounds of the buckets of `Report.rtt_counts`, in seconds; a last bucket takes what is above."""


class ExitCode(IntEnum):
    """Exit codes of a worker, after sysexits.h. `PERMANENT` ones are not retried until told."""

    OK = 0
    UNAVAILABLE = 69  # a descriptor failed under us (TUN or socket gone)
    SOFTWARE = 70  # a bug: an exception nobody expected
    TEMPFAIL = 75
    NOPERM = 77  # isolation could not be set up
    CONFIG = 78  # the configuration it was given cannot work


PERMANENT = frozenset({ExitCode.CONFIG, ExitCode.NOPERM})


class TrafficClass(IntEnum):
    """The three classes. The value orders slots behind a hub's port: slots 1+2n and 2+2n (ARCHITECTURE 2)."""

    CRITICAL = 0
    DEFAULT = 1
    BULK = 2


SINK_SLOT = 0
SLOTS = 1 + 2 * len(TrafficClass)


def slot_of(traffic_class: TrafficClass | None, generation: int = 0) -> int:
    """The reuseport slot, and the first byte of every connection ID that a hub issues, of a class's worker.

    `None` is the single worker of a shared listener, which uses the first class's slots. The two workers of a
    planned restart have different generations, 0 and 1.
    """
    return 1 + 2 * (traffic_class or 0) + generation


def door_of(traffic_class: TrafficClass | None) -> int:
    """The first byte of the connection ID that a site's first Initial goes to: it names the class alone, and the
    hub's kernel picks the worker that admits for it now."""
    return SLOTS + (traffic_class or 0)


# What a worker tells of itself is shown to people, and a worker may have been broken into.
Number = Annotated[float, Meta(ge=-1e12, le=1e12)]
Word = Annotated[str, Meta(pattern=r"\A[a-z0-9_]{1,32}\Z")]
SiteWord = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,63}\Z")]
Host = Annotated[str, Meta(pattern=r"\A[0-9A-Za-z.:%_@-]{1,64}\Z")]


class _Message(msgspec.Struct, frozen=True, tag=True, omit_defaults=True):
    pass


# ---------------------------------------------------------------- supervisor ⇄ zygote


class Fork(_Message, frozen=True):
    """Fork one worker. fds: [the worker's end of its channel]."""

    seq: int
    name: str
    uid: int
    gid: int
    nice: int = 0
    cpus: tuple[int, ...] = ()


class Forked(_Message, frozen=True):
    """fds: [pidfd of the worker]. Sent before the worker may be reaped."""

    seq: int
    pid: int


class Reaped(_Message, frozen=True):
    """`status` as by `os.waitstatus_to_exitcode`: the exit code, or minus the signal number."""

    pid: int
    status: int


class Ping(_Message, frozen=True):
    seq: int


class Pong(_Message, frozen=True):
    seq: int
    rss: int = 0


# ---------------------------------------------------------------- supervisor → worker


class QueueLimits(_Message, frozen=True):
    """Bounds of the worker's own send queue (RFC 8289)."""

    max_bytes: int = 131_072
    target: float = 0.005
    interval: float = 0.100


class Timing(_Message, frozen=True):
    """Liveness. `probe_interval` while idle; `silence` without an answer while sending brings a probe at once;
    `peer_timeout` without anything inbound makes the peer silent and starts a new connection beside the old."""

    probe_interval: float = 0.25
    silence: float = 0.15
    peer_timeout: float = 1.0
    idle_timeout: float = 30.0


class Transport(_Message, frozen=True):
    """What both roles tell QUIC."""

    inner_mtu: int = 1400
    key_update_packets: int = 4_194_304  # half of AES-GCM's 2^23 (RFC 9001 section 6.6)
    max_window: int = 4_194_304
    native: bool = True  # False: every packet through aioquic, for comparison


class Credentials(_Message, frozen=True):
    """Public half only; the private key stays in the supervisor. PEM texts."""

    ca: str
    certificate: str


class ConfigureSite(_Message, frozen=True):
    """First message to a site's worker. fds: [TUN, UDP socket bound to the WAN and connected to the hub]."""

    name: str
    site: str
    traffic_class: TrafficClass
    hub_name: str
    hub_address: tuple[str, int]
    door: int  # see `door_of`
    inner: tuple[str, ...]
    credentials: Credentials
    queue: QueueLimits = QueueLimits()
    timing: Timing = Timing()
    transport: Transport = Transport()
    orphan_exit: bool = False
    standby: bool = False  # connect, but leave the TUN and the hub's routes to another worker until `Lead`


class SiteEntry(_Message, frozen=True):
    """A site as a hub worker knows it: who may use which inner addresses and prefixes through this worker. One that
    is revoked has no addresses."""

    name: str
    identity: str
    inner: tuple[str, ...]
    prefixes: tuple[str, ...] = ()


class Limits(_Message, frozen=True):
    """What strangers may take of a hub's worker. Connections in all; those that have not said Hello yet: in all, from
    one address that is proven (an IPv6 /64), and how many before others are asked for that proof by a Retry."""

    connections: int = 1024
    handshakes: int = 256
    per_source: int = 32
    retry_from: int = 16


class LostPeer(_Message, frozen=True):
    """A connection of a process that has died: where its site was, where at the hub it sent to (packed), and the
    connection ID that it sent to."""

    address: tuple[str, int]
    local: bytes
    cid: bytes


class ConfigureHub(_Message, frozen=True):
    """First message to a hub's worker. fds: [TUN, UDP socket of its slot]. `retry_key` is that of its port."""

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
    standby: bool = False  # serve the socket, but leave the TUN to another worker until `Lead`
    lost: tuple[LostPeer, ...] = ()  # to be reset at once


class Rebind(_Message, frozen=True):
    """The WAN changed (address, gateway, interface): use this socket from now on. fds: [UDP socket]."""

    hub_address: tuple[str, int]


class SetSites(_Message, frozen=True):
    """Replaces a hub worker's sites; connections of a site that is gone or changed its identity are closed."""

    sites: tuple[SiteEntry, ...]


class Signature(_Message, frozen=True):
    """Answer to `SignRequest`; an empty signature is a refusal."""

    seq: int
    signature: bytes


class Drain(_Message, frozen=True):
    """A successor is Ready: at a hub, send the sites over to it; then leave the TUN alone, send out what was read of
    it and say `Drained`, all that within `DRAIN_LIMIT`. Deliver what comes in until `Stop`."""


class Lead(_Message, frozen=True):
    """Nobody else reads the TUN any more: read it, and have the peer send here. Also takes a `Drain` back."""


class PeerMoved(_Message, frozen=True):
    """A peer has sent the old worker its last packet. From there to the supervisor and on to the new one, which keeps
    back what it hears of that peer until then. `inner` are the site's addresses."""

    inner: tuple[str, ...]


class Adopt(_Message, frozen=True):
    """Another supervisor has this channel now: lead, and answer with `Standing`."""


class Stop(_Message, frozen=True):
    """Close connections and exit with `ExitCode.OK` within `grace`."""

    grace: float = 1.0


# ---------------------------------------------------------------- worker → supervisor


class Started(_Message, frozen=True):
    """Isolation is in place, configuration may come."""

    pid: int
    version: int


class Ready(_Message, frozen=True):
    """Site: the hub said Welcome and answered a probe. Hub: the worker serves its socket."""


class PeerSilent(_Message, frozen=True):
    """Nothing inbound for `Timing.peer_timeout` (site only)."""

    reason: str = ""


class PeerBack(_Message, frozen=True):
    """The peer answers again (site only)."""


class SignRequest(_Message, frozen=True):
    """`purpose` is "tls" (a TLS 1.3 server CertificateVerify) or "hello"; the supervisor checks that it is one."""

    seq: int
    purpose: str
    data: bytes


class Standing(_Message, frozen=True):
    """Answer to `Adopt`: whether it was ever `Ready`, whether the peer is silent, and a site's address on its WAN."""

    ready: bool
    silent: bool = False
    local: str = ""


class Drained(_Message, frozen=True):
    """Answer to `Drain`. `left` is how many packets could not be sent in time."""

    left: int = 0


class Notice(_Message, frozen=True):
    """One line for the log. `kind` is a stable word (`refused`, `reconnect`, `key-update`, …)."""

    kind: str
    text: str
    level: str = "info"


class Heartbeat(_Message, frozen=True):
    """From the data loop itself, every `HEARTBEAT_INTERVAL`; `wakeups` proves that the loop turns."""

    seq: int
    wakeups: int


class PathStats(_Message, frozen=True):
    """One connection over the last report interval; counters are totals since the connection began.

    Ratios are 0..1, or None where nothing was sent in the interval. `rtt` is smoothed (RFC 9002 section 5.3),
    `jitter` the mean deviation of successive probe RTTs (RFC 3550 section 6.4.1).
    """

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
    """A site's connection as a hub worker sees it."""

    site: SiteWord
    peer: tuple[Host, int]
    since: Number  # seconds this connection has been up
    path: PathStats
    bytes_in: int = 0
    bytes_out: int = 0
    local: bytes = b""  # as in `LostPeer`
    cid: bytes = b""


class Report(_Message, frozen=True):
    """Every `REPORT_INTERVAL`. `in` is from the tunnel to the TUN, `out` from the TUN into the tunnel.

    `rtt_counts` are the answered probes since the worker began, by `RTT_BOUNDS` (a site's only), `rtt_sum` the sum
    of their round trips; `cpu` is user and system time; `descriptors` how many are open; `features` what the native
    loop uses of the kernel. Of a hub's `connected` connections `sites` has as many as a message holds.
    """

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
    connected: int | None = None  # at a hub


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
