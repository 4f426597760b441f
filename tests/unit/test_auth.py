"""Tokens: who is let in, who is kept waiting, and that nobody can lock out a neighbour."""

from __future__ import annotations

from datetime import date

import pytest

from mpq_supervisor.portal.auth import MAX_CLIENTS, TRIES, WINDOW, Denied, Gate, Identity, Role, hash_of, source_of
from mpq_supervisor.schema import Token

TODAY = date(2026, 6, 1)
TOKENS = (
    Token(name="ann", role="operator", hash=hash_of("good")),
    Token(name="bob", role="viewer", hash=hash_of("other"), expires=TODAY),
)


def denied(gate: Gate, token: str, client: str = "c", now: float = 0.0) -> Denied:
    with pytest.raises(Denied) as caught:
        gate.admit(f"Bearer {token}", client, now, TODAY)
    return caught.value


def test_a_good_token_says_who_it_is() -> None:
    gate = Gate(TOKENS)
    assert gate.admit("Bearer good", "c", 0.0, TODAY) == Identity("ann", Role.OPERATOR)
    assert gate.admit("bearer  other", "c", 0.0, TODAY) == Identity("bob", Role.VIEWER)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic good", "good", "Bearer good2", "Bearer g\xf6\u20ac"]
)
def test_anything_else_is_denied(header: str) -> None:
    with pytest.raises(Denied):
        Gate(TOKENS).admit(header, "c", 0.0, TODAY)


def test_the_day_of_expiry_is_the_last() -> None:
    gate = Gate(TOKENS)
    with pytest.raises(Denied, match="expired"):
        gate.admit("Bearer other", "c", 0.0, date(2026, 6, 2))


def test_guessing_brings_a_pause_for_that_client_only() -> None:
    gate = Gate(TOKENS)
    assert [denied(gate, f"guess{n}", now=n).locked for n in range(TRIES)] == [0.0] * TRIES
    assert denied(gate, "good", now=TRIES).locked == pytest.approx(WINDOW - 1)
    assert gate.admit("Bearer good", "another", TRIES, TODAY).name == "ann"
    assert gate.admit("Bearer good", "c", TRIES - 1 + WINDOW, TODAY).name == "ann"


def test_all_addresses_of_an_ipv6_customer_are_one_guesser() -> None:
    gate = Gate(TOKENS)
    for n in range(TRIES):
        denied(gate, f"guess{n}", client=f"2001:db8:1:2::{n:x}")
    assert denied(gate, "good", client="2001:db8:1:2:ffff::1").locked > 0
    assert gate.admit("Bearer good", "2001:db8:1:3::1", 0.0, TODAY).name == "ann"


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:0:1::2", "2001:db8:0:1::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_whom_an_address_counts_as(address: str, source: str) -> None:
    assert source_of(address) == source


def test_what_was_used_well_before_passes_the_pause() -> None:
    gate = Gate(TOKENS)
    gate.admit("Bearer good", "c", 0.0, TODAY)
    for n in range(TRIES):
        denied(gate, f"guess{n}")
    assert gate.admit("Bearer good", "c", 1.0, TODAY).name == "ann"
    assert denied(gate, "other", now=1.0).locked > 0


def test_rare_mistakes_bring_none() -> None:
    gate = Gate(TOKENS)
    for n in range(3 * TRIES):
        assert denied(gate, "typo", now=n * WINDOW / (TRIES - 1)).locked == 0


def test_clients_that_are_remembered_are_bounded() -> None:
    gate = Gate(TOKENS)
    for n in range(2 * MAX_CLIENTS):
        denied(gate, "guess", client=str(n))
    assert len(gate._clients) == MAX_CLIENTS
