"""What does not go together is found, each with its path, and nothing that only follows from another mistake."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.unit.test_config import HUB, SITE, changed, problems_of

_WAN6 = 'name = "wan6"\ninterface = "wan6"'

_LAST_TWO = 'name = "quic"\nprotocol = "udp"\nports = [443]\n\n[[rule]]\nclass = "bulk"\nname = "iperf"'

_LAN1 = 'interface = "lan1"'

SITE_MISTAKES = [
    (('role = "site"', 'role = "sight"'), "role", 'must be "site" or "hub"'),
    (('role = "site"', 'rolle = "site"'), "role", 'is "rolle" meant?'),
    (('address = "198.51.100.2" ', "address = [] "), "hub.address", "at least one"),
    (('address = "198.51.100.2" ', 'address = "0.0.0.0" '), "hub.address[0]", "no address of a host"),
    (('address = "198.51.100.2" ', 'address = "255.255.255.255" '), "hub.address[0]", "no address of a host"),
    (('address = "198.51.100.2" ', 'address = "fe80::1%wan4" '), "hub.address[0]", "has a zone"),
    (('name = "hub.example.net" ', r'name = "hub\u001b[31m" '), "hub.name", "holds a control character"),
    (('address = "198.51.100.2" ', 'address = "10.200.11.3" '), "inner.ipv4", "of wan[1] contains the hub's"),
    (('name = "hub.example.net" ', 'name = "hub example" '), "hub.name", "neither a host name"),
    (('"10.200.10.0/24"', '"10.200.10.1/24"'), "inner.ipv4", "has host bits set"),
    (('"10.200.10.0/24"', '"10.200.10.0/25"'), "inner.ipv4", "too small"),
    (('"10.200.10.0/24"', '"127.0.0.0/24"'), "inner.ipv4", "loopback"),
    (('"10.200.10.0/24"', '"224.0.0.0/24"'), "inner.ipv4", "multicast"),
    (('"fd6d:7071::/64"', '"::/64"'), "inner.ipv6", "loopback"),
    (('"10.200.10.0/24"', '"255.255.255.0/24"'), "inner.ipv4", "no subnet for wan[1]"),
    (('"fd6d:7071::/64"', '"10.0.0.0/8"'), "inner.ipv6", "not an IPv6 prefix"),
    (("number = 0 ", "number = 21 "), "inner.number", "0 to 20 do"),
    (("number = 0 ", "number = true "), "inner.number", "Expected `int`"),
    ((_WAN6, 'name = "bulk"\ninterface = "wan6"'), "wan[2].name", "something else to `ctl`"),
    ((_WAN6, 'name = "cr1"\ninterface = "wan6"'), "wan[2].name", "name of a tunnel of wan[0]"),
    ((_WAN6, 'name = "wan6"\ninterface = "df2"'), "wan[1]", "name of the interface of wan[2]"),
    ((_WAN6, 'name = "wan6"\ninterface = "lo"'), "wan[2].interface", "leads nowhere"),
    ((_WAN6, 'name = "wan6"\ninterface = "wan6;"'), "wan[2].interface", "no interface name"),
    ((_WAN6, _WAN6 + "\nsuffix = 1"), "wan[2].suffix", "taken: wan[0]"),
    ((_WAN6, _WAN6 + "\nhub_port = 45010"), "wan[2].hub_port", "taken: wan[0]"),
    ((_WAN6, _WAN6 + "\nhub_port = 65536"), "wan[2].hub_port", "<= 65535"),
    ((_WAN6, _WAN6 + "\nrate_mbit = 0"), "wan[2].rate_mbit", ">= 0.01"),
    ((_WAN6, _WAN6 + "\nrate_mbit = 0.008"), "wan[2].rate_mbit", ">= 0.01"),
    ((_WAN6, _WAN6 + "\nrate_mbit = 100_001"), "wan[2].rate_mbit", "<= 100000"),
    ((_WAN6, _WAN6 + "\ntable = 254"), "wan[2].table", "254 is the kernel's"),
    ((_WAN6, _WAN6 + "\ntable = 112"), "wan[2].table", "among 100-139, which follow from"),
    ((_WAN6, _WAN6 + '\nfallback = ["wan7"]'), "wan[2].fallback[0]", 'no WAN "wan7"'),
    ((_WAN6, _WAN6 + '\nfallback = ["wan6"]'), "wan[2].fallback[0]", "this WAN itself"),
    ((_WAN6, _WAN6 + '\nfallback = ["wan4", "wan4"]'), "wan[2].fallback[1]", "twice"),
    ((_WAN6, _WAN6 + '\nhub_address = ["192.0.2.1", "192.0.2.1"]'), "wan[2].hub_address[1]", "twice"),
    (("[supervisor]", '[matrix]\nwan7 = ["bulk"]\n[supervisor]'), "matrix.wan7", 'no WAN "wan7" (did you'),
    (("[supervisor]", '[matrix]\nwan6 = ["bulk", "bulk"]\n[supervisor]'), "matrix.wan6[1]", "twice"),
    (("[supervisor]", '[[class]]\nname = "bulk"\n[supervisor]'), "rule[0].class", "critical is not among"),
    (("[supervisor]", "[[class]]\nname='bulk'\n[[class]]\nname='bulk'\n[supervisor]"), "class[1].name", "taken"),
    (('protocol = "tcp"', ""), "rule[2].ports", "need protocol"),
    (("dscp = [46]\n\n[[rule]]", "dscp = [64]\n\n[[rule]]"), "rule[1].dscp[0]", "<= 63"),
    (('name = "web"', 'name = "voice"'), "rule[2].name", '"voice" is taken: rule[0]'),
    (
        (_LAST_TWO, _LAST_TWO.replace('"quic"', '"4"').replace('name = "iperf"', "")),
        "rule[4].name",
        "taken",
    ),
    (('name = "web"', 'name = "other"'), "rule[2].name", "is what matches no rule"),
    (("dscp = [46]", 'source = ["10.0.0.1/8"]'), "rule[1].source[0]", "has host bits set"),
    (("dscp = [46]", """source = ["fe80::%'; reboot; '/64"]"""), "rule[1].source[0]", "has a zone"),
    (("dscp = [46]", 'source = ["::/0"]'), "rule[1].source[0]", "is everything: leave it out"),
    (
        ("dscp = [46]", 'source = ["@offic"]\n[set.office]\nports = [1]'),
        "rule[1].source[0]",
        'did you mean "office"?',
    ),
    (("dscp = [46]", 'source = ["@office"]\n[set.office]\nports = [1]'), "rule[1].source[0]", "has no prefixes"),
    (("dscp = [46]", 'source = ["10.0.0.0/8"]\ndestination = ["fd00::/8"]'), "rule[1]", "matches nothing"),
    (("[supervisor]", "[set.office]\n[supervisor]"), "set.office", "is empty"),
    (("[supervisor]", '[set."a b"]\nports = [1]\n[supervisor]'), 'set."a b"', "no name of a set"),
    (("[supervisor]", '[set.a]\nprefixes = ["@b"]\n[supervisor]'), "set.a.prefixes[0]", "does not appear"),
    (("[supervisor]", "[supervisor]\ntable_base = 240"), "supervisor.table_base", "253, which is the kernel's"),
    (("[supervisor]", "[supervisor]\ntable_base = 265"), "supervisor.table_base", "255, which is the kernel's"),
    (("[supervisor]", "[supervisor]\ntable_base = 10"), "supervisor.table_base", ">= 11"),
    (("[supervisor]", "[supervisor]\nmark_mask = 0x00ff00ff"), "supervisor.mark_mask", "not one run"),
    (("[supervisor]", "[supervisor]\nmark_mask = 0x00070000"), "supervisor.mark_mask", "fewer than five bits"),
    (("[supervisor]", "[supervisor]\nmark_mask = 0x003f0000"), "supervisor.mark_mask", "room for 1 LANs, not for 3"),
    (("[supervisor]", "[supervisor]\ncpus = [1, 1]"), "supervisor.cpus", "twice"),
    (("[supervisor]", '[supervisor]\nstate_directory = "x"'), "supervisor.state_directory", "absolute"),
    (("[supervisor]", '[supervisor]\non_stop = "close"'), "supervisor.on_stop", 'did you mean "closed"?'),
    (("[supervisor]", "[watchdog]\nheartbeat_timeout = 0.3\n[supervisor]"), "watchdog.heartbeat_timeout", "0.5"),
    (("[supervisor]", "[watchdog]\nbackoff_max = 0.01\n[supervisor]"), "watchdog.backoff_initial", "longer"),
]

_NUMBER = ("number = 0 ", "number = 99 ")
_MT5 = 'name = "mt5"\nport = 45011'
_SHIP1 = "number = 0 "
_LAN = 'prefix = "172.16.2.0/24", class = "default", listener = "mt4"'

HUB_MISTAKES = [
    ((_MT5, 'name = "mt4"\nport = 45011'), "listener[1].name", "taken: listener[0]"),
    ((_MT5, 'name = "mt5"\nport = 45010'), "listener[1].port", "listener[0] listens there"),
    ((_MT5, 'name = "all"\nport = 45011'), "listener[1].name", "something else to `ctl`"),
    ((_MT5, 'name = "a-long-name-of15"\nport = 45011'), "listener[1].name", "longer than the 15"),
    ((_MT5, _MT5 + "\naddress = []"), "listener[1].address", "at least one"),
    ((_MT5, _MT5 + '\naddress = ["192.0.2.1", "192.0.2.2"]'), "listener[1].address", "0.0.0.0 and :: together"),
    ((_MT5, _MT5 + '\naddress = ["0.0.0.0", "::", "::1"]'), "listener[1].address", "0.0.0.0 and :: together"),
    ((_MT5, _MT5 + '\naddress = ["::", "::"]'), "listener[1].address[1]", "twice"),
    ((_MT5, _MT5 + '\naddress = ["ff02::1"]'), "listener[1].address[0]", "no address of a host"),
    ((_MT5, _MT5 + '\naddress = "10.200.11.7"'), "listener[1].ipv4", "own address 10.200.11.7"),
    (('"10.200.11.0/24"', '"10.200.0.0/16"'), "listener[1].ipv4", "overlaps 10.200.10.0/24 of listener[0].ipv4"),
    (('"10.200.11.0/24"', '"10.200.11.0/28"'), "listener[1].ipv4", "too small"),
    (('name = "ship2"', 'name = "ship1"'), "site[1].identity", '"mpq://site/ship1" is taken'),
    (('name = "ship2"', 'name = "../x"'), "site[1].name", "no name"),
    (('name = "ship2"', 'name = "ship2"\nidentity = "ship2"'), "site[1].identity", "no URI"),
    (("number = 1 ", "number = 0 "), "site[1].number", "10.200.10.1 is taken by site[0].number"),
    (("number = 1 ", "number = 30 "), "site[1].number", "30 does not fit 10.200.10.0/24 of mt4: 0 to 20 do"),
    (("number = 1 ", ""), "site[1].number", "is missing"),
    ((_SHIP1, '"addresses" = { "mt4.bulk" = ["10.200.10.254"] } '), 'site[0].addresses."mt4.bulk"', "the hub"),
    ((_SHIP1, '"addresses" = { "mt4.bluk" = ["10.200.10.5"] } '), 'site[0].addresses."mt4.bluk"', '"mt4.bulk"?'),
    ((_SHIP1, '"addresses" = { "mt4.bulk" = ["10.9.9.9"] } '), 'site[0].addresses."mt4.bulk"[0]', "not in a subnet"),
    ((_LAN, 'prefix = "172.16.2.0/24", listener = "mt4"'), "site[1].lan[0]", "ambiguous: name the class"),
    ((_LAN, _LAN.replace("172.16.2.0/24", "224.0.0.0/4")), "site[1].lan[0].prefix", "multicast"),
    ((_LAN, _LAN.replace("172.16.2.0/24", "127.0.0.0/8")), "site[1].lan[0].prefix", "loopback"),
    ((_LAN, _LAN.replace("172.16.2.0/24", "fe80::/64")), "site[1].lan[0].prefix", "link-local"),
    ((_LAN, 'prefix = "172.16.2.0/24", class = "default"'), "site[1].lan[0]", "ambiguous: name the listener"),
    ((_LAN, _LAN.replace("mt4", "mt44")), "site[1].lan[0]", 'no listener "mt44" (did you mean "mt4"?)'),
    ((_LAN, _LAN.replace("172.16.2.0", "172.16.2.1")), "site[1].lan[0].prefix", "host bits"),
    ((_LAN, _LAN.replace("172.16.2.0/24", "0.0.0.0/0")), "site[1].lan[0].prefix", "overlaps 10.200.10.0/24"),
    ((_LAN, _LAN + "}, {" + _LAN.replace("default", "bulk")), "site[1].lan[1].prefix", "ambiguous"),
    ((_SHIP1, "number = 0\nlan = [{" + _LAN.replace(".0/24", ".8/29") + "}] "), "site[1].lan[0].prefix", "ambiguous"),
    (('interface = "ens3"', 'interface = "mt5d"'), "listener[1].name", "interface of nat.interface"),
    (("[nat]", "[lan]"), "lan", "unknown key"),
]


@pytest.mark.parametrize(("change", "path", "text"), SITE_MISTAKES, ids=lambda value: str(value)[:40])
def test_site_mistake(change: tuple[str, str], path: str, text: str) -> None:
    found = problems_of(changed(SITE, change))
    assert any(line.startswith(f"{path}: ") and text in line for line in found), found


@pytest.mark.parametrize(("change", "path", "text"), HUB_MISTAKES, ids=lambda value: str(value)[:40])
def test_hub_mistake(change: tuple[str, str], path: str, text: str) -> None:
    found = problems_of(changed(HUB, change))
    assert any(line.startswith(f"{path}: ") and text in line for line in found), found


def test_more_sites_than_a_worker_can_be_told_of() -> None:
    """Revoked ones count: it is told of them too."""
    revoked = "".join(f'[[site]]\nname = "former{number}"\nrevoked = true\n' for number in range(2500))
    (line,) = problems_of(HUB + revoked)
    assert line.startswith("site: 2502 sites take ")
    assert line.endswith(" bytes of a message to mt4.critical, 147456 are free")


def test_one_mistake_is_one_problem() -> None:
    """A duplicate number means many equal addresses; it is said once."""
    assert len(problems_of(changed(HUB, ("number = 1 ", "number = 0 ")))) == 1


def test_a_prefix_behind_a_site_is_of_a_version_that_it_has() -> None:
    """At the worker that the prefix belongs to."""
    lan = (_LAN, _LAN.replace("172.16.2.0/24", "fd00:2::/64"))
    own = 'addresses = { "mt4.default" = ["10.200.10.21"], "mt5.default" = ["fd6d:7071:0:1::15"] }\n'
    addresses = ("number = 1 ", own)
    without = changed(HUB, lan, ('ipv6 = "fd6d:7071::/64"', ""))
    assert problems_of(changed(HUB, lan)) == []
    for text in (without, changed(HUB, lan, addresses)):
        (problem,) = problems_of(text)
        wanted = "site[1].lan[0].prefix: fd00:2::/64 goes to mt4.default, where the site has no IPv6 address"
        assert problem == wanted
    text = changed(HUB, (_LAN, _LAN.replace("mt4", "mt5")), addresses)
    (problem,) = problems_of(text)
    assert problem.endswith("172.16.2.0/24 goes to mt5.default, where the site has no IPv4 address")


def test_revoked_site_leaves_its_number_to_another() -> None:
    assert problems_of(changed(HUB, (_SHIP1, "revoked = true\nnumber = 1 "))) == []


def test_edges_that_are_good() -> None:
    for base in (11, 199, 266):  # no table of 253, 254, 255 among base - 10 to base + 29
        assert problems_of(changed(SITE, ("[supervisor]", f"[supervisor]\ntable_base = {base}"))) == []
    for address in ('["0.0.0.0", "::"]', '["::", "0.0.0.0"]', '"192.0.2.1"'):
        assert problems_of(changed(HUB, (_MT5, f"{_MT5}\naddress = {address}"))) == []


PORTAL = """
[portal]
{lines}
[[portal.token]]
name = "grafana"
role = "viewer"
hash = "sha256:{hash}"
expires = 2027-12-31
"""


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("", None),
        ('address = ["127.0.0.1", "::1"]', None),
        ('address = "0.0.0.0"\ncertificate = "/c"\nkey = "/k"', None),
        ('address = "0.0.0.0"', "portal.address[0]: 0.0.0.0 is not this host's own: needs certificate and key"),
        ('address = ["::1", "::1"]', "portal.address[1]: ::1 is there twice"),
        ('address = ["0.0.0.0", "::", ]\ncertificate = "/c"\nkey = "/k"', None),
        (
            'address = ["0.0.0.0", "127.0.0.1"]\ncertificate = "/c"\nkey = "/k"',
            "portal.address[1]: 127.0.0.1 and 0.0.0.0: one of them is every address of the host already",
        ),
        (
            'address = ["::1", "127.0.0.1", "::"]\ncertificate = "/c"\nkey = "/k"',
            "portal.address[2]: :: and ::1: one of them is every address of the host already",
        ),
        ('address = "fe80::1"', "portal.address[0]: fe80::1 is no address that one can listen on"),
        ('address = "::ffff:127.0.0.1"', "portal.address[0]: ::ffff:7f00:1 is no address that one can listen on"),
        ('address = "224.0.0.1"', "portal.address[0]: 224.0.0.1 is no address that one can listen on"),
        ("address = []", "portal.address: needs at least one address"),
        ('certificate = "/c"', "portal.key: is missing, the other is there"),
        ('alarm = [{ name = "a", kind = "loss" }]', "portal.alarm[0].above: is missing"),
        ('alarm = [{ name = "a", kind = "down" }]', None),
        ('alarm = [{ name = "a", kind = "rtt", above = 1, clear = 2 }]', "portal.alarm[0].clear: is above `above`"),
        ("port = 0", "portal.port: Expected `int` >= 1"),
        ("history_mb = 1", "portal.history_mb: Expected `int` >= 16"),
    ],
)
@pytest.mark.parametrize("sample", [SITE, HUB], ids=["site", "hub"])
def test_portal(sample: str, lines: str, problem: str | None) -> None:
    found = problems_of(sample + PORTAL.format(lines=lines, hash="0" * 64))
    assert found == ([] if problem is None else [problem])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("sha256:0", "0", "portal.token[0].hash: is no hash of a token"),  # not what it is: a token, maybe
        ('role = "viewer"', 'role = "root"', "portal.token[0].role: must be one of viewer, operator, admin"),
        ("expires = 2027-12-31", 'expires = "soon"', "portal.token[0].expires: Invalid"),
        ("[portal]", "[[portal.token]]\nname = 'grafana'\nrole = 'admin'\nhash = 'sha256:" + "1" * 64 + "'\n[portal]",
         'portal.token[1].name: "grafana" is taken'),
        ("[portal]", "[[portal.token]]\nname = 'ann'\nrole = 'admin'\nhash = 'sha256:" + "0" * 64 + "'\n[portal]",
         "portal.token[1].hash: is that of portal.token[0]: a token is one user's"),
    ],
)  # fmt: skip
def test_tokens(old: str, new: str, problem: str) -> None:
    (found,) = problems_of(SITE + PORTAL.format(lines="", hash="0" * 64).replace(old, new, 1))
    assert problem in found


_TABLES = """
[[class]]
name = "critical"
[[class]]
name = "default"
[[class]]
name = "bulk"
[matrix]
wan6 = ["bulk"]
[set.office]
prefixes = ["10.0.0.0/8"]
[set.p]
ports = [1]
[watchdog]
peer_timeout = 5.0
probe_interval = 2.0
backoff_max = 60.0
backoff_initial = 40.0
[supervisor]
table_base = 400"""
_OF_PORTAL = """
certificate = "/c"
key = "/k"
alarm = [{ name = "a", kind = "rtt", above = 2, clear = 2 }]"""
_OF_LAN = """
vlan = 11
parent = "eth0"
prefixes = ["172.17.0.0/16"]
class = "bulk"
gateway = "172.16.1.2\""""
RICH = changed(
    SITE + PORTAL.format(lines=_OF_PORTAL, hash="0" * 64),
    ("[supervisor]", _TABLES),
    ("dscp = [46]", 'source = ["@office"]\nports = ["@p"]\nprotocol = "udp"'),
    (_WAN6, _WAN6 + '\nsuffix = 3\nhub_port = 45012\ntable = 120\nfallback = ["wan4"]'),
    (_LAN1, _LAN1 + _OF_LAN),
)
"""A site in which much depends on much."""


def _leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all plain values of a TOML table."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if entries is None:
        yield path
    else:
        for key, entry in entries:
            yield from _leaves(entry, (*path, key))


@pytest.mark.parametrize("text", [RICH, HUB], ids=["site", "hub"])
def test_nothing_follows_from_what_cannot_be_read(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Whatever single value of a good file is not of its type: there is one problem, its own."""
    assert problems_of(text) == []
    for *path, key in _leaves(tomllib.loads(text)):
        table = entry = tomllib.loads(text)
        for step in path:
            entry = entry[step]
        entry[key] = {}
        with monkeypatch.context() as patch:
            patch.setattr("tomllib.loads", lambda _, table=table: table)
            found = problems_of("")
        assert len(found) == 1, found


@pytest.mark.parametrize(
    ("sample", "changes", "places"),
    [
        (SITE, [(_WAN6, 'name = "wan6"\ninterface = 6\nfallback = ["wan6"]')], "wan[2].interface wan[2].fallback[0]"),
        (SITE, [('"bulk"\nname = "iperf"\nprotocol = "tcp"', '"bukl"')], "rule[4].class rule[4].ports"),
        (SITE, [('role = "site"', 'role = "sight"'), _NUMBER], "role inner.number"),
        (SITE, [('role = "site"', 'rolle = "site"'), _NUMBER], "role inner.number"),
        (SITE, [('protocol = "tcp"', 'protocl = "tcp"'), _NUMBER], "rule[2].protocl inner.number"),
        (HUB, [(_MT5, "port = 45010")], "listener[1].name listener[1].port"),
        (HUB, [(_MT5, "port = 45011"), ("number = 1 ", "number = 30 ")], "listener[1].name site[1].number"),
        (HUB, [('"10.200.11.0/24"', "11"), ("number = 1 ", "number = 30 ")], "listener[1].ipv4 site[1].number"),
    ],
)  # fmt: skip
def test_what_is_beside_it_is_looked_at(sample: str, changes: list[tuple[str, str]], places: str) -> None:
    """All problems come at once, also those of a section in which something cannot be read."""
    found = {line.split(": ")[0] for line in problems_of(changed(sample, *changes))}
    assert found == set(places.split())
