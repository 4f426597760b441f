"""Who may do what: bearer tokens, known by their hashes only, and a pause for whoever guesses. Pure.

Guesses are counted by `source_of` an address: whoever has an IPv6 address has 2^64 of them.

A token is 256 random bits, so its hash needs no salt and no work factor (NIST SP 800-63B section 5.1.1.2 is about
secrets that people choose). The pause keeps the log and the CPU from guessers; a token that this client has used
well before passes meanwhile, so that nobody can lock his neighbours out.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import date
from enum import IntEnum
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network

import msgspec

from mpq_supervisor.schema import Token

TRIES = 5
WINDOW = 60.0
"""Seconds: so many failures within them bring a pause as long."""
MAX_CLIENTS = 1024


class Role(IntEnum):
    """Each may do what those before it may."""

    VIEWER = 1  # look
    OPERATOR = 2  # start, stop, restart; acknowledge and silence alarms
    ADMIN = 3  # change the configuration


class Identity(msgspec.Struct, frozen=True):
    """Whose token it was."""

    name: str
    role: Role


class Denied(Exception):
    """No good token: `locked` seconds to wait, where there were too many bad ones before it."""

    def __init__(self, text: str, locked: float = 0.0) -> None:
        super().__init__(text)
        self.locked = locked


@dataclass
class _Client:
    failures: list[float] = field(default_factory=list)
    locked_until: float = 0.0
    proven: set[bytes] = field(default_factory=set)


class Gate:
    """The tokens of one configuration."""

    def __init__(self, tokens: tuple[Token, ...]) -> None:
        self._tokens = [(bytes.fromhex(token.hash.removeprefix("sha256:")), token) for token in tokens]
        self._clients: OrderedDict[str, _Client] = OrderedDict()

    def admit(self, authorization: str, client: str, now: float, today: date) -> Identity:
        """Whose bearer token an Authorization header holds. `client` is the address it came from; raises Denied."""
        client = source_of(client)
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Denied("needs a bearer token")
        known = self._clients.get(client)
        digest = sha256(token.strip().encode()).digest()
        if known is not None and now < known.locked_until and digest not in known.proven:
            raise Denied("too many bad tokens", known.locked_until - now)
        found = [entry for hash_, entry in self._tokens if hmac.compare_digest(hash_, digest)]
        if not found:
            self._fail(client, now)
            raise Denied("no such token")
        if found[0].expires is not None and today > found[0].expires:
            raise Denied("this token has expired")
        self._client(client).proven.add(digest)
        return Identity(found[0].name, Role[found[0].role.upper()])

    def _fail(self, address: str, now: float) -> None:
        client = self._client(address)
        client.failures = [*(then for then in client.failures if now - then < WINDOW), now]
        if len(client.failures) >= TRIES:
            client.failures, client.locked_until = [], now + WINDOW

    def _client(self, address: str) -> _Client:
        client = self._clients.setdefault(address, _Client())
        self._clients.move_to_end(address)
        if len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)
        return client


def source_of(address: str) -> str:
    """Whom an address is counted as: itself for IPv4, its /64 for IPv6."""
    try:
        found = IPv6Address(address)
    except ValueError:
        return address
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Network((found, 64), strict=False))


def hash_of(token: str) -> str:
    """As the configuration wants it."""
    return f"sha256:{sha256(token.encode()).hexdigest()}"
