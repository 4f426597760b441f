"""The test machine's surroundings and its configuration, as text. Pure.

     lan                    the machine: a site                  router            hub            server
    ┌──────┐ 802.1Q  ┌──────────────────────────────────┐     ┌──────────┐     ┌───────────┐     ┌──────┐
    │trunk ├─────────┤ enp6s20   .11 .12 .13       wan4 ├─────┤ r4       │     │           │     │      │
    │      │         │           .21 .22 .23       wan5 ├─────┤ r5  core ├─────┤ ens3  srv ├─────┤ eth0 │
    │      │         │           .31 .32 .33       wan6 ├─────┤ r6       │     │           │     │      │
    └──────┘         └──────────────────────────────────┘     └──────────┘     └───────────┘     └──────┘

The others are network namespaces. Addresses from the router on are the lab's (`tools.topology`). What enters by VLAN
21 takes cr2: the second WAN, critical; 22 is bulk, 23 default. VLAN V is 172.16.V.0/24 and fd00:16:V::/64, the site
.1, the host .9. mpq makes the VLANs of the first two WANs, networkd those of the third and the WANs' addresses;
router, hub and server are there when they begin.
"""

from __future__ import annotations

from tools.topology import HUB, HUB6, WANS

TRUNK = "enp6s20"
RTT_MS = 20
RATED_WAN = 6
HUB_NAME = "hub.example.net"
SITE_NAME = "ship1"
_CLASSES = (("critical", "cr"), ("bulk", "br"), ("default", "df"))
VLANS = {10 * n + m: f"{letters}{n}" for n in (1, 2, 3) for m, (_, letters) in enumerate(_CLASSES, 1)}
"""The tunnel of each VLAN."""
OURS = [vlan for vlan in VLANS if vlan < 30]
"""VLANs whose interfaces mpq makes."""

_SITE = f"""\
role = "site"
hub = {{ name = "{HUB_NAME}", address = ["{HUB}", "{HUB6}"] }}
inner = {{ ipv4 = "10.200.10.0/24", ipv6 = "fd6d:7071::/64" }}
"""
_IDENTITY = f"""
[identity]
certificate = "/etc/mpq/pki/{SITE_NAME}.crt"
key = "/etc/mpq/pki/{SITE_NAME}.key"
ca = "/etc/mpq/pki/ca.crt"
"""
# Python is ten times slower here.
_WATCHDOG = """
[watchdog]
heartbeat_timeout = 15.0
peer_timeout = 10.0
start_timeout = 60.0
"""
_WAN = """
[[wan]]
name = "wan{wan}"
interface = "wan{wan}"
"""
_LAN = """
[[lan]]
name = "vlan{vlan}"
interface = "{trunk}.{vlan}"
wan = "wan{wan}"
class = "{word}"
"""
_VLAN = """\
parent = "{trunk}"
vlan = {vlan}
address = ["172.16.{vlan}.1/24", "fd00:16:{vlan}::1/64"]
"""
_WAN_NETWORK = """\
[Match]
Name=wan{wan}
[Network]
LinkLocalAddressing=no
IPv6AcceptRA=no
Address=100.64.{wan}.2/24
Address=2001:db8:{wan}::2/64
[Route]
Gateway=100.64.{wan}.1
Metric=10{wan}
[Route]
Gateway=2001:db8:{wan}::1
Metric=10{wan}
"""
_VLAN_NETDEV = """\
[NetDev]
Name={trunk}.{vlan}
Kind=vlan
[VLAN]
Id={vlan}
"""
_VLAN_NETWORK = """\
[Match]
Name={trunk}.{vlan}
[Network]
LinkLocalAddressing=no
IPv6AcceptRA=no
Address=172.16.{vlan}.1/24
Address=fd00:16:{vlan}::1/64
"""


def interface(vlan: int) -> str:
    """The site's interface for a VLAN."""
    return f"{TRUNK}.{vlan}"


def host_address(vlan: int) -> str:
    """IPv4 address of the LAN host on a VLAN."""
    return f"172.16.{vlan}.9"


def host_address6(vlan: int) -> str:
    """Its IPv6 address."""
    return f"fd00:16:{vlan}::9"


def links(prefix: str) -> list[str]:
    """`ip -batch` lines for all links, those of the site included."""
    return [
        f"link add {TRUNK} type veth peer name trunk netns {prefix}-lan",
        *(f"link add wan{k} type veth peer name r{k} netns {prefix}-router" for k in WANS),
        f"link add core netns {prefix}-router type veth peer name ens3 netns {prefix}-hub",
        f"link add srv netns {prefix}-hub type veth peer name eth0 netns {prefix}-server",
    ]


def lan_lines() -> list[str]:
    """`ip -batch` lines for the LAN host: a VLAN each, chosen by the source address."""
    lines = ["link set lo up", "link set trunk up"]
    for vlan in VLANS:
        device = f"vlan{vlan}"
        lines += [
            f"link add link trunk name {device} type vlan id {vlan}",
            f"link set {device} up",
            f"addr add {host_address(vlan)}/24 dev {device}",
            f"addr add {host_address6(vlan)}/64 dev {device} nodad",
            f"route add default via 172.16.{vlan}.1 dev {device} table {vlan}",
            f"route add ::/0 via fd00:16:{vlan}::1 dev {device} table {vlan}",
            f"rule add from {host_address(vlan)} table {vlan}",
        ]
    return lines


def lan_rules6() -> list[str]:
    """`ip -6 -batch` lines for the LAN host."""
    return [f"rule add from {host_address6(vlan)} table {vlan}" for vlan in VLANS]


def networkd_files() -> dict[str, str]:
    """The links of the site that networkd sets up, for /etc/systemd/network."""
    theirs = [vlan for vlan in VLANS if vlan not in OURS]
    vlans = "".join(f"VLAN={TRUNK}.{vlan}\n" for vlan in theirs)
    files = {f"10-{TRUNK}.network": f"[Match]\nName={TRUNK}\n[Network]\nLinkLocalAddressing=no\n{vlans}"}
    for vlan in theirs:
        files[f"20-{TRUNK}.{vlan}.netdev"] = _VLAN_NETDEV.format(trunk=TRUNK, vlan=vlan)
        files[f"20-{TRUNK}.{vlan}.network"] = _VLAN_NETWORK.format(trunk=TRUNK, vlan=vlan)
    return files | {f"30-wan{k}.network": _WAN_NETWORK.format(wan=k) for k in WANS}


def site_toml() -> str:
    """The site's configuration."""
    wans = [_WAN.format(wan=k) + ("rate_mbit = 50.0\n" if k == RATED_WAN else "") for k in WANS]
    lans = [
        _LAN.format(trunk=TRUNK, vlan=vlan, wan=WANS[vlan // 10 - 1], word=_CLASSES[vlan % 10 - 1][0])
        + (_VLAN.format(trunk=TRUNK, vlan=vlan) if vlan in OURS else "")
        for vlan in VLANS
    ]
    return _SITE + _IDENTITY + _WATCHDOG + "".join(wans) + "".join(lans)


def hub_toml(sample: str) -> str:
    """The sample of a hub, for a second supervisor beside the site's."""
    own = 'uid_base = 47100\nruntime_directory = "/run/mpq-hub"\nstate_directory = "/var/lib/mpq-hub"\n'
    assert sample.count("\n[supervisor]\n") == 1
    return sample.replace("\n[supervisor]\n", f"\n[supervisor]\n{own}") + _WATCHDOG


PATIENT_DROP_IN = """\
[Service]
TimeoutStartSec=180
"""
HUB_DROP_IN = """\
[Unit]
Requires=lab.service
After=lab.service
[Service]
TimeoutStartSec=180
NetworkNamespacePath=/run/netns/vm-hub
ExecStart=
ExecStart=/usr/bin/mpq-supervisor run --config /etc/mpq/hub.toml
ExecReload=
ExecReload=/usr/bin/mpq-supervisor ctl --runtime-dir /run/mpq-hub reload
ExecStopPost=
ExecStopPost=/usr/bin/mpq-supervisor post-stop --runtime-dir /run/mpq-hub
RuntimeDirectory=
RuntimeDirectory=mpq-hub
StateDirectory=
StateDirectory=mpq-hub
"""
LAB_UNIT = """\
[Unit]
Description=Everything around this site
Before=network-pre.target systemd-networkd.service mpq-supervisor.service
Wants=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
WorkingDirectory=/srv
ExecStart=/usr/lib/mpq/bin/python -m tests.vm.lab
[Install]
WantedBy=multi-user.target
"""
