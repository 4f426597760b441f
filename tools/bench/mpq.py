"""mpq as a contender: the product as it is, both supervisors, with as many tunnels as asked for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from mpq_supervisor.config import load
from mpq_supervisor.plan import make_plan
from mpq_worker.contract import TrafficClass
from tools.bench.bed import INNER_MTU, Contender
from tools.lab_config import HUB_NAME, SITE_NAME, issue
from tools.product import Side
from tools.topology import HUB

_COMMON = """
role = "{role}"
identity = {{ certificate = "{pki}/{name}.crt", key = "{pki}/{name}.key", ca = "{pki}/ca.crt" }}
class = [{classes}]
[supervisor]
state_directory = "{directory}/{role}"
uid_base = {uids}
control_group = "root"
native = {native}
"""
_SITE = f"""
[hub]
name = "{HUB_NAME}"
address = "{HUB}"
[inner]
ipv4 = "10.200.0.0/16"
ipv6 = "fd6d:7071::/64"
"""
_WAN = f"""
[[wan]]
name = "wan{{wan}}"
interface = "wan{{wan}}"
mtu = {INNER_MTU}
"""
_LISTENER = f"""
[[listener]]
name = "mt{{wan}}"
port = {{port}}
ipv4 = "10.{{subnet}}.0.0/16"
ipv6 = "fd6d:7071:0:{{i}}::/64"
mtu = {INNER_MTU}
"""
_HUB_SITE = """
[[site]]
name = "{name}"
number = {number}
"""
_CROWD = """
[limits]
connections = 4096
first_packets = 1000
strangers = 100000
"""
"""For many sites behind one address."""
GUEST = "g"


class Tunnel(NamedTuple):
    """One of mpq's tunnels: the site's interface, its and the hub's inner addresses, the workers at both ends."""

    device: str
    near: str
    far: str
    near6: str
    far6: str
    workers: dict[Side, str]


class Mpq(Contender):
    """`wans` times `classes` tunnels; measured as a contender, it is the first of them. Beside its one site the hub
    knows `guests`: g1, g2, … with these numbers. `up_after` is how many seconds the site took to have all UP."""

    label = "tunnel"
    native = True

    def __init__(
        self,
        prefix: str,
        wans: int = 1,
        classes: tuple[TrafficClass, ...] = (TrafficClass.DEFAULT,),
        guests: int = 0,
    ) -> None:
        super().__init__(prefix, wans)
        self.pki = self.directory / "pki"
        self.tunnels: list[Tunnel] = []
        self.up_after = 0.0
        self._classes = classes
        self._guests = guests
        self._pids: dict[Side, dict[str, int]] = {"site": {}, "hub": {}}

    def raise_tunnel(self) -> None:
        issue(self.pki)
        site = self._write("site", SITE_NAME, 47000, _SITE + "".join(_WAN.format(wan=k) for k in self.wans))
        listeners = [_LISTENER.format(wan=k, port=45009 + k, subnet=199 + k, i=k - 1) for k in self.wans]
        names = [SITE_NAME, *(f"{GUEST}{number}" for number in range(1, self._guests + 1))]
        sites = [_HUB_SITE.format(name=name, number=number) for number, name in enumerate(names)]
        crowd = [_CROWD] if self._guests else []
        self.start("hub", self._write("hub", HUB_NAME, 47100, "".join([*listeners, *crowd, *sites])))
        begin = time.monotonic()
        self.start("site", site)
        self.wait_up()
        self.up_after = time.monotonic() - begin
        for plan in make_plan(load(site)).tunnels:
            assert plan.traffic_class is not None
            workers: dict[Side, str] = {
                "site": plan.name,
                "hub": f"mt{plan.wan.removeprefix('wan')}.{plan.traffic_class.name.lower()}",
            }
            (near, near6), (far, far6) = plan.inner, plan.peers
            self.tunnels.append(Tunnel(plan.tun, near, far, near6, far6, workers))
        first = self.tunnels[0]
        self.device, self.near, self.far = first.device, first.near, first.far
        for side, pids in self._pids.items():
            status = self.ctl(side, "status").status
            assert status is not None
            pids |= {worker.name: worker.pid for worker in status.workers if worker.pid is not None}

    def pids(self, side: Side) -> list[int]:
        return [self._pids[side][tunnel.workers[side]] for tunnel in self.tunnels]

    def _write(self, role: Side, name: str, uids: int, sections: str) -> Path:
        classes = ", ".join(f'{{ name = "{c.name.lower()}" }}' for c in self._classes)
        common = _COMMON.format(
            role=role,
            name=name,
            pki=self.pki,
            directory=self.directory,
            uids=uids,
            classes=classes,
            native=str(self.native).lower(),
        )
        path = self.directory / f"{role}.toml"
        path.write_text(common + sections)
        return path


class AioquicOnly(Mpq):
    """mpq without its native packet loop."""

    label = "aioquic"
    native = False
