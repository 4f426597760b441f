"""Bytes over one TCP connection, every one of them compared with what it should be.

    python -m tools.transfer receive PORT              "ready", and at the end a line of JSON (`Received`)
    python -m tools.transfer send TARGET PORT SIZE [DEVICE]

Both ends know the stream: the same random block again and again, of a length that no segment or buffer divides. The
receiver stops at the first byte that is another.
"""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import time
from typing import IO, cast

import msgspec

from tools.sockets import Via
from tools.stage import Stage
from tools.topology import Role

BLOCK = (1 << 20) + 7
PIECE = 1 << 18
PATIENCE = 60.0
"""Seconds in which something must come."""


class Received(msgspec.Struct, frozen=True):
    """Bytes that came before the stream ended or was wrong, in `seconds`; where the first wrong one was, or None."""

    size: int
    seconds: float
    wrong_at: int | None

    @property
    def mbit(self) -> float:
        """Mbit/s; 0 where nothing came."""
        return self.size * 8e-6 / self.seconds if self.seconds else 0.0


class Transfer:
    """A transfer on its way between two namespaces of a stage."""

    def __init__(
        self, stage: Stage, sender: Role, receiver: Role, target: str, port: int, size: int, via: Via
    ) -> None:
        tool = [sys.executable, "-m", "tools.transfer"]
        self._far = stage.exec(receiver, [*tool, "receive", str(port)], stdout=subprocess.PIPE)
        if cast(IO[bytes], self._far.stdout).readline() != b"ready\n":
            raise RuntimeError("the receiver does not listen")
        self._near = stage.exec(sender, [*tool, "send", target, str(port), str(size), via.device])
        self.size = size

    def result(self) -> Received:
        """What came, when no more does."""
        received = msgspec.json.decode(self._far.communicate()[0], type=Received)
        self._near.wait()
        return received


class Stream:
    """What is sent, and what therefore has to come."""

    def __init__(self) -> None:
        block = random.Random(1).randbytes(BLOCK)
        self._bytes = bytearray(block + block[:PIECE])
        self.size = 0
        """Bytes so far."""

    def next_piece(self, limit: int) -> memoryview:
        """What comes next, at most `limit` bytes of it; whoever takes it adds to `size`."""
        at = self.size % BLOCK
        return memoryview(self._bytes)[at : at + min(PIECE, limit)]

    def find_wrong(self, piece: bytes | bytearray) -> int | None:
        """Compare what came next, at most `PIECE` bytes; the place of the first wrong byte in the stream, or None."""
        at = self.size % BLOCK
        expected = self._bytes[at : at + len(piece)]
        if piece == expected:
            self.size += len(piece)
            return None
        pairs = zip(piece, expected, strict=True)
        return self.size + next(i for i, (came, should) in enumerate(pairs) if came != should)


def send(target: str, port: int, size: int, device: str = "") -> None:
    """Connect and send the stream's first `size` bytes."""
    stream = Stream()
    with socket.socket(socket.AF_INET6 if ":" in target else socket.AF_INET, socket.SOCK_STREAM) as sock:
        if device:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.settimeout(PATIENCE)
        sock.connect((target, port))
        while stream.size < size:
            stream.size += sock.send(stream.next_piece(size - stream.size))


def receive(port: int) -> Received:
    """Take one connection and compare what comes by it, to its end."""
    stream, buffer = Stream(), bytearray(PIECE)
    with socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        print("ready", flush=True)
        server.settimeout(PATIENCE)
        connection = server.accept()[0]
    with connection:
        connection.settimeout(PATIENCE)
        start, wrong_at = time.monotonic(), None
        while wrong_at is None and (got := connection.recv_into(buffer)):
            wrong_at = stream.find_wrong(buffer[:got])
        return Received(stream.size, time.monotonic() - start, wrong_at)


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:])
    else:
        print(msgspec.json.encode(receive(int(sys.argv[2]))).decode())
