"""Which connection an inner address belongs to: exact addresses first, then prefixes, longest first. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import ip_network
from typing import Generic, TypeVar

T = TypeVar("T")
Prefix = tuple[int, int, int]
"""Bytes per address (4 or 16), prefix length, network bits as an integer."""


def parse_prefixes(texts: Iterable[str]) -> tuple[Prefix, ...]:
    """Addresses ("10.200.10.1") and networks ("172.16.2.0/24") as prefixes. Raises ValueError."""
    prefixes = []
    for text in texts:
        network = ip_network(text)
        size = network.max_prefixlen // 8
        shift = network.max_prefixlen - network.prefixlen
        prefixes.append((size, network.prefixlen, int(network.network_address) >> shift))
    return tuple(prefixes)


class RouteTable(Generic[T]):
    """Longest-prefix match; an entry dies with its owner, and no other owner can take it away.

    `changed` hears of every entry that comes or goes.
    """

    def __init__(self, changed: Callable[[Prefix, T | None], None] = lambda prefix, owner: None) -> None:
        self._changed = changed
        self._entries: dict[Prefix, T] = {}
        self._lengths: dict[int, list[int]] = {4: [], 16: []}

    def set(self, prefixes: Iterable[Prefix], owner: T) -> None:
        """`owner` takes these prefixes over."""
        for prefix in prefixes:
            self._entries[prefix] = owner
            self._changed(prefix, owner)
        self._relist()

    def remove(self, owner: T) -> None:
        """Everything that still belongs to `owner` goes."""
        for prefix in [prefix for prefix, who in self._entries.items() if who is owner]:
            del self._entries[prefix]
            self._changed(prefix, None)
        self._relist()

    def discard(self, prefixes: Iterable[Prefix]) -> None:
        """These go, whoever has them: they are nobody's any more."""
        for prefix in prefixes:
            if self._entries.pop(prefix, None) is not None:
                self._changed(prefix, None)
        self._relist()

    def lookup(self, address: bytes) -> T | None:
        """The owner of a packed address."""
        size = len(address)
        bits = int.from_bytes(address, "big")
        for length in self._lengths[size]:
            owner = self._entries.get((size, length, bits >> (8 * size - length)))
            if owner is not None:
                return owner
        return None

    def _relist(self) -> None:
        for size in self._lengths:
            self._lengths[size] = sorted({p[1] for p in self._entries if p[0] == size}, reverse=True)


def covers(prefixes: Iterable[Prefix], address: bytes) -> bool:
    """Whether a packed address lies in one of the prefixes."""
    size = len(address)
    bits = int.from_bytes(address, "big")
    return any(p[0] == size and bits >> (8 * size - p[1]) == p[2] for p in prefixes)
