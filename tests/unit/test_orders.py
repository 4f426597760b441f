"""From plan to messages; what a reload may change in a running worker."""

from __future__ import annotations

from pathlib import Path

import msgspec

from mpq_supervisor.config import parse
from mpq_supervisor.network import LinkState, Route
from mpq_supervisor.orders import (
    MAX_SITES,
    check_sites,
    configure_hub,
    configure_site,
    fingerprint,
    fork_order,
    obstacle,
    with_lost,
)
from mpq_supervisor.pki import MAX_CERTIFICATES
from mpq_supervisor.plan import HostPlan, make_plan
from mpq_supervisor.schema import FloodLimits
from mpq_worker.contract import MAX_MESSAGE, Credentials, Limits, LostPeer, SiteEntry, TrafficClass

ETC = Path(__file__).parents[2] / "etc"
SITE = make_plan(parse((ETC / "site.toml").read_text()))
HUB = make_plan(parse((ETC / "hub.toml").read_text()))
PLAIN = make_plan(parse((ETC / "site-plain.toml").read_text()))
CREDENTIALS = Credentials("ca", "certificate")


def test_every_worker_has_a_user_and_group_of_its_own() -> None:
    orders = [fork_order(entry, SITE, True) for entry in SITE.workers]
    assert len({order.uid for order in orders}) == len(orders)
    assert all(order.gid == order.uid > 0 for order in orders)


def test_weight_by_class() -> None:
    assert [fork_order(entry, SITE, True).nice for entry in SITE.tunnels[:3]] == [-5, 10, 0]
    assert [fork_order(entry, SITE, False).nice for entry in SITE.tunnels[:3]] == [0, 10, 0]


def test_configure_site() -> None:
    br2 = SITE.tunnels[4]
    message = configure_site(br2, SITE, CREDENTIALS, ("198.51.100.2", 45011))
    assert (message.name, message.traffic_class, message.door) == ("br2", TrafficClass.BULK, 9)
    assert "10.200.11.5" in message.inner
    assert message.orphan_exit is False
    assert message.transport.inner_mtu == br2.mtu


def test_plain_tunnel_is_default_at_the_first_slot() -> None:
    message = configure_site(PLAIN.tunnels[0], PLAIN, CREDENTIALS, ("198.51.100.2", 45010))
    assert (message.traffic_class, message.door) == (TrafficClass.DEFAULT, 7)


def test_configure_hub_has_its_sites() -> None:
    worker = HUB.hub_workers[0]
    message = configure_hub(worker, HUB, CREDENTIALS, b"k" * 32, b"r" * 32)
    assert message.sites == worker.sites != ()
    assert message.slot == worker.slot
    assert message.limits == Limits()


def test_a_worker_is_told_of_a_thousand_sites_and_refused_more_than_fit() -> None:
    inner = ("10.200.10.5", "fd6d:7071::105")
    site = SiteEntry("a-name-of-20-letters", "mpq://site/a-name-of-20-letters", inner, ("10.9.8.0/24",))
    worker = msgspec.structs.replace(HUB.hub_workers[0], sites=(site,) * 1000)
    plan = msgspec.structs.replace(HUB, hub_workers=(worker,))
    assert check_sites(plan) == []
    full = msgspec.structs.replace(worker, sites=(site,) * 1100)
    (problem,) = check_sites(msgspec.structs.replace(plan, hub_workers=(worker, full)))
    assert problem.path == "site"
    assert problem.text.startswith("1100 sites take ")


def test_as_many_lost_peers_as_a_message_has_room_for() -> None:
    largest = "x" * MAX_CERTIFICATES
    sites = (SiteEntry("s" * (MAX_SITES - 60), "", ()),)
    worker = msgspec.structs.replace(HUB.hub_workers[0], sites=sites)
    message = configure_hub(worker, HUB, Credentials(largest, largest), b"k" * 32, b"r" * 32)
    lost = tuple(LostPeer(("2001:db8:1234:5678:9abc:def0:1234:5678", n), bytes(16), bytes(8)) for n in range(240))
    told = with_lost(message, lost)
    assert told.lost == lost[: len(told.lost)] != ()
    assert len(msgspec.msgpack.encode(told)) <= MAX_MESSAGE
    plain = msgspec.structs.replace(message, credentials=CREDENTIALS)
    assert with_lost(plain, lost).lost == lost
    bloated = (LostPeer(("192.0.2.1", 1), bytes(MAX_MESSAGE), b""),)
    assert with_lost(plain, bloated) == plain


def test_limits_follow_from_how_many_handshakes_there_may_be() -> None:
    few = msgspec.structs.replace(HUB, limits=FloodLimits(handshakes=64, connections=10))
    message = configure_hub(HUB.hub_workers[0], few, CREDENTIALS, b"k" * 32, b"r" * 32)
    assert message.limits == Limits(connections=10, handshakes=64, per_source=8, retry_from=4)
    assert not same(HUB, few)
    assert same(HUB, msgspec.structs.replace(HUB, limits=FloodLimits(first_packets=1, strangers=10)))


def same(old: HostPlan, new: HostPlan, **changes: object) -> bool:
    """Whether the first worker of both plans, in the second with `changes`, is the same process."""
    before, after = old.workers[0], msgspec.structs.replace(new.workers[0], **changes)
    return fingerprint(before, old, CREDENTIALS) == fingerprint(after, new, CREDENTIALS)


def test_only_sites_and_what_is_the_networks_may_change_under_a_running_worker() -> None:
    assert same(HUB, HUB, sites=(), routes=(), txqueuelen=1)
    assert not same(HUB, HUB, mtu=1300)
    assert not same(HUB, HUB, addresses=("192.0.2.9",))
    assert same(SITE, SITE, txqueuelen=1, table=1, mark=1)
    assert not same(SITE, SITE, source_ports=(1, 2))
    assert not same(SITE, SITE, hub_addresses=("192.0.2.9",))


def test_what_all_workers_are_told() -> None:
    assert same(SITE, msgspec.structs.replace(SITE, rules=()))
    slower = msgspec.structs.replace(SITE.watchdog, peer_timeout=9.0)
    assert not same(SITE, msgspec.structs.replace(SITE, watchdog=slower))
    orphans = msgspec.structs.replace(SITE.supervisor, on_orphan="exit")
    assert not same(SITE, msgspec.structs.replace(SITE, supervisor=orphans))


def test_obstacles_by_name() -> None:
    tunnel = SITE.tunnels[0]
    route = Route(254, "0.0.0.0/0", "wan4", "192.0.2.1")
    good = LinkState("wan4", "wan4", 3, True, "192.0.2.2", routes=(route,))
    assert obstacle(tunnel, good) == ""
    assert "no interface" in obstacle(tunnel, None)
    assert "no interface" in obstacle(tunnel, msgspec.structs.replace(good, index=0))
    assert "no carrier" in obstacle(tunnel, msgspec.structs.replace(good, carrier=False))
    assert "no address and route" in obstacle(tunnel, msgspec.structs.replace(good, routes=()))
