"""What Debian's kernel has beside TUN and nftables: netem, fq_codel, HTB."""

from __future__ import annotations

import pytest

from tests.vm import host, plan
from tests.vm.lab import Surroundings
from tools.wait import pause

_LOSSY = 5


def test_loss_on_one_wan_is_not_felt_on_the_others(around: Surroundings) -> None:
    around.loss(_LOSSY, 30)
    try:
        with host.probing(around) as streams:
            pause(10)
    finally:
        around.loss(_LOSSY, 0)
    lost = {stream.name: stream.lost / len(stream.sent) for stream in streams if stream.way == "down"}
    suffix = str(_LOSSY - 3)
    assert {name for name, share in lost.items() if share} == {name for name in lost if name.endswith(suffix)}
    assert min(share for share in lost.values() if share) > 0.15
    assert max(lost.values()) < 0.45


@pytest.fixture
def fq_codel() -> None:
    """As a distribution may set it on every interface (net.core.default_qdisc)."""
    host.call("tc", "qdisc", "replace", "dev", "wan4", "root", "fq_codel")


@pytest.mark.usefixtures("fq_codel")
def test_fq_codel_of_the_host_stays_and_carries_the_tunnels(around: Surroundings) -> None:
    host.call("mpq-supervisor", "ctl", "reload")
    with host.probing(around):
        pause(2)
    text = host.call("tc", "-s", "qdisc", "show", "dev", "wan4")
    assert text.startswith("qdisc fq_codel")
    assert int(text.split("Sent ")[1].split(" bytes ")[1].split()[0]) > 100


def test_htb_where_a_rate_is_configured() -> None:
    rated, other = (host.call("tc", "class", "show", "dev", f"wan{k}") for k in (plan.RATED_WAN, 5))
    assert rated.count(" leaf ") >= 3
    assert "class htb" not in other
