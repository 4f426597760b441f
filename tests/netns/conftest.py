"""Fixtures of the tests in namespaces. A test that takes `site` or `hub_namespace` runs inside of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.host import Host
from mpq_supervisor.plan import HostPlan, make_plan
from tests.netns.namespace import Namespace
from tests.netns.product import System
from tests.netns.site import SITE, Capture, Net, hosted
from tools.lab import Lab
from tools.lab_config import deploy
from tools.topology import HUB6, WANS


@pytest.fixture
def plan() -> HostPlan:
    """Two WANs, two LANs, six tunnels."""
    return make_plan(parse(SITE))


@pytest.fixture
def net() -> Iterator[Net]:
    """The namespaces of the site, without mpq."""
    with closing(Net()) as net:
        yield net


@pytest.fixture
def site(net: Net, plan: HostPlan) -> Iterator[Host]:
    """mpq's network, up."""
    with net.site.entered(), hosted(plan) as host:
        yield host


@pytest.fixture
def capture(net: Net) -> Iterator[Capture]:
    """What leaves the site by its WANs."""
    with closing(Capture(net)) as capture:
        yield capture


@pytest.fixture
def hub_namespace() -> Iterator[Namespace]:
    """An empty namespace, entered."""
    with closing(Namespace()) as namespace, namespace.entered():
        yield namespace


@pytest.fixture(scope="module")
def running() -> Iterator[System]:
    """The product at both ends of a lab with 20 ms, nine tunnels UP, the last WAN's over IPv6; once per file."""
    with Lab(f"mpqe{os.getpid()}") as lab:
        for wan in WANS:
            lab.delay(wan, 20)
        deployment = deploy(lab.directory)
        name = f'interface = "wan{WANS[-1]}"\n'
        text = deployment.site.read_text()
        assert name in text
        deployment.site.write_text(text.replace(name, f'{name}hub_address = "{HUB6}"\n', 1))
        system = System(lab, deployment)
        system.start("hub", "site")
        system.restore()
        yield system


@pytest.fixture
def system(running: System) -> Iterator[System]:
    """`running`, put in order again after the test; what both ends logged is shown when the test fails."""
    with running.logged("site") as site, running.logged("hub") as hub:
        yield running
    print("\n".join(["site:", *site, "hub:", *hub]))
    running.restore()
