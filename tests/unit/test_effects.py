"""Every field has its effect, and it is the one that a reload has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import NoneType
from typing import Any, get_args, get_origin

import msgspec
import pytest

from mpq_supervisor.config import parse
from mpq_supervisor.effects import EFFECTS, Change, Effect, Preview, describe, differences
from mpq_supervisor.orders import worker_changes
from mpq_supervisor.plan import make_plan
from mpq_supervisor.schema import HubConfig, SiteConfig
from tests.unit.test_network import HUB, SITE


def places(kind: Any, place: str) -> Iterator[str]:
    """`SECTION.KEY` of all that may differ; a list's entries are known by their name, or compared as a whole."""
    for field in msgspec.structs.fields(kind):
        here = f"{place}.{field.encode_name}" if place else field.encode_name
        inner = [field.type, *get_args(field.type)]
        section = next((k for k in inner if isinstance(k, type) and issubclass(k, msgspec.Struct)), None)
        if get_origin(field.type) is dict or here == "portal":
            section = None
        many = get_origin(field.type) is tuple
        if section is None or many or NoneType in inner:
            yield here
        if section is not None and (not many or has_a_name(section)):
            yield from (place for place in places(section, here) if not many or place != f"{here}.name")


def has_a_name(section: type[msgspec.Struct]) -> bool:
    return any(field.name == "name" and field.required for field in msgspec.structs.fields(section))


def test_no_field_is_missing_and_none_is_left_over() -> None:
    assert set(EFFECTS) == {*places(SiteConfig, ""), *places(HubConfig, "")}


def test_the_same_is_no_change() -> None:
    assert differences(parse(SITE), parse(SITE + "# a comment\n")) == []


WANS = SITE[SITE.index("wan = ") : SITE.index("lan = ")]
PORTAL = '[portal]\ntoken = [{ name = "a", role = "viewer", hash = "sha256:' + 64 * "0" + '" }]\n'
CLASSES = '[[class]]\nname = "critical"\n[[class]]\nname = "bulk"\n[[class]]\nname = "default"\n'
VLAN = SITE.replace(
    'name = "lan1"',
    'name = "lan1", vlan = 11, parent = "eth0", prefixes = ["192.168.0.0/16"], gateway = "172.16.1.2"',
)
EDITS = {
    "identity.name": (SITE, '/a/ca.crt"', '/a/ca.crt", name = "ship9"'),
    "class": (SITE + CLASSES, '[[class]]\nname = "bulk"\n', ""),
    "class.dscp": (SITE + CLASSES, 'name = "critical"', 'name = "critical"\ndscp = 1'),
    "class.priority": (HUB + CLASSES, 'name = "critical"', 'name = "critical"\npriority = 1'),
    "class.txqueuelen": (HUB + CLASSES, 'name = "critical"', 'name = "critical"\ntxqueuelen = 77'),
    "supervisor.on_stop": (SITE, "", '[supervisor]\non_stop = "open"'),
    "supervisor.on_orphan": (SITE, "", '[supervisor]\non_orphan = "exit"'),
    "supervisor.uid_base": (SITE, "", "[supervisor]\nuid_base = 48000"),
    "supervisor.control_group": (SITE, "", '[supervisor]\ncontrol_group = "wheel"'),
    "supervisor.runtime_directory": (SITE, "", '[supervisor]\nruntime_directory = "/run/other"'),
    "supervisor.state_directory": (SITE, "", '[supervisor]\nstate_directory = "/var/lib/other"'),
    "supervisor.table_base": (SITE, "", "[supervisor]\ntable_base = 500"),
    "supervisor.mark_mask": (SITE, "", "[supervisor]\nmark_mask = 0xff"),
    "supervisor.rule_priority": (SITE, "", "[supervisor]\nrule_priority = 9000"),
    "supervisor.source_port_base": (SITE, "", "[supervisor]\nsource_port_base = 47000"),
    "supervisor.key_update_packets": (SITE, "", "[supervisor]\nkey_update_packets = 5000"),
    "supervisor.memory_limit_mb": (SITE, "", "[supervisor]\nmemory_limit_mb = 100"),
    "supervisor.cpus": (SITE, "", "[supervisor]\ncpus = [0]"),
    "supervisor.native": (SITE, "", "[supervisor]\nnative = false"),
    "watchdog.heartbeat_timeout": (SITE, "", "[watchdog]\nheartbeat_timeout = 2.0"),
    "watchdog.peer_timeout": (SITE, "", "[watchdog]\npeer_timeout = 2.0"),
    "watchdog.start_timeout": (SITE, "", "[watchdog]\nstart_timeout = 2.0"),
    "watchdog.probe_interval": (SITE, "", "[watchdog]\nprobe_interval = 0.5"),
    "watchdog.backoff_initial": (SITE, "", "[watchdog]\nbackoff_initial = 0.5"),
    "watchdog.backoff_max": (SITE, "", "[watchdog]\nbackoff_max = 60.0"),
    "watchdog.healthy_after": (SITE, "", "[watchdog]\nhealthy_after = 60.0"),
    "watchdog.failover_after": (SITE, "", "[watchdog]\nfailover_after = 2.0"),
    "watchdog.failback_after": (SITE, "", "[watchdog]\nfailback_after = 60.0"),
    "portal": (SITE, "", PORTAL),
    "portal.port": (SITE + PORTAL, "[portal]", "[portal]\nport = 9999"),
    "portal.history_mb": (SITE + PORTAL, "[portal]", "[portal]\nhistory_mb = 99"),
    "portal.token": (SITE + PORTAL, 'name = "a"', 'name = "b"'),
    "portal.token.role": (SITE + PORTAL, "viewer", "admin"),
    "portal.token.hash": (SITE + PORTAL, "sha256:0", "sha256:1"),
    "portal.token.expires": (SITE + PORTAL, 'role = "viewer"', 'role = "viewer", expires = 2030-01-01'),
    "hub.name": (SITE, "hub.example.net", "other.example.net"),
    "hub.address": (SITE, "198.51.100.2", "198.51.100.3"),
    "inner.ipv4": (SITE, "10.200.10.0", "10.201.10.0"),
    "inner.ipv6": (SITE, "fd6d:7071::", "fd6d:7072::"),
    "inner.number": (SITE, '/64" }', '/64", number = 3 }'),
    "wan": (SITE, WANS, WANS.replace(" }]", ' }, { name = "wan6", interface = "wan6" }]')),
    "wan.interface": (SITE, 'interface = "wan5"', 'interface = "wan9"'),
    "wan.suffix": (SITE, 'interface = "wan5"', 'interface = "wan5", suffix = 5'),
    "wan.hub_port": (SITE, 'interface = "wan5"', 'interface = "wan5", hub_port = 5'),
    "wan.hub_address": (SITE, 'interface = "wan5"', 'interface = "wan5", hub_address = "198.51.100.9"'),
    "wan.rate_mbit": (SITE, "18.0", "20.0"),
    "wan.mtu": (SITE, 'interface = "wan5"', 'interface = "wan5", mtu = 1300'),
    "wan.table": (SITE, 'interface = "wan5"', 'interface = "wan5", table = 77'),
    "wan.fallback": (SITE, 'interface = "wan5"', 'interface = "wan5", fallback = ["wan4"]'),
    "matrix": (SITE, "", '[matrix]\nwan5 = ["bulk"]'),
    "lan": (SITE, 'name = "lan1"', 'name = "lan2"'),
    "lan.interface": (SITE, 'interface = "lan1"', 'interface = "lan2"'),
    "lan.class": (SITE, 'name = "lan1"', 'name = "lan1", class = "bulk"'),
    "lan.wan": (SITE, 'wan = "wan4" }]', 'wan = "wan5" }]'),
    "lan.vlan": (VLAN, "vlan = 11", "vlan = 12"),
    "lan.parent": (VLAN, 'parent = "eth0"', 'parent = "eth1"'),
    "lan.address": (SITE, 'name = "lan1"', 'name = "lan1", address = "172.16.1.1/24"'),
    "lan.prefixes": (SITE, 'name = "lan1"', 'name = "lan1", prefixes = ["192.168.0.0/16"]'),
    "lan.gateway": (VLAN, 'gateway = "172.16.1.2"', 'gateway = "172.16.1.3"'),
    "lan.masquerade": (SITE, 'name = "lan1"', 'name = "lan1", masquerade = false'),
    "rule": (SITE, "", '[[rule]]\nclass = "bulk"'),
    "set": (SITE, "", "[set.voice]\nports = [5060]"),
    "listener.port": (HUB, "45010", "45011"),
    "listener.address": (HUB, "port = 45010", 'port = 45010, address = "192.0.2.1"'),
    "listener.ipv4": (HUB, "10.200.10.0", "10.201.10.0"),
    "listener.ipv6": (HUB, "fd6d:7071::", "fd6d:7072::"),
    "listener.mtu": (HUB, "port = 45010", "port = 45010, mtu = 1300"),
    "site": (HUB, "", '[[site]]\nname = "ship7"\nnumber = 7'),
    "site.identity": (HUB, 'name = "ship1"', 'name = "ship1"\nidentity = "mpq://site/other"'),
    "site.number": (HUB, "number = 0", "number = 9"),
    "site.addresses": (HUB, "number = 0", 'number = 0\naddresses = { "mt4.bulk" = ["10.200.10.99"] }'),
    "site.lan": (HUB, "172.16.2.0", "172.16.3.0"),
    "site.revoked": (HUB, "number = 0", "number = 0\nrevoked = true"),
    "nat": (HUB, 'nat = { interface = "srv" }\n', ""),
    "nat.lans": (HUB, 'interface = "srv"', 'interface = "srv", lans = true'),
    "nat.interface": (HUB, '"srv"', '"ens3"'),
    "limits.connections": (HUB, "", "[limits]\nconnections = 10"),
    "limits.handshakes": (HUB, "", "[limits]\nhandshakes = 32"),
    "limits.first_packets": (HUB, "", "[limits]\nfirst_packets = 5"),
    "limits.strangers": (HUB, "", "[limits]\nstrangers = 50"),
}
NOT_TRIED = {
    "role",  # refused while it runs
    "identity.certificate", "identity.key", "identity.ca",  # it is what they hold that counts
    "listener", "listener.workers",  # as `wan` and `matrix`
}  # fmt: skip


def test_every_field_is_tried() -> None:
    assert {place for place in EDITS if not place.startswith("portal.")} | NOT_TRIED == set(EFFECTS)


@pytest.mark.parametrize("place", EDITS)
def test_what_is_said_of_a_field_is_what_a_reload_does(place: str) -> None:
    base, before, after = EDITS[place]
    text = base.replace(before, after, 1) if before else f"{base}\n{after}\n"
    assert text != base
    old, new = parse(base), parse(text)
    changes = differences(old, new)
    field = EFFECTS["portal" if place.startswith("portal.") else place]
    assert {change.effect for change in changes} == {field.effect}
    assert all(re.sub(r"\[[^]]*\]", "", change.path) == place for change in changes)
    workers = set(worker_changes(make_plan(old), make_plan(new)).values())
    assert bool(workers - {"sites"}) is (field.effect is Effect.RESTART)


def test_entries_are_known_by_their_name() -> None:
    old = parse(HUB + '[[site]]\nname = "ship7"\nnumber = 7\n[[site]]\nname = "ship8"\nnumber = 8\n')
    new = parse(HUB + '[[site]]\nname = "ship8"\nnumber = 9\nrevoked = true\n')
    assert differences(old, new) == [
        Change("site[ship7]", "ship7", None, Effect.HOT, False),
        Change("site[ship8].number", "8", "9", Effect.HOT, True),
        Change("site[ship8].revoked", "false", "true", Effect.HOT, False),
    ]
    assert set(worker_changes(make_plan(old), make_plan(new)).values()) == {"sites"}


def test_new_credentials_restart_every_worker() -> None:
    plan = make_plan(parse(SITE))
    assert set(worker_changes(plan, plan, credentials=True).values()) == {"restart"}
    assert worker_changes(plan, plan) == {}


def test_a_line_shows_the_beginning_of_a_long_value() -> None:
    change = Change("set", "{ }", "x" * 5000, Effect.HOT, False)
    (line,) = describe(Preview((change,), {}))
    assert line.startswith("set: { } → xxx")
    assert "… (5000 characters)" in line
    assert len(line) < 300


def test_no_secret_is_told() -> None:
    webhook = '[portal.webhook]\nurl = "https://h.example/T0/{}?key=x"\nsecret_file = "/a/secret"\n'
    none, one, two = (parse(SITE + PORTAL + text) for text in ("", webhook.format("SESAME"), webhook.format("OTHER")))
    told = [
        line for old, new in ((none, one), (one, two)) for line in describe(Preview(tuple(differences(old, new)), {}))
    ]
    effect = "(applied at once, no worker is touched)"
    assert told == [
        f"portal.webhook: new: url https://h.example/(removed), secret_file /a/secret {effect}",
        f"portal.webhook.url: https://h.example/(removed) → https://h.example/(removed) {effect}",
    ]
    (change,) = differences(parse(SITE + PORTAL), parse(SITE + PORTAL.replace("sha256:0", "sha256:1")))
    assert (change.old, change.new) == ("sha256:(removed)", "sha256:(removed)")
