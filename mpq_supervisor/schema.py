"""What a configuration file may say: the frozen Structs behind `/etc/mpq/mpq.toml`. Pure.

One Struct per TOML section, one field per key; docs/configuration.md describes each of them. `decode` fills
them in, `validate` checks what one field alone cannot show, `config.load` does both.
"""

from __future__ import annotations

from datetime import date
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from mpq_worker.contract import TrafficClass

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
InterfaceAddress = IPv4Interface | IPv6Interface
InterfaceName = Annotated[str, "a name that Linux takes for an interface"]
Name = Annotated[str, "a name of ours: WAN, LAN, listener"]
TokenHash = Annotated[str, "sha256: and 64 hexadecimal digits"]
SiteName = Annotated[str, "a site's name, as in its certificate: mpq://site/NAME"]
Port = Annotated[int, Meta(ge=1, le=65535)]
Dscp = Annotated[int, Meta(ge=0, le=63)]
InnerMtu = Annotated[int, Meta(ge=1280, le=8900)]  # 1280: RFC 8200 section 5
Seconds = Annotated[float, Meta(ge=0.01, le=3600)]


SetName = Annotated[str, "@ and the name of a [set.NAME]"]
Prefixes = Network | SetName


class PortRange(msgspec.Struct, frozen=True):
    """Ports `first` to `last`, both included; written 5060, "5060" or "10000-20000"."""

    first: int
    last: int


Ports = PortRange | SetName


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Identity(_Section, frozen=True):
    """PEM files. A site's `name` is the NAME of its certificate's `mpq://site/NAME`; by default the stem of
    the certificate's file name."""

    certificate: str
    key: str
    ca: str
    name: SiteName = ""


class ClassConfig(_Section, frozen=True):
    """A class that differs from the usual (see `DEFAULT_CLASSES`); None means as usual."""

    name: TrafficClass
    dscp: Dscp | None = None
    priority: Annotated[int, Meta(ge=0, le=6)] | None = None  # as SO_PRIORITY, socket(7)
    txqueuelen: Annotated[int, Meta(ge=10, le=10_000)] | None = None


class Supervisor(_Section, frozen=True):
    """What the supervisor may use of its host. See docs/configuration.md."""

    on_stop: Literal["closed", "open"] = "closed"
    on_orphan: Literal["continue", "exit"] = "continue"
    uid_base: Annotated[int, Meta(ge=1000, le=2_000_000_000)] = 47000
    control_group: str = "mpq"
    runtime_directory: str = "/run/mpq"
    state_directory: str = "/var/lib/mpq"
    table_base: Annotated[int, Meta(ge=11, le=65_000)] = 110
    mark_mask: Annotated[int, Meta(ge=1, le=0xFFFFFFFF)] = 0x0FFF0000
    rule_priority: Annotated[int, Meta(ge=1, le=32_000)] = 10000
    source_port_base: Annotated[int, Meta(ge=1024, le=65_000)] = 46000
    key_update_packets: Annotated[int, Meta(ge=1000, le=1 << 23)] = 4_194_304  # RFC 9001 section 6.6
    memory_limit_mb: Annotated[int, Meta(ge=32, le=1_000_000)] = 256
    cpus: tuple[Annotated[int, Meta(ge=0, le=4095)], ...] = ()
    native: bool = True


class Watchdog(_Section, frozen=True):
    """When a worker or a peer counts as dead, and how soon it is tried again. All in seconds."""

    heartbeat_timeout: Seconds = 1.5
    peer_timeout: Seconds = 1.0
    start_timeout: Seconds = 10.0
    probe_interval: Seconds = 0.25
    backoff_initial: Seconds = 0.1
    backoff_max: Seconds = 30.0
    healthy_after: Seconds = 10.0
    failover_after: Seconds = 1.0
    failback_after: Seconds = 10.0


class Token(_Section, frozen=True):
    """Who may use the portal. `hash` is the SHA-256 of the token, `expires` the last day (UTC) it is good for."""

    name: Name
    role: Literal["viewer", "operator", "admin"]
    hash: TokenHash
    expires: date | None = None


MAX_FALLS = 1000
"""That are remembered of a tunnel, for `flapping`."""


class Alarm(_Section, frozen=True):
    """A rule. Broken for `seconds` it raises an alarm; the alarm is over when it has held as long, with the value at
    `clear` or below. `of` are tunnels, classes, WANs; none means all. Units: docs/configuration.md."""

    name: Name
    kind: Literal["down", "loss", "rtt", "flapping", "asymmetric", "quota"]
    above: Annotated[float, Meta(ge=0)] = 0.0
    clear: Annotated[float, Meta(ge=0)] | None = None
    seconds: Annotated[float, Meta(ge=0, le=86_400)] = 10.0
    severity: Literal["warning", "critical"] = "warning"
    of: tuple[str, ...] = ()


class Webhook(_Section, frozen=True):
    """Where alarms are sent. `secret_file` holds the key of the signature."""

    url: str
    secret_file: str


class Portal(_Section, frozen=True):
    """Metrics, history, API and page; without this section there is no portal."""

    address: tuple[Address, ...] = (IPv4Address("127.0.0.1"),)
    port: Port = 8450
    certificate: str = ""
    key: str = ""
    token: tuple[Token, ...] = ()
    alarm: tuple[Alarm, ...] = ()
    webhook: Webhook | None = None
    history_mb: Annotated[int, Meta(ge=16, le=1_000_000)] = 512


# ---------------------------------------------------------------- site


class Hub(_Section, frozen=True):
    """The hub of a site. `name` is a SAN of the hub's certificate."""

    name: str
    address: tuple[Address, ...]


class Inner(_Section, frozen=True):
    """Subnets of the WAN with suffix 1, and this site's number at the hub."""

    ipv4: IPv4Network | None = None
    ipv6: IPv6Network | None = None
    number: Annotated[int, Meta(ge=0)] = 0


class Wan(_Section, frozen=True):
    """One uplink. `suffix` (by default its place in the file, from 1) gives tunnels, ports and subnets their
    numbers; keep it when another WAN is taken out of the file. `fallback` names the WANs whose tunnels of the same
    class take over while one of this WAN is down, in this order."""

    name: Name
    interface: InterfaceName
    suffix: Annotated[int, Meta(ge=1, le=9)] | None = None
    hub_port: Port | None = None
    hub_address: tuple[Address, ...] = ()
    rate_mbit: Annotated[float, Meta(ge=0.01, le=100_000)] | None = None  # below, HTB cannot express a packet's time
    mtu: InnerMtu = 1400
    table: Annotated[int, Meta(ge=1, le=0xFFFFFFFF)] | None = None
    fallback: tuple[str, ...] = ()


class Lan(_Section, frozen=True):
    """An interface whose incoming traffic takes the tunnels of one WAN; with a class, that one's only.

    With `vlan` and `parent` mpq makes the interface, with `address` it gives it addresses; `prefixes` are what is
    behind the routers `gateway` there.
    """

    name: Name
    interface: InterfaceName
    wan: str
    traffic_class: TrafficClass | None = msgspec.field(default=None, name="class")
    vlan: Annotated[int, Meta(ge=1, le=4094)] | None = None
    parent: InterfaceName | None = None
    address: tuple[InterfaceAddress, ...] = ()
    prefixes: tuple[Network, ...] = ()
    gateway: tuple[Address, ...] = ()
    masquerade: bool = True


class NameSet(_Section, frozen=True):
    """Prefixes and ports under a name, for rules to use as "@NAME"."""

    prefixes: tuple[Network, ...] = ()
    ports: tuple[PortRange, ...] = ()


class Rule(_Section, frozen=True):
    """One line of the classifier: every field that is given must match; `ports` are destination ports."""

    traffic_class: TrafficClass = msgspec.field(name="class")
    name: Name | None = None
    protocol: Literal["tcp", "udp", "sctp", "icmp", "icmpv6", "esp", "gre"] | None = None
    ports: tuple[Ports, ...] = ()
    dscp: tuple[Dscp, ...] = ()
    source: tuple[Prefixes, ...] = ()
    destination: tuple[Prefixes, ...] = ()


class SiteConfig(_Section, frozen=True):
    """A site's file."""

    role: Literal["site"]
    identity: Identity
    hub: Hub
    inner: Inner
    wan: tuple[Wan, ...]
    classes: tuple[ClassConfig, ...] = msgspec.field(default=(), name="class")
    matrix: dict[str, tuple[TrafficClass, ...]] = {}
    lan: tuple[Lan, ...] = ()
    rule: tuple[Rule, ...] = ()
    sets: dict[Name, NameSet] = msgspec.field(default={}, name="set")
    supervisor: Supervisor = Supervisor()
    watchdog: Watchdog = Watchdog()
    portal: Portal | None = None


# ---------------------------------------------------------------- hub


class Listener(_Section, frozen=True):
    """One UDP port of a hub, shared by all sites' tunnels of one WAN."""

    name: Name
    port: Port
    address: tuple[Address, ...] = (IPv6Address("::"),)
    ipv4: IPv4Network | None = None
    ipv6: IPv6Network | None = None
    workers: Literal["per-class", "shared"] = "per-class"
    mtu: InnerMtu = 1400


class SiteLan(_Section, frozen=True):
    """A prefix behind a site. Its return traffic takes one worker: that of `listener` and `class`."""

    prefix: Network
    traffic_class: TrafficClass | None = msgspec.field(default=None, name="class")
    listener: str | None = None


class Site(_Section, frozen=True):
    """A site as a hub knows it. `addresses` replaces the arithmetic of `number` for the workers it names."""

    name: SiteName
    identity: str = ""
    number: Annotated[int, Meta(ge=0)] | None = None
    addresses: dict[str, tuple[Address, ...]] = {}
    lan: tuple[SiteLan, ...] = ()
    revoked: bool = False

    @property
    def uri(self) -> str:
        """The SAN URI that its certificate must carry."""
        return self.identity or site_uri(self.name)


class Nat(_Section, frozen=True):
    """Inner addresses are masqueraded when they leave by this interface; with `lans` also those behind sites."""

    interface: InterfaceName
    lans: bool = False


class FloodLimits(_Section, frozen=True):
    """What strangers may take of a hub. Connections and handshakes are per worker, the others packets per second."""

    connections: Annotated[int, Meta(ge=1, le=65_536)] = 1024
    handshakes: Annotated[int, Meta(ge=16, le=65_536)] = 256
    first_packets: Annotated[int, Meta(ge=1, le=1_000_000)] = 100
    strangers: Annotated[int, Meta(ge=10, le=1_000_000)] = 3000


class HubConfig(_Section, frozen=True):
    """A hub's file."""

    role: Literal["hub"]
    identity: Identity
    listener: tuple[Listener, ...]
    site: tuple[Site, ...] = ()
    classes: tuple[ClassConfig, ...] = msgspec.field(default=(), name="class")
    nat: Nat | None = None
    limits: FloodLimits = FloodLimits()
    supervisor: Supervisor = Supervisor()
    watchdog: Watchdog = Watchdog()
    portal: Portal | None = None


Config = SiteConfig | HubConfig


def site_uri(name: str) -> str:
    """The SAN URI of a site's certificate."""
    return f"mpq://site/{name}"
