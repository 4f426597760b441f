"""The product's configuration in the lab: certificates, the site's file and the hub's, and what follows from them.

Three WANs times three classes. LAN host and classifier together choose the tunnel of a packet: the LAN its WAN, the
DSCP its class, so that every kind of traffic can be sent through every tunnel (`via`). Ports classify as well, as in
the sample files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mpq_supervisor import pki
from mpq_supervisor.config import load
from mpq_supervisor.plan import TunnelPlan, make_plan
from mpq_worker.contract import TrafficClass
from tools.probe import ProbeFlow
from tools.sockets import Via
from tools.topology import HUB, HUB6, LANS, SERVER, WANS, Flow, lan_address

HUB_NAME = "hub.lab"
SITE_NAME = "ship1"
_PROBE_PORT = 7400
DSCP = {TrafficClass.CRITICAL: 46, TrafficClass.DEFAULT: 18, TrafficClass.BULK: 0}

_COMMON = """
role = "{role}"
identity = {{ certificate = "{pki}/{name}.crt", key = "{pki}/{name}.key", ca = "{pki}/ca.crt" }}
supervisor = {{ state_directory = "{directory}/{stem}", uid_base = {uids}, control_group = "root", cpus = {cpus} }}
"""
_SITE = """
[hub]
name = "{hub_name}"
address = ["{hub}", "{hub6}"]

[inner]
ipv4 = "10.200.10.0/24"
ipv6 = "fd6d:7071::/64"

[[rule]]
class = "critical"
protocol = "udp"
ports = [5060, "10000-20000"]

[[rule]]
class = "critical"
dscp = [46]

[[rule]]
class = "default"
protocol = "tcp"
ports = [80, 443, 8443]

[[rule]]
class = "default"
dscp = [18]
"""
_WAN = """
[[wan]]
name = "wan{wan}"
interface = "wan{wan}"
{rate}
[[lan]]
name = "lan{lan}"
interface = "lan{lan}"
wan = "wan{wan}"
"""
_LISTENER = """
[[listener]]
name = "mt{wan}"
port = {port}
ipv4 = "10.200.{subnet}.0/24"
ipv6 = "fd6d:7071:0:{i}::/64"
"""
_HUB = """
[[site]]
name = "{site}"
number = 0

[nat]
interface = "ens3"
"""
_PORTAL = """
[portal]
history_mb = 16
"""


@dataclass(frozen=True)
class Deployment:
    """Both files, the directory of the certificates (and of the CA's key), and the nine tunnels by name."""

    site: Path
    hub: Path
    pki: Path
    tunnels: dict[str, TunnelPlan]

    def flow(self, tunnel: str) -> Flow:
        """The tunnel's outer flow, for the router: of both its ports, since restarts go from one to the other."""
        return Flow(sports=self.tunnels[tunnel].source_ports)

    def via(self, tunnel: str) -> Via:
        """How the LAN host sends through the tunnel."""
        plan = self.tunnels[tunnel]
        assert plan.traffic_class is not None
        lan = LANS[WANS.index(int(plan.wan.removeprefix("wan")))]
        return Via(source=lan_address(lan), dscp=DSCP[plan.traffic_class])

    def probes(self) -> list[ProbeFlow]:
        """A flow of numbered probes through each tunnel, between the LAN host and the server."""
        return [
            ProbeFlow(name=name, target=SERVER, port=_PROBE_PORT + i, via=self.via(name))
            for i, name in enumerate(self.tunnels)
        ]


def deploy(
    directory: Path,
    *,
    rate_mbit: float | None = None,
    site_cpus: tuple[int, ...] = (),
    hub_cpus: tuple[int, ...] = (),
    portals: bool = False,
) -> Deployment:
    """Write certificates and both files below `directory`, as a rule the lab's.

    `rate_mbit` is what the site may send by each WAN (HTB); `site_cpus` and `hub_cpus` are those that each host's
    workers run on; with `portals` each has one, which lets nobody in.
    """
    certificates = directory / "pki"
    issue(certificates)
    portal = _PORTAL if portals else ""
    site = write(directory, "site", SITE_NAME, 47000, _site_sections(rate_mbit) + portal, site_cpus)
    hub = write(directory, "hub", HUB_NAME, 47100, _hub_sections() + portal, hub_cpus)
    return Deployment(site, hub, certificates, {tunnel.name: tunnel for tunnel in make_plan(load(site)).tunnels})


def issue(directory: Path, sites: Sequence[str] = (SITE_NAME,)) -> None:
    """Certificates of an authority, the hub and the sites, into a directory."""
    authority = pki.issue_authority()
    pki.save(authority, directory, "ca")
    pki.save(pki.issue_hub(authority, HUB_NAME), directory, HUB_NAME)
    for site in sites:
        pki.save(pki.issue_site(authority, site), directory, site)


def write(
    directory: Path, stem: str, name: str, uids: int, sections: str, cpus: tuple[int, ...] = (), role: str = ""
) -> Path:
    """`directory/STEM.toml` for the host of that certificate; its role is its stem unless said otherwise."""
    common = _COMMON.format(
        stem=stem,
        role=role or stem,
        name=name,
        pki=directory / "pki",
        directory=directory,
        uids=uids,
        cpus=list(cpus),
    )
    path = directory / f"{stem}.toml"
    path.write_text(common + sections)
    return path


def _site_sections(rate_mbit: float | None) -> str:
    rate = f"rate_mbit = {rate_mbit}\n" if rate_mbit else ""
    wans = [_WAN.format(wan=wan, lan=lan, rate=rate) for lan, wan in zip(LANS, WANS, strict=True)]
    return _SITE.format(hub_name=HUB_NAME, hub=HUB, hub6=HUB6) + "".join(wans)


def _hub_sections() -> str:
    listeners = [_LISTENER.format(wan=wan, port=45010 + i, subnet=10 + i, i=i) for i, wan in enumerate(WANS)]
    return "".join(listeners) + _HUB.format(site=SITE_NAME)
