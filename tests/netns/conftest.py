"""Fixtures of the tests in namespaces. A test that takes `site` or `hub_namespace` runs inside of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.host import Host
from mpq_supervisor.plan import HostPlan, make_plan
from tests.netns.namespace import Namespace
from tests.netns.site import LOG, SITE, Capture, Net


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
    with net.site.entered():
        host = Host(plan, LOG)
        host.up()
        yield host
        with suppress(OSError):  # a test may have taken it down itself
            host.down("open")


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
