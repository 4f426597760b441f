"""A hub, sites and their certificates for the simulated network."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from mpq_supervisor import pki
from mpq_worker.contract import (
    ConfigureHub,
    ConfigureSite,
    Credentials,
    Limits,
    LostPeer,
    SiteEntry,
    Timing,
    TrafficClass,
    Transport,
    door_of,
    slot_of,
)
from mpq_worker.hub import HubTunnel
from mpq_worker.tunnel import SiteTunnel
from mpq_worker.wire import Claims, Hello, encode_claims, encode_control
from tests.sim.network import Network, Node

HUB_ADDRESS = ("198.51.100.2", 45011)
HUB_INNER = "10.200.11.254"
SITE_INNER = "10.200.11.5"


class World:
    """One hub worker and as many sites as a test adds, over one simulated network."""

    def __init__(self, seed: int = 1) -> None:
        self.net = Network(seed)
        self.authority = pki.issue_authority()
        self.hub_credential = pki.issue_hub(self.authority, "hub.test")
        self.entries: tuple[SiteEntry, ...] = ()
        self.transport = Transport()
        self.timing = Timing()
        self.wall = time.time()
        self.reset_key = b"k" * 32
        self.limits = Limits()

    def entry(self, name: str, *inner: str, prefixes: tuple[str, ...] = ()) -> None:
        self.entries += (SiteEntry(name, f"mpq://site/{name}", inner, prefixes),)

    def add_hub(
        self,
        address: tuple[str, int] = HUB_ADDRESS,
        *,
        generation: int = 0,
        standby: bool = False,
        lost: tuple[LostPeer, ...] = (),
    ) -> Node:
        config = ConfigureHub(
            name="mt5.bulk",
            lost=lost,
            slot=slot_of(TrafficClass.BULK, generation),
            standby=standby,
            inner=(HUB_INNER,),
            credentials=self._credentials(self.hub_credential),
            reset_key=self.reset_key,
            retry_key=b"r" * 32,
            limits=self.limits,
            sites=self.entries,
            transport=self.transport,
            timing=self.timing,
        )
        core = HubTunnel(config, self.net.now, lambda: self.wall)
        return self.net.add(Node(core, address, self.hub_credential.key))

    def add_site(
        self,
        name: str = "ship1",
        inner: tuple[str, ...] = (SITE_INNER,),
        *,
        port: int = 46011,
        credential: pki.Credential | None = None,
        hub_name: str = "hub.test",
        ca: pki.Credential | None = None,
        standby: bool = False,
    ) -> Node:
        credential = credential or pki.issue_site(self.authority, name)
        config = ConfigureSite(
            name="br2",
            site=name,
            traffic_class=TrafficClass.BULK,
            hub_name=hub_name,
            hub_address=HUB_ADDRESS,
            door=door_of(TrafficClass.BULK),
            inner=inner,
            standby=standby,
            credentials=self._credentials(credential, ca),
            transport=self.transport,
            timing=self.timing,
        )
        return self.net.add(Node(SiteTunnel(config, self.net.now), ("100.64.5.2", port), credential.key))

    def _credentials(self, credential: pki.Credential, ca: pki.Credential | None = None) -> Credentials:
        return Credentials(
            ca=(ca or self.authority).certificate_pem.decode(), certificate=credential.certificate_pem.decode()
        )


def unsigned(
    versions: tuple[int, ...] = (1,), inner: tuple[str, ...] = (SITE_INNER,), certificate: bytes = b""
) -> bytes:
    """A framed Hello that nobody has signed."""
    return encode_control(Hello(encode_claims(Claims(versions, 2, inner, certificate)), b""))


@pytest.fixture
def make_world() -> Callable[..., World]:
    return World


@pytest.fixture
def world() -> World:
    """A world whose hub knows ship1 (10.200.11.5) and ship2 (10.200.11.17)."""
    world = World()
    world.entry("ship1", SITE_INNER)
    world.entry("ship2", "10.200.11.17", prefixes=("172.16.2.0/24",))
    return world
