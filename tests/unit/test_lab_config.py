"""The lab's configuration is one that `check` accepts, and names the field's nine tunnels."""

from __future__ import annotations

from pathlib import Path

import pytest

from mpq_supervisor.check import main as check
from mpq_supervisor.config import load
from mpq_supervisor.plan import make_plan
from tools.lab_config import Deployment, deploy
from tools.sockets import Via
from tools.topology import Flow


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return deploy(tmp_path, rate_mbit=18, site_cpus=(0,), hub_cpus=(0,))


def test_both_files_pass_the_check(deployment: Deployment) -> None:
    assert (check(deployment.site), check(deployment.hub)) == (0, 0)


def test_portals_are_there_where_they_are_wanted(tmp_path: Path) -> None:
    deployment = deploy(tmp_path, portals=True)
    assert (check(deployment.site), check(deployment.hub)) == (0, 0)
    assert None not in (load(deployment.site).portal, load(deployment.hub).portal)


def test_nine_tunnels_meet_nine_workers(deployment: Deployment) -> None:
    assert " ".join(sorted(deployment.tunnels)) == "br1 br2 br3 cr1 cr2 cr3 df1 df2 df3"
    site, hub = make_plan(load(deployment.site)), make_plan(load(deployment.hub))
    assert len(hub.hub_workers) == 9
    assert {tunnel.hub_port for tunnel in site.tunnels} == {45010, 45011, 45012}
    assert not {worker.uid for worker in site.workers} & {worker.uid for worker in hub.workers}
    assert {wan.rate_mbit for wan in site.wans} == {18}


def test_lan_and_dscp_choose_the_tunnel(deployment: Deployment) -> None:
    assert deployment.via("cr2") == Via(source="172.16.2.9", dscp=46)
    assert deployment.via("df3") == Via(source="172.16.3.9", dscp=18)
    assert deployment.via("br1") == Via(source="172.16.1.9", dscp=0)
    assert deployment.flow("br2") == Flow(sports=(46011, 46014))
