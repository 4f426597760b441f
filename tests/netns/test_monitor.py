"""What others change in the host's network while mpq runs is seen and put back: `monitor`, `host`, `repairs`."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import Callable

import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.events import Kind, Marks
from mpq_supervisor.host import Host
from mpq_supervisor.plan import HostPlan, make_plan
from tests.netns.namespace import run
from tests.netns.site import RATED, Net, broken, hosted, tunnel

pytestmark = pytest.mark.root


def watched(site: Host, *steps: tuple[Callable[[], object], Callable[[list[str]], bool]]) -> list[str]:
    """Does each step in a running loop and waits until it has the effect; returns the WANs called back."""
    seen: list[str] = []

    async def scenario() -> None:
        site.watch(seen.append)
        for act, effect in steps:
            await asyncio.sleep(0.12)  # the echo of our own last change must not do the work
            act()
            async with asyncio.timeout(3):
                while not effect(seen):  # noqa: ASYNC110 - it shows in the kernel, which wakes nobody here
                    await asyncio.sleep(0.01)

    asyncio.run(scenario())
    return seen


def test_what_others_delete_is_put_back(site: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen = watched(
        site,
        (lambda: run("ip route flush table 110"), lambda _: "unreachable" in run("ip route show table 110")),
        (lambda: run("nft flush ruleset"), lambda _: "chain classify" in run("nft list ruleset")),
        (
            lambda: run("ip address del 10.200.10.1/32 dev cr1"),
            lambda _: "10.200.10.1/32" in run("ip address show dev cr1"),
        ),
        (lambda: run("ip rule del fwmark 0x10000/0x1f0000"), lambda _: "fwmark 0x10000/" in run("ip rule")),
        (lambda: run("ip link del br1"), lambda _: "default dev br1" in run("ip route show table 111")),
    )
    assert seen == []
    told = [record.getMessage() for record in caplog.records if _kind(record) == Kind.REPAIR]
    routes, table, address, rule, tun, _ = told
    assert "route unreachable default table 110" in routes.replace("0.0.0.0/0", "default")
    assert table == "network: put back what was gone: nftables table inet mpq"
    assert address.startswith("network: put back what was gone: address 10.200.10.1/32 dev cr1, route ")
    assert rule.startswith("network: put back what was gone: IPv4 rule 10030: fwmark 0x10000/0x1f0000")
    assert tun == "br1: somebody deleted the TUN br1"


def _kind(record: logging.LogRecord) -> Kind | None:
    found: Marks | None = getattr(record, "marks", None)
    return None if found is None else found.kind


def test_what_comes_and_goes_with_a_wan_is_no_repair(site: Host, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    readded = ["ip address add 100.64.5.2/24 dev wan5", "ip route add default via 100.64.5.1 dev wan5 metric 105"]
    watched(
        site,
        (lambda: run("ip address flush dev wan5"), lambda seen: len(seen) == 1),
        (lambda: run(*readded), lambda _: "default" in run("ip route show table 101")),
        (lambda: run("ip link set wan4 down"), lambda seen: "wan4" in seen),
    )
    assert [record.getMessage() for record in caplog.records if _kind(record) == Kind.REPAIR] == []


def test_a_look_that_fails_in_one_part_sees_and_mends_the_others(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with net.site.entered(), hosted(make_plan(parse(RATED))) as site:
        monkeypatch.setattr("mpq_supervisor.shaping.apply", broken)
        monkeypatch.setattr("mpq_supervisor.ruleset.render", broken)
        damage = "tc qdisc del dev wan4 root", "nft flush ruleset", "ip rule del priority 10040 iif lan1"
        seen = watched(
            site,
            (lambda: run(*damage), lambda _: "iif lan1" in run("ip rule")),
            (lambda: run("ip link set wan5 down"), lambda seen: "wan5" in seen),
        )
    assert set(seen) == {"wan5"}
    assert {record.getMessage() for record in caplog.records if record.levelno == logging.ERROR} == {
        "network: a fault of mpq's own"
    }


def test_switches_of_a_tun_that_somebody_sets_are_set_again(site: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the kernel tells nobody: they are looked at now and then."""
    monkeypatch.setattr("mpq_supervisor.monitor._PATROL", 0.2)
    switches = "net.ipv4.conf.cr1.src_valid_mark", "net.ipv6.conf.cr1.addr_gen_mode"
    watched(
        site, (lambda: run(f"sysctl -qw {switches[0]}=0 {switches[1]}=0"), lambda _: _values(*switches) == ["1", "1"])
    )


def _values(*switches: str) -> list[str]:
    return run(f"sysctl -n {' '.join(switches)}").split()


def test_htb_that_others_delete_is_put_back(net: Net) -> None:
    with net.site.entered(), hosted(make_plan(parse(RATED))) as site:
        shown = _without_handles(run("tc class show dev wan4"))
        assert "htb" in shown
        watched(
            site,
            (
                lambda: run("tc qdisc del dev wan4 root"),
                lambda _: _without_handles(run("tc class show dev wan4")) == shown,
            ),
        )


def _without_handles(text: str) -> str:
    """Without the numbers that the kernel gives to qdiscs."""
    return re.sub(r"leaf \S+", "", text)


def test_a_wan_that_changes_is_told_once_with_its_table_already_right(
    site: Host, plan: HostPlan, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def renumber() -> None:
        run(
            "ip address flush dev wan5",
            "ip address add 100.64.55.2/24 dev wan5",
            "ip route add default via 100.64.55.1 dev wan5 metric 5",
        )

    assert watched(site, (renumber, lambda seen: bool(seen))) == ["wan5"]
    (line,) = caplog.records
    assert (line.getMessage(), line.__dict__["marks"]) == (
        "wan5: wan5 has 100.64.55.2 via 100.64.55.1", Marks(Kind.LINK, wan="wan5", reason="ready"),
    )  # fmt: skip
    assert "default via 100.64.55.1 dev wan5" in run("ip route show table 101")
    assert "100.64.5.2" not in run("ip rule")
    fd = site.rebind(tunnel(plan, "br2"), 1)
    assert fd is not None
    with socket.socket(fileno=os.dup(fd)) as sock:
        assert sock.getsockname() == ("100.64.55.2", tunnel(plan, "br2").source_ports[1])


def test_what_happened_between_up_and_watch_is_told(site: Host) -> None:
    run("ip link set wan5 down")
    assert watched(site, (lambda: None, lambda seen: bool(seen))) == ["wan5"]


def test_a_wan_that_comes_late(net: Net, site: Host, plan: HostPlan) -> None:
    def come() -> None:
        run(
            f"ip link add wan5 type veth peer name r5 netns {net.internet.path}",
            "ip address add 100.64.5.2/24 dev wan5",
            "ip link set wan5 up",
            "ip route add default via 100.64.5.1 dev wan5",
        )
        with net.internet.entered():
            run("ip link set r5 up")

    def gone() -> bool:
        return not site.links["wan5"].present

    def there() -> bool:
        return site.links["wan5"].reach(("198.51.100.2",)) is not None

    seen = watched(
        site,
        (lambda: run("ip link del wan5"), lambda _: gone()),
        (come, lambda _: there()),
    )
    assert set(seen) == {"wan5"}
    assert site.tunnel_fds(tunnel(plan, "cr2"), 0) is not None
