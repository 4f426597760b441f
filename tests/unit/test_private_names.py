"""What mpq uses of aioquic's insides: all of it is listed, and all that is listed is still there."""

from __future__ import annotations

import ast
from operator import attrgetter
from pathlib import Path

import pytest
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

import mpq_worker.quic.connection
from mpq_worker.quic.connection import PRIVATE_NAMES

SOURCES = sorted(Path(mpq_worker.quic.connection.__file__).parent.glob("*.py"))


@pytest.fixture(scope="module")
def stock() -> QuicConnection:
    connection = QuicConnection(configuration=QuicConfiguration(is_client=True, server_name="hub.test"))
    connection.connect(("192.0.2.1", 1), now=0.0)
    return connection


@pytest.mark.parametrize("name", PRIVATE_NAMES)
def test_the_installed_aioquic_has(stock: QuicConnection, name: str) -> None:
    try:
        attrgetter(name)(stock)
    except AttributeError:
        pytest.fail(
            f"aioquic changed QuicConnection.{name}; mpq_worker/quic has to be looked at before the pin moves"
        )


def test_nothing_else_is_used(stock: QuicConnection) -> None:
    """Every private attribute in the package that aioquic's objects have stands in the list."""
    used = {
        node.attr
        for source in SOURCES
        for node in ast.walk(ast.parse(source.read_text()))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__")
    }
    owners = {"": stock, "_loss.": stock._loss, "tls.": stock.tls}
    theirs = {prefix + name for prefix, owner in owners.items() for name in used if hasattr(owner, name)}
    ours = {
        "_is_client",
        "_configuration",
        "_events",
        "_loss._send_probe",
        "tls._is_client",
    }  # our classes have such names, too
    assert theirs - ours - set(PRIVATE_NAMES) == set()
