"""What several unit tests stand on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[socket.socket]:
    """A datagram socket with a path, where systemd or journald would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "socket"))
        sock.settimeout(5)
        yield sock
