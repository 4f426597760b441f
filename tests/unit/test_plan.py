"""The plan of the samples, to the letter, and the arithmetic behind it."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq_supervisor.check import summary
from mpq_supervisor.classifier import RulePlan
from mpq_supervisor.config import parse
from mpq_supervisor.plan import HostPlan, UnknownName, make_plan, select
from mpq_supervisor.schema import PortRange
from mpq_supervisor.status import configured_sites
from mpq_worker.contract import SiteEntry, TrafficClass, door_of
from tests.unit.test_config import HUB, PLAIN, SITE, changed

CRITICAL, DEFAULT, BULK = TrafficClass.CRITICAL, TrafficClass.DEFAULT, TrafficClass.BULK


def plan_of(text: str, *changes: tuple[str, str]) -> HostPlan:
    return make_plan(parse(changed(text, *changes)))


def test_nine_tunnels_to_the_letter() -> None:
    plan = plan_of(SITE)
    assert (plan.role, plan.name, plan.hub_name) == ("site", "ship1", "hub.example.net")
    assert [(t.name, t.wan, t.traffic_class, t.hub_port, t.source_ports, t.inner) for t in plan.tunnels] == [
        ("cr1", "wan4", CRITICAL, 45010, (46000, 46003), ("10.200.10.1", "fd6d:7071::1")),
        ("br1", "wan4", BULK, 45010, (46001, 46004), ("10.200.10.5", "fd6d:7071::5")),
        ("df1", "wan4", DEFAULT, 45010, (46002, 46005), ("10.200.10.9", "fd6d:7071::9")),
        ("cr2", "wan5", CRITICAL, 45011, (46010, 46013), ("10.200.11.1", "fd6d:7071:0:1::1")),
        ("br2", "wan5", BULK, 45011, (46011, 46014), ("10.200.11.5", "fd6d:7071:0:1::5")),
        ("df2", "wan5", DEFAULT, 45011, (46012, 46015), ("10.200.11.9", "fd6d:7071:0:1::9")),
        ("cr3", "wan6", CRITICAL, 45012, (46020, 46023), ("10.200.12.1", "fd6d:7071:0:2::1")),
        ("br3", "wan6", BULK, 45012, (46021, 46024), ("10.200.12.5", "fd6d:7071:0:2::5")),
        ("df3", "wan6", DEFAULT, 45012, (46022, 46025), ("10.200.12.9", "fd6d:7071:0:2::9")),
    ]
    assert [t.peers for t in plan.tunnels[::3]] == [
        ("10.200.10.254", "fd6d:7071::fe"),
        ("10.200.11.254", "fd6d:7071:0:1::fe"),
        ("10.200.12.254", "fd6d:7071:0:2::fe"),
    ]
    assert [t.index for t in plan.tunnels] == list(range(9))
    assert [t.table for t in plan.tunnels] == list(range(110, 119))
    assert [t.mark for t in plan.tunnels] == [n << 16 for n in range(1, 10)]
    assert [t.uid for t in plan.tunnels] == list(range(47000, 47009))
    assert [(t.door, t.dscp, t.priority, t.txqueuelen) for t in plan.tunnels[3:6]] == [
        (7, 46, 6, 100),
        (9, 8, 2, 500),
        (8, 0, 0, 500),
    ]
    assert {t.mtu for t in plan.tunnels} == {1400}
    assert {t.hub_addresses for t in plan.tunnels} == {("198.51.100.2",)}
    assert [(w.name, w.interface, w.table, w.rate_mbit) for w in plan.wans] == [
        ("wan4", "wan4", 100, None),
        ("wan5", "wan5", 101, None),
        ("wan6", "wan6", 102, None),
    ]
    assert plan.lans[1].tunnels == {CRITICAL: "cr2", DEFAULT: "df2", BULK: "br2"}


def test_sample_rules_are_the_default_ones() -> None:
    without = SITE[: SITE.index("[[rule]]")] + SITE[SITE.index("[supervisor]") :]
    assert plan_of(without).rules == plan_of(SITE).rules
    assert plan_of(SITE).rules[0] == RulePlan(
        "voice", CRITICAL, protocol="udp", ports=(PortRange(5060, 5060), PortRange(10000, 20000))
    )


def test_plain_tunnels() -> None:
    plan = plan_of(PLAIN)
    assert [
        (t.name, t.traffic_class, t.interface, t.inner, t.hub_port, t.source_ports, t.door) for t in plan.tunnels
    ] == [
        ("mpq4", None, "eth1", ("10.200.10.85",), 45010, (46009, 46006), 7),
        ("mpq5", None, "eth2", ("10.200.11.85",), 45011, (46019, 46016), 7),
    ]
    assert plan.tunnels[0].hub_addresses == ("198.51.100.2", "2001:db8:100::2")
    assert plan.lans[0].tunnels == dict.fromkeys(TrafficClass, "mpq4")


def test_a_class_falls_to_a_lower_one_and_never_rises() -> None:
    lan = ("[supervisor]", '[matrix]\nwan4 = ["default"]\nwan5 = ["critical"]\nwan6 = ["bulk"]\n[supervisor]')
    plan = plan_of(SITE, lan)
    assert [t.name for t in plan.tunnels] == ["df1", "cr2", "br3"]
    assert [dict(entry.tunnels) for entry in plan.lans] == [
        {CRITICAL: "df1", DEFAULT: "df1"},
        {CRITICAL: "cr2"},
        {CRITICAL: "br3", DEFAULT: "br3", BULK: "br3"},
    ]


def test_taking_out_a_wan_moves_no_other() -> None:
    before = {t.name: t for t in plan_of(SITE).tunnels}
    start, end = SITE.index("[[wan]]"), SITE.index("[[wan]]                             # cr2")
    without = SITE[:start] + SITE[end:].replace('[[lan]]\nname = "lan2"', "#", 1)
    lan1 = without.index("[[lan]]")
    without = without[:lan1] + without[without.index('[[lan]]\nname = "lan3"') :]
    plan = plan_of(
        without,
        ('interface = "wan5"', 'interface = "wan5"\nsuffix = 2'),
        ('name = "wan6"\ninterface = "wan6"', 'name = "wan6"\ninterface = "wan6"\nsuffix = 3'),
    )
    assert {t.name: t for t in plan.tunnels} == {name: t for name, t in before.items() if t.wan != "wan4"}


def test_class_section_changes_and_chooses() -> None:
    text = SITE[: SITE.index("[[rule]]")]
    plan = plan_of(text + '[[class]]\nname = "critical"\ndscp = 34\n[[class]]\nname = "bulk"\n')
    assert [(t.name, t.dscp) for t in plan.tunnels[:3]] == [("cr1", 34), ("br1", 8), ("cr2", 34)]
    assert {rule.traffic_class for rule in plan.rules} == {CRITICAL, BULK}


def test_hub_to_the_letter() -> None:
    plan = plan_of(HUB)
    assert (plan.role, plan.name, plan.nat_interface) == ("hub", "hub.example.net", "ens3")
    assert [(w.name, w.tun, w.port, w.slot, w.uid) for w in plan.hub_workers] == [
        ("mt4.critical", "mt4c", 45010, 1, 47000),
        ("mt4.default", "mt4d", 45010, 3, 47001),
        ("mt4.bulk", "mt4b", 45010, 5, 47002),
        ("mt5.critical", "mt5c", 45011, 1, 47003),
        ("mt5.default", "mt5d", 45011, 3, 47004),
        ("mt5.bulk", "mt5b", 45011, 5, 47005),
        ("mt6.critical", "mt6c", 45012, 1, 47006),
        ("mt6.default", "mt6d", 45012, 3, 47007),
        ("mt6.bulk", "mt6b", 45012, 5, 47008),
    ]
    default = plan.hub_workers[1]
    assert default.addresses == ("::",)
    assert default.inner == ("10.200.10.254", "fd6d:7071::fe")
    assert default.subnets == ("10.200.10.0/24", "fd6d:7071::/64")
    assert default.sites == (
        SiteEntry("ship1", "mpq://site/ship1", ("10.200.10.9", "fd6d:7071::9")),
        SiteEntry("ship2", "mpq://site/ship2", ("10.200.10.21", "fd6d:7071::15"), ("172.16.2.0/24",)),
    )
    assert default.routes == (
        "10.200.10.9/32",
        "fd6d:7071::9/128",
        "10.200.10.21/32",
        "fd6d:7071::15/128",
        "172.16.2.0/24",
    )
    assert plan.hub_workers[0].routes[-2:] == ("10.200.10.13/32", "fd6d:7071::d/128")


def test_shared_listener_takes_every_address_of_a_site() -> None:
    plan = plan_of(HUB, ("port = 45010", 'port = 45010\nworkers = "shared"'))
    shared = plan.hub_workers[0]
    assert (shared.name, shared.tun, shared.traffic_class, shared.slot) == ("mt4", "mt4", None, 1)
    assert shared.sites[0].inner == (
        *("10.200.10.1", "10.200.10.5", "10.200.10.9"),
        *("fd6d:7071::1", "fd6d:7071::5", "fd6d:7071::9"),
    )
    assert shared.sites[1].prefixes == ("172.16.2.0/24",)


def test_shared_listeners_serve_a_site_with_classes() -> None:
    hub = plan_of(HUB.replace("[[listener]]", '[[listener]]\nworkers = "shared"'))
    workers = {worker.port: worker for worker in hub.hub_workers}
    for tunnel in plan_of(SITE).tunnels:
        worker = workers[tunnel.hub_port]
        assert set(tunnel.inner) <= set(worker.sites[0].inner)
        assert tunnel.peers == worker.inner
        assert {f"{tunnel.inner4}/32", f"{tunnel.inner6}/128"} <= set(worker.routes)


def test_revoked_site_is_known_and_has_nothing() -> None:
    plan = plan_of(HUB, ('name = "ship1"', 'name = "ship1"\nrevoked = true'), ("number = 0 ", "number = 99 "))
    for worker in plan.hub_workers:
        ship1, ship2 = worker.sites
        assert ship1 == SiteEntry("ship1", "mpq://site/ship1", ())
        assert ship2.inner
    assert configured_sites(plan) == ("ship2",)
    assert summary(plan)[1].split()[-2] == "1", "who cannot come in is not counted"
    assert not any("10.200.10.1/32" in worker.routes for worker in plan.hub_workers)


def test_addresses_replace_the_arithmetic_of_one_worker() -> None:
    plan = plan_of(HUB, ("number = 0 ", 'number = 0\naddresses = { "mt4.bulk" = ["10.200.10.200"] } '))
    assert [worker.sites[0].inner[0] for worker in plan.hub_workers[:3]] == [
        "10.200.10.1",
        "10.200.10.9",
        "10.200.10.200",
    ]


@settings(deadline=None)
@given(size=st.integers(16, 24), data=st.data())
def test_both_ends_agree(size: int, data: st.DataObject) -> None:
    """A site's tunnel has the inner addresses that its hub's worker of the same port and class expects."""
    number = data.draw(st.integers(0, 20 << (24 - size)))
    first, second, third = list(islice(ip_network("10.0.0.0/8").subnets(new_prefix=size), 3))
    own_number = ("number = 0 ", f"number = {number} ")
    site = plan_of(SITE, ("10.200.10.0/24", str(first)), own_number)
    alone = HUB[: HUB.index('[[site]]\nname = "ship2"')]
    subnets = zip(("10.200.10.0/24", "10.200.11.0/24", "10.200.12.0/24"), (first, second, third), strict=True)
    hub = plan_of(alone, *((old, str(new)) for old, new in subnets), own_number)
    workers = {(worker.port, door_of(worker.traffic_class)): worker for worker in hub.hub_workers}
    for tunnel in site.tunnels:
        worker = workers.pop((tunnel.hub_port, tunnel.door))
        assert (tunnel.inner, tunnel.peers) == (worker.sites[0].inner, worker.inner)
    assert not workers


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("br2", ("br2",)),
        ("bulk", ("br1", "br2", "br3")),
        ("wan5", ("cr2", "br2", "df2")),
        ("all", ("cr1", "br1", "df1", "cr2", "br2", "df2", "cr3", "br3", "df3")),
    ],
)
def test_select_on_a_site(word: str, names: tuple[str, ...]) -> None:
    assert select(plan_of(SITE), word) == names


def test_select_on_a_hub() -> None:
    plan = plan_of(HUB)
    assert select(plan, "mt4") == ("mt4.critical", "mt4.default", "mt4.bulk")
    assert select(plan, "mt5b") == select(plan, "mt5.bulk") == ("mt5.bulk",)
    assert select(plan, "critical") == ("mt4.critical", "mt5.critical", "mt6.critical")


def test_unknown_name_tells_the_nearest() -> None:
    plan = plan_of(SITE)
    with pytest.raises(UnknownName, match=r'no "buk" here \(did you mean "bulk"\?\)'):
        select(plan, "buk")
    with pytest.raises(UnknownName, match="did you mean"):
        plan.worker("cr9")
    assert plan.worker("df3").name == "df3"


def test_what_workers_are_told() -> None:
    plan = plan_of(
        SITE,
        ("[supervisor]", "[watchdog]\npeer_timeout = 2\n[supervisor]\nkey_update_packets = 5000\nnative = false"),
    )
    assert plan.timing.peer_timeout == 2
    assert plan.transport(plan.tunnels[0]).key_update_packets == 5000
    assert plan.transport(plan.tunnels[0]).native is False
    assert plan.transport(plan.tunnels[0]).inner_mtu == 1400
