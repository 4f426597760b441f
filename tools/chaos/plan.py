"""Which faults come, in which order, to whom, for how long: all from one seed. Pure.

A plan is dealt in rounds; a round holds every kind as often as its weight says, shuffled. So a short plan has seen
every kind and a long one sees them in ever new order.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

import msgspec

from tools.chaos.kinds import KINDS, Kind
from tools.product import Side


class Place(msgspec.Struct, frozen=True):
    """Where a tunnel runs: its WAN, and its worker and TUN at the hub. At the site both are called like it."""

    wan: str
    hub_worker: str
    hub_tun: str


class Fault(msgspec.Struct, frozen=True):
    """One fault. `victim` is a worker, a TUN or a WAN by name, and otherwise what the kind calls it."""

    number: int
    kind: str
    side: Side
    victim: str
    seconds: float
    tunnels: tuple[str, ...]  # those that it may touch

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.2f} s" if self.seconds else ""
        return f"{self.number:4} {self.kind:16} {self.side:4} {self.victim}{lasting}"


def make_plan(seed: int, count: int, places: Mapping[str, Place], kinds: Sequence[Kind] = KINDS) -> list[Fault]:
    """The first `count` faults of a seed against these tunnels; a longer plan begins with the shorter one."""
    chance = random.Random(seed)
    deals = islice(enumerate(_deal(chance, kinds), 1), count)
    return [_fault(number, kind, chance, places) for number, kind in deals]


def _deal(chance: random.Random, kinds: Sequence[Kind]) -> Iterator[Kind]:
    while True:
        deck = [kind for kind in kinds for _ in range(kind.weight)]
        chance.shuffle(deck)
        yield from deck


def _fault(number: int, kind: Kind, chance: random.Random, places: Mapping[str, Place]) -> Fault:
    side = chance.choice(kind.sides)
    tunnel = chance.choice(sorted(places))
    place = places[tunnel]
    seconds = round(chance.uniform(*kind.lasting), 2)
    match kind.victim:
        case "worker":
            victim = tunnel if side == "site" else place.hub_worker
        case "tun":
            victim = tunnel if side == "site" else place.hub_tun
        case "wan":
            victim = place.wan
        case other:
            victim = other
    match kind.scope:
        case "none":
            tunnels: tuple[str, ...] = ()
        case "tunnel":
            tunnels = (tunnel,)
        case "wan":
            tunnels = tuple(name for name, other_place in places.items() if other_place.wan == place.wan)
        case "all":
            tunnels = tuple(places)
    return Fault(number, kind.name, side, victim, seconds, tunnels)
