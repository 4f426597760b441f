"""The journal's native protocol, against a socket of the test's own."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from mpq_supervisor.journald import Journal, encode


def test_values_with_lines_carry_their_length() -> None:
    assert encode({"MESSAGE": "one", "PRIORITY": "6"}) == b"MESSAGE=one\nPRIORITY=6\n"
    assert encode({"MESSAGE": "a\nb"}) == b"MESSAGE\n" + (3).to_bytes(8, "little") + b"a\nb\n"
    assert encode({"MESSAGE": "\udcff"}) == b"MESSAGE=?\n"


def test_an_entry_is_a_datagram(daemon: socket.socket, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "socket")
    journal.send({"MESSAGE": "hello", "MPQ_TUNNEL": "br2"})
    assert daemon.recv(1000) == b"MESSAGE=hello\nMPQ_TUNNEL=br2\n"
    journal.close()


def test_what_is_too_long_goes_as_a_sealed_file(daemon: socket.socket, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "socket")
    journal.send({"MESSAGE": "x" * 1_000_000})
    data, (fd,), _, _ = socket.recv_fds(daemon, 10, 1)
    assert data == b""
    assert os.pread(fd, 2_000_000, 0) == b"MESSAGE=" + b"x" * 1_000_000 + b"\n"
    with pytest.raises(PermissionError):
        os.pwrite(fd, b"y", 0)
    os.close(fd)
    journal.close()


def test_it_never_waits(daemon: socket.socket, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "socket")
    with pytest.raises(BlockingIOError):
        _fill(journal)
    journal.close()


def test_nobody_is_there(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "socket")
    with pytest.raises(FileNotFoundError):
        journal.send({"MESSAGE": "hello"})
    journal.close()


def _fill(journal: Journal) -> None:
    for _ in range(10_000):
        journal.send({"MESSAGE": "nobody reads"})
