"""A hub and many small sites, each with one WAN and a tunnel for `critical` and `bulk`, in namespaces of their own.

      site0  wan1 100.64.0.2/24 ── s0 ═ u0 ── r0 100.64.0.1  ┐
      site1  wan1 100.64.1.2/24 ── s1 ═ u1 ── r1 100.64.1.1  ├ router  core ── ens3  hub 198.51.100.2
      …                              link                    ┘          .1

═ is the relay of the lab, with the same delay for all.
"""

from __future__ import annotations

from pathlib import Path

from mpq_supervisor.config import load
from mpq_supervisor.plan import TunnelPlan, make_plan
from tools import lab_config, namespaces, topology
from tools.lab_config import HUB_NAME
from tools.probe import ProbeFlow
from tools.relay import Relay
from tools.sockets import Via
from tools.stage import Stage
from tools.topology import HUB

LISTENER = "mt1"
_PORT = 45010
_PROBE_PORT = 7600
_SITE = """
[hub]
name = "{hub_name}"
address = ["{hub}"]

[inner]
ipv4 = "10.200.10.0/24"
number = {number}

[[wan]]
name = "wan1"
interface = "wan1"

[matrix]
wan1 = ["critical", "bulk"]
"""
_HUB = """
[[listener]]
name = "{listener}"
port = {port}
ipv4 = "10.200.10.0/24"
"""
_HUB_SITE = """
[[site]]
name = "{name}"
number = {number}
"""


class ManySites(Stage):
    """`count` sites, 21 at most. Nothing of mpq runs before `run_all`."""

    def __init__(self, count: int, rtt_ms: float) -> None:
        super().__init__()
        self.sites = [f"site{i}" for i in range(count)]
        self._rtt_ms = rtt_ms
        self._relay: Relay | None = None
        self._configs: dict[str, Path] = {}
        self._tunnels: dict[str, dict[str, TunnelPlan]] = {}

    def close(self) -> None:
        """End what runs here and delete it. May be called again."""
        super().close()
        if self._relay:
            self._relay.close()
        self._relay = None

    def run_all(self) -> None:
        """Start the hub, then all sites; returns when every tunnel is UP. Raises `RuntimeError` if one is not."""
        self.start("hub", self._configs["hub"]).wait_ready()
        products = {site: self.start(site, self._configs[site]) for site in self.sites}
        for site, product in products.items():
            product.wait_ready(60)
            response = self.ctl(site, "start", "all", wait=60)
            if response.code:
                raise RuntimeError(f"{site}: {'; '.join(response.lines)}")

    def flow(self, site: str, tunnel: str) -> ProbeFlow:
        """Probes through one tunnel (`cr1`, `br1`) of one site, between its two inner addresses."""
        plan = self._tunnels[site][tunnel]
        assert plan.peer4 is not None
        port = _PROBE_PORT + 10 * self.sites.index(site) + plan.index
        return ProbeFlow(
            name=f"{site} {tunnel}",
            target=plan.peer4,
            port=port,
            via=Via(device=tunnel),
            namespace=self.name(site),
        )

    def _build(self) -> None:
        roles = ["hub", "router", "link", *self.sites]
        namespaces.batch(f"netns add {self.name(role)}" for role in roles)
        for role in roles:
            kind: topology.Role = "site" if role in self.sites else role  # type: ignore[assignment]  # the others are roles
            namespaces.write_sysctls(self.name(role), topology.sysctls(kind))
        self._ip("hub", "link set lo up", "link add ens3 type veth peer name core netns " + self.name("router"))
        self._ip("hub", "link set ens3 up", f"addr add {HUB}/24 dev ens3")
        self._ip("hub", "route add default via 198.51.100.1")
        self._ip("router", "link set lo up", "link set core up", "addr add 198.51.100.1/24 dev core")
        for i, site in enumerate(self.sites):
            self._ip(
                "link",
                f"link add s{i} type veth peer name wan1 netns {self.name(site)}",
                f"link add u{i} type veth peer name r{i} netns {self.name('router')}",
                f"link set s{i} up arp off",
                f"link set u{i} up arp off",
            )
            self._ip("router", f"link set r{i} up", f"addr add 100.64.{i}.1/24 dev r{i}")
            self._ip(site, "link set lo up", "link set wan1 up", *topology.wan_lease(1, f"100.64.{i}.2/24"))
        pairs = [(f"s{i}", f"u{i}") for i in range(len(self.sites))]
        self._relay = Relay(namespaces.enter(self.name("link")), pairs, seed=1)
        for port in (port for pair in pairs for port in pair):
            self._relay.delay(port, round(self._rtt_ms * 500))
        self._configure()

    def _configure(self) -> None:
        lab_config.issue(self.directory / "pki", self.sites)
        sections = _HUB.format(listener=LISTENER, port=_PORT)
        sections += "".join(_HUB_SITE.format(name=site, number=i) for i, site in enumerate(self.sites))
        self._configs["hub"] = lab_config.write(self.directory, "hub", HUB_NAME, 47900, sections)
        for i, site in enumerate(self.sites):
            sections = _SITE.format(hub_name=HUB_NAME, hub=HUB, number=i)
            path = lab_config.write(self.directory, site, site, 48000 + 10 * i, sections, role="site")
            self._configs[site] = path
            self._tunnels[site] = {tunnel.name: tunnel for tunnel in make_plan(load(path)).tunnels}

    def _ip(self, role: str, *lines: str) -> None:
        namespaces.batch(lines, ["ip", "-n", self.name(role)])
