"""What a site's LANs may not be, each with its path."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from mpq_supervisor.arithmetic import overlaps
from tests.unit.test_config import SITE, changed, problems_of

_LAN1 = 'interface = "lan1"'

MISTAKES = [
    (('wan = "wan5"', 'wan = "wan55"'), "lan[1].wan", 'no WAN "wan55" (did you mean "wan5"?)'),
    (('name = "lan2"', 'name = "lan1"'), "lan[1].name", "taken"),
    (('interface = "lan2"', 'interface = "lan1"'), "lan[1].interface", "taken: lan[0]"),
    ((_LAN1, _LAN1 + '\naddress = ["fd00:5::1%lan1/64"]'), "lan[0].address[0]", "has a zone"),
    ((_LAN1, _LAN1 + '\nprefixes = ["fd00:5::%lan1/64"]'), "lan[0].prefixes[0]", "has a zone"),
    ((_LAN1, _LAN1 + '\nprefixes = ["172.17.0.1/16"]'), "lan[0].prefixes[0]", "has host bits set"),
    (
        (_LAN1, _LAN1 + '\nprefixes = ["10.200.0.0/16"]'),
        "lan[0].prefixes[0]",
        "overlaps 10.200.10.0/24 of inner.ipv4",
    ),
    ((_LAN1, _LAN1 + '\nprefixes = ["10.200.12.64/28"]'), "lan[0].prefixes[0]", "of inner.ipv4 (wan[2])"),
    ((_LAN1, _LAN1 + '\nprefixes = ["fd6d:7071::/60"]'), "lan[0].prefixes[0]", "of inner.ipv6 (wan[0])"),
    ((_LAN1, _LAN1 + '\naddress = ["10.200.11.1/30"]'), "lan[0].address[0]", "of inner.ipv4 (wan[1])"),
    ((_LAN1, _LAN1 + '\naddress = ["::ffff:172.16.1.1/120"]'), "lan[0].address[0]", "no address of a host"),
    ((_LAN1, _LAN1 + '\naddress = ["fd00::1/64", "FD00:0::1/80"]'), "lan[0].address[1]", "fd00::1 is there twice"),
    ((_LAN1, _LAN1 + '\naddress = ["172.16.1.1/0"]'), "lan[0].address[0]", "makes everything a neighbour"),
    ((_LAN1, _LAN1 + '\naddress = ["172.16.1.0/24"]'), "lan[0].address[0]", "172.16.1.0 is 172.16.1.0/24 itself"),
    ((_LAN1, _LAN1 + '\naddress = ["172.16.1.255/24"]'), "lan[0].address[0]", "is the broadcast address of 172.16"),
    ((_LAN1, _LAN1 + '\naddress = ["172.16.1.3/30"]'), "lan[0].address[0]", "is the broadcast address of 172.16"),
    ((_LAN1, _LAN1 + '\naddress = ["fd00:5::/64"]'), "lan[0].address[0]", "itself, that of all its routers"),
    (
        (_LAN1, f'{_LAN1}\naddress = "172.16.1.1/30"\nprefixes = ["172.17.0.0/16"]\ngateway = "172.16.1.3"'),
        "lan[0].gateway[0]",
        "172.16.1.3 is the broadcast address of 172.16.1.0/30",
    ),
    ((_LAN1, _LAN1 + '\nprefixes = ["::ffff:172.16.0.0/112"]'), "lan[0].prefixes[0]", "mapped"),
    ((_LAN1, _LAN1 + '\nprefixes = ["224.0.0.0/4"]'), "lan[0].prefixes[0]", "multicast"),
    ((_LAN1, _LAN1 + '\nprefixes = ["fe80::/64"]'), "lan[0].prefixes[0]", "link-local"),
    ((_LAN1, _LAN1 + '\nvlan = 1\nparent = "cr2"'), "lan[0].parent", '"cr2" is a tunnel of wan[1]'),
    (
        (_LAN1, _LAN1 + '\nprefixes = ["172.17.0.0/16"]\ngateway = "0.0.0.0"'),
        "lan[0].gateway[0]",
        "no address of a host",
    ),
    ((_LAN1, _LAN1 + '\nprefixes = ["fd00::/64"]\ngateway = "ff02::1"'), "lan[0].gateway[0]", "no address of a host"),
    ((_LAN1, _LAN1 + '\nprefixes = ["fd00::/64"]\ngateway = "::1"'), "lan[0].gateway[0]", "no address of a host"),
    (('interface = "lan1"', 'interface = "lan1"\nclass = "voice"'), "lan[0].class", "must be one of critical"),
    ((_LAN1, _LAN1 + "\nvlan = 11"), "lan[0].parent", "is missing, the other is there"),
    ((_LAN1, _LAN1 + '\nparent = "eth0"'), "lan[0].vlan", "is missing, the other is there"),
    ((_LAN1, _LAN1 + '\nvlan = 11\nparent = "lan1"'), "lan[0].parent", "is the interface itself"),
    ((_LAN1, _LAN1 + '\nvlan = 4095\nparent = "eth0"'), "lan[0].vlan", "<= 4094"),
    ((_LAN1, _LAN1 + '\naddress = "172.16.1.1"'), "lan[0].address[0]", "needs the length of its prefix"),
    ((_LAN1, _LAN1 + '\naddress = "224.0.0.1/24"'), "lan[0].address[0]", "no address of a host"),
    ((_LAN1, _LAN1 + '\ngateway = "172.16.1.2"'), "lan[0].gateway[0]", "nothing is behind 172.16.1.2"),
    (
        (_LAN1, f'{_LAN1}\nprefixes = ["10.0.0.0/8"]\ngateway = ["10.9.9.9", "10.9.9.8"]'),
        "lan[0].gateway[1]",
        "second",
    ),
    ((_LAN1, f'{_LAN1}\nprefixes = ["0.0.0.0/0"]'), "lan[0].prefixes[0]", "is everything"),
    (
        (
            _LAN1,
            f'{_LAN1}\nmasquerade = false\nprefixes = ["192.168.0.0/16"]\nwan = "wan4"\n[[lan]]\nname = "l"\n'
            'interface = "l"\nclass = "bulk"\nmasquerade = false\naddress = "192.168.1.1/24"',
        ),
        "lan[1].masquerade",
        "is false, as in lan[0], which has the same addresses",
    ),
    (
        (_LAN1, f'{_LAN1}\naddress = "10.0.0.1/30"\nprefixes = ["10.9.0.0/16"]\ngateway = "10.0.0.5"'),
        "lan[0].gateway[0]",
        "10.0.0.5 is in no subnet of lan[0].address",
    ),
]


@pytest.mark.parametrize(("change", "path", "text"), MISTAKES, ids=lambda value: str(value)[:40])
def test_mistake(change: tuple[str, str], path: str, text: str) -> None:
    found = problems_of(changed(SITE, change))
    assert any(line.startswith(f"{path}: ") and text in line for line in found), found


@pytest.mark.parametrize(
    "lines",
    [
        'prefixes = ["fd00:1::/64"]\ngateway = "fe80::2"',
        'prefixes = ["fd00:1::/64"]\ngateway = "fe80::2"\naddress = "fd00:2::1/64"',
        'prefixes = ["172.17.0.0/16"]\ngateway = "172.16.1.2"\naddress = "fd00:2::1/64"',
        'address = ["172.16.1.1/24", "172.16.1.2/24", "FD00::0:1/64"]',
        'address = ["172.16.1.0/32", "192.0.2.0/31", "192.0.2.3/31", "fd00::/128", "fd00:1::/127"]',
        'address = ["172.16.0.255/23", "fd00::ffff:ffff:ffff:ffff/64"]',
    ],
)
def test_lans_that_are_good(lines: str) -> None:
    assert problems_of(changed(SITE, (_LAN1, f"{_LAN1}\n{lines}"))) == []


def test_gateway_that_is_the_host_itself() -> None:
    lines = 'prefixes = ["172.17.0.0/16"]\ngateway = "172.16.1.1"\naddress = "172.16.1.1/24"'
    (problem,) = problems_of(changed(SITE, (_LAN1, f"{_LAN1}\n{lines}")))
    assert problem == "lan[0].gateway[0]: 172.16.1.1 is this host itself"


def test_vlans_on_each_other() -> None:
    lan = '[[lan]]\nname = "{0}"\ninterface = "{0}"\nparent = "{1}"\nvlan = 7\nwan = "wan4"\n'
    text = SITE + lan.format("a", "b") + lan.format("b", "c")
    assert problems_of(text) == []
    found = problems_of(text + lan.format("c", "a"))
    assert found == [
        'lan[3].parent: "b" stands on a itself',
        'lan[4].parent: "c" stands on b itself',
        'lan[5].parent: "a" stands on c itself',
    ]


def test_who_has_addresses_in_common() -> None:
    texts = {
        "a": ["10.0.0.0/8"],
        "b": ["10.1.0.0/16", "fd00::/8"],
        "c": ["11.0.0.0/8", "fd00:1::/64"],
        "d": ["9.0.0.0/8"],
    }
    networks = {name: [ip_network(text) for text in prefixes] for name, prefixes in texts.items()}
    assert overlaps(networks) == [("a", "b"), ("b", "c")]
    assert overlaps({"z": networks["b"], **networks}) == [("z", "a"), ("z", "b"), ("z", "c"), ("a", "b"), ("b", "c")]
