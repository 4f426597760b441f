"""Longest-prefix match against a plain search, and who owns what."""

from __future__ import annotations

import random
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest

from mpq_worker.routes import Prefix, RouteTable, covers, parse_prefixes

OWNERS = ("a", "b", "c", "d", "e", "f", "g")


def table(**owners: tuple[str, ...]) -> RouteTable[str]:
    routes: RouteTable[str] = RouteTable()
    for owner, prefixes in owners.items():
        routes.set(parse_prefixes(prefixes), owner)
    return routes


def find(routes: RouteTable[str], address: str) -> str | None:
    return routes.lookup(ip_address(address).packed)


def test_longest_prefix_wins() -> None:
    routes = table(
        a=("0.0.0.0/0",),
        b=("10.0.0.0/8",),
        c=("10.1.0.0/16",),
        d=("10.1.2.3",),
        e=("::/0",),
        f=("fd00::/8", "fd00::1"),
    )
    for address, owner in {
        "8.8.8.8": "a",
        "10.9.9.9": "b",
        "10.1.2.4": "c",
        "10.1.2.3": "d",
        "2001:db8::1": "e",
        "fd00::2": "f",
        "fd00::1": "f",
    }.items():
        assert find(routes, address) == owner


def test_families_do_not_meet() -> None:
    routes = table(a=("0.0.0.0/0",))
    assert find(routes, "::") is None
    assert find(routes, "::ffff:10.0.0.1") is None
    routes = table(a=("::/0",))
    assert find(routes, "0.0.0.0") is None
    assert not covers(parse_prefixes(("0.0.0.0/0",)), bytes(16))
    assert not covers(parse_prefixes(("::/0",)), bytes(4))


@pytest.mark.parametrize("seed", range(4))
def test_agrees_with_a_plain_search(seed: int) -> None:
    noise = random.Random(seed)
    networks: dict[IPv4Network | IPv6Network, str] = {}
    for number in range(60):
        base, length = (0x0A000000, 32) if number % 2 else (0xFD << 120, 128)
        value = base | noise.getrandbits(length - 8)
        prefix = noise.randrange(8, length + 1)
        shift = length - prefix
        networks[ip_network((value >> shift << shift, prefix))] = OWNERS[number % 7]
    routes: RouteTable[str] = RouteTable()
    for network, owner in networks.items():
        routes.set(parse_prefixes((str(network),)), owner)
    routes.remove(OWNERS[3])
    rest = {network: owner for network, owner in networks.items() if owner is not OWNERS[3]}
    for network in networks:
        address = network[noise.randrange(min(network.num_addresses, 1 << 30))]
        matches = [candidate for candidate in rest if address in candidate]
        best = rest[max(matches, key=lambda match: match.prefixlen)] if matches else None
        assert routes.lookup(address.packed) == best
        assert covers(parse_prefixes(map(str, rest)), address.packed) is bool(matches)


def test_a_newcomer_takes_over_and_the_old_owner_cannot_take_it_back() -> None:
    """Connection "old" is replaced by "new" of the same site, then goes: the entries stay."""
    prefixes = parse_prefixes(("10.0.0.5", "172.16.0.0/24"))
    routes: RouteTable[str] = RouteTable()
    routes.set(prefixes, "old")
    routes.set(prefixes, "new")
    routes.remove("old")
    assert find(routes, "10.0.0.5") == find(routes, "172.16.0.9") == "new"
    routes.remove("new")
    assert find(routes, "10.0.0.5") is find(routes, "172.16.0.9") is None


def test_a_removed_longer_prefix_uncovers_the_shorter() -> None:
    routes = table(a=("10.0.0.0/8",), b=("10.1.0.0/16",))
    routes.remove("b")
    assert find(routes, "10.1.0.1") == "a"


def test_prefixes_that_are_nobodys_any_more() -> None:
    told: list[tuple[Prefix, str | None]] = []
    routes: RouteTable[str] = RouteTable(lambda prefix, owner: told.append((prefix, owner)))
    kept, gone = parse_prefixes(("10.0.0.0/8", "10.1.0.0/16"))
    routes.set((kept, gone), "a")
    routes.discard((gone, *parse_prefixes(("10.9.0.0/16",))))
    assert find(routes, "10.1.0.1") == "a"
    assert told == [(kept, "a"), (gone, "a"), (gone, None)]


@pytest.mark.parametrize("text", ["10.0.0.1/24", "10.0.0.256", "", "fd00::1/64", "10.0.0.0/33", "site"])
def test_bad_prefix(text: str) -> None:
    with pytest.raises(ValueError, match=r"^."):
        parse_prefixes((text,))
