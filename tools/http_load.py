"""HTTP requests at a fixed rate, and how long each took from when it was due.

    python -m tools.http_load '{"port": 8450, "token": "…", "seconds": 60, "rates": {"/api/v1/health": 100}}'

One loop, each path with as many connections as it needs, kept open. A slow answer holds up no later request: what has
to wait for a free connection has that wait in its time. A connection that was open and idle, and which the server
closes without a byte of an answer, is not a failure: the request is sent again by a new one (RFC 9112 section 9.3.1).
The report is JSON on stdout.
"""

from __future__ import annotations

import asyncio
import sys
import time

import msgspec

MAX_CONNECTIONS = 50
TIMEOUT = 10.0


class LoadOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Requests a second by path, to 127.0.0.1, with a bearer token."""

    port: int
    token: str
    seconds: float
    rates: dict[str, float]


class Answers(msgspec.Struct, frozen=True):
    """Of one path: milliseconds of each that was 200, and how many were not, or did not come."""

    took_ms: list[float]
    failed: int


async def run(order: LoadOrder) -> dict[str, Answers]:
    """Do what is ordered."""
    loads = [_Load(order, path) for path in order.rates]
    await asyncio.gather(*(load.run() for load in loads))
    return {load.path: Answers(load.took_ms, load.failed) for load in loads}


class _Load:
    def __init__(self, order: LoadOrder, path: str) -> None:
        self.path = path
        self.took_ms: list[float] = []
        self.failed = 0
        self._order = order
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {order.token}\r\n\r\n".encode()
        )
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._room = asyncio.Semaphore(MAX_CONNECTIONS)

    async def run(self) -> None:
        begin, rate = time.monotonic(), self._order.rates[self.path]
        async with asyncio.TaskGroup() as group:
            for number in range(round(self._order.seconds * rate)):
                due = begin + number / rate
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self._ask(due))
        for _, writer in self._idle:
            writer.close()

    async def _ask(self, due: float) -> None:
        try:
            async with self._room, asyncio.timeout(TIMEOUT):
                status = await self._by_an_idle_one() or await self._by_a_new_one()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            self.failed += 1
            return
        if status == 200:
            self.took_ms.append(1e3 * (time.monotonic() - due))
        else:
            self.failed += 1

    async def _by_an_idle_one(self) -> int:
        """The status, or 0 if there is none that the server has not closed."""
        while self._idle:
            reader, writer = self._idle.pop()
            try:
                return await self._exchange(reader, writer)
            except ConnectionError:
                writer.close()
            except asyncio.IncompleteReadError as error:
                writer.close()
                if error.partial:
                    raise
        return 0

    async def _by_a_new_one(self) -> int:
        return await self._exchange(*await asyncio.open_connection("127.0.0.1", self._order.port))

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        """The status of the answer; the connection is idle after it."""
        writer.write(self._request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        (length,) = (int(line.split(":")[1]) for line in head.splitlines() if line.startswith("content-length:"))
        try:
            await reader.readexactly(length)
        except (ConnectionError, asyncio.IncompleteReadError) as error:  # no idle connection: this is half an answer
            raise asyncio.IncompleteReadError(head.encode(), length) from error
        self._idle.append((reader, writer))
        return int(head.split()[1])


if __name__ == "__main__":
    answers = asyncio.run(run(msgspec.json.decode(sys.argv[1], type=LoadOrder)))
    sys.stdout.buffer.write(msgspec.json.encode(answers))
