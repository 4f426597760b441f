"""What mpq uses of aioquic's insides: all of it is listed, and all that is listed is still there."""

from __future__ import annotations

import ast
import inspect
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.recovery import QuicPacketPacer
from aioquic.quic.stream import QuicStream

import mpq_worker.quic.connection
from mpq_worker.quic.connection import PRIVATE_NAMES, Connection
from mpq_worker.quic.keys import KeyRing
from mpq_worker.quic.recovery import Pacer
from tests.unit.sessions import Pair

SOURCES = sorted(Path(mpq_worker.quic.connection.__file__).parent.glob("*.py"))
PREFIXES = ("", "_loss.", "tls.", "receiver.")
OURS = {"_is_client", "_configuration", "_events", "_loss._send_probe", "tls._is_client", "receiver._events"}
"""Our classes have such names, too."""


def whole(connection: QuicConnection) -> SimpleNamespace:
    """A connection and, under `receiver`, the receiving part of a stream."""
    return SimpleNamespace(connection=connection, receiver=QuicStream(0).receiver)


def find(where: SimpleNamespace, name: str) -> object:
    return attrgetter(name)(where if name.startswith("receiver.") else where.connection)


@pytest.fixture(scope="module")
def stock() -> SimpleNamespace:
    connection = QuicConnection(configuration=QuicConfiguration(is_client=True, server_name="hub.test"))
    connection.connect(("192.0.2.1", 1), now=0.0)
    return whole(connection)


@pytest.fixture(scope="module")
def live() -> list[SimpleNamespace]:
    pair = Pair()
    pair.connect()
    return [whole(pair.site._connection), whole(pair.hub._connection)]


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_the_installed_aioquic_has(stock: SimpleNamespace, live: list[SimpleNamespace], name: str) -> None:
    for where in (stock, *live):
        try:
            find(where, name)
        except AttributeError:
            pytest.fail(f"aioquic changed {name}; mpq_worker/quic has to be looked at before the pin moves")


def test_nothing_else_is_used(stock: SimpleNamespace) -> None:
    """Every private name in the package, of attribute or method, that aioquic's objects have stands in the list."""
    used = set()
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            name = getattr(node, "attr", None) if isinstance(node, ast.Attribute) else getattr(node, "name", None)
            if isinstance(name, str) and name.startswith("_") and not name.startswith("__"):
                used.add(name)
    theirs = set()
    for name in (prefix + name for prefix in PREFIXES for name in used):
        try:
            find(stock, name)
        except AttributeError:
            continue
        theirs.add(name)
    assert sorted(theirs - OURS - set(PRIVATE_NAMES)) == [], "used, but not in PRIVATE_NAMES"
    assert sorted(set(PRIVATE_NAMES) - theirs) == [], "in PRIVATE_NAMES, but not used any more"


@pytest.mark.parametrize(
    ("ours", "theirs"), [(Connection, QuicConnection), (KeyRing, CryptoPair), (Pacer, QuicPacketPacer)]
)
def test_what_is_overridden_is_called_as_before(ours: type, theirs: type) -> None:
    for name, method in vars(ours).items():
        inherited = getattr(theirs, name, None)
        if inspect.isfunction(method) and inherited is not None and name != "__init__":
            expected = list(inspect.signature(inherited).parameters)
            assert list(inspect.signature(method).parameters) == expected, f"aioquic changed {theirs.__name__}.{name}"


def test_our_pair_shares_no_attribute_with_aioquics_by_accident() -> None:
    """A new attribute of theirs that had the name of one of ours would be overwritten unnoticed."""
    clash = set(vars(KeyRing())) - set(vars(CryptoPair()))
    assert not {name for name in clash if hasattr(CryptoPair, name)}
    added = {"_slot", "_reset_token", "ring", "control", "_issue", "_hold_to_bounds", "host_cid_list", "peer_token"}
    stock = QuicConnection(configuration=QuicConfiguration(is_client=True))
    assert not {name for name in added if hasattr(stock, name)}
