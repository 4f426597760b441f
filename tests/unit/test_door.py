"""Who is let in to the portal, for how long, and with how much; real connections, and limits that are soon met."""

from __future__ import annotations

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from mpq_supervisor import pki
from mpq_supervisor.portal import connection, door
from mpq_supervisor.portal.connection import MAX_HEAD, MAX_HEADERS, MAX_PIPELINED, MAX_REQUEST, Connection
from mpq_supervisor.portal.door import Door
from mpq_supervisor.portal.state import Refusal

GOOD = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ANSWER = b"HTTP/1.1 200 OK\r\n"
Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Serving:
    """A door, and an application that answers with how many headers and how much of a body it has got."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.refused: Counter[Refusal] = Counter()
        self.pause = 0.0
        config = uvicorn.Config(self._app, lifespan="off", interface="asgi3", log_config=None, access_log=False)
        config.load()
        state = uvicorn.Server(config).server_state
        self.door = Door(
            [("127.0.0.1", 0)], tls, lambda leave: Connection(config, state, self.refused, leave), self.refused
        )
        self.port = self.door._sockets[0].getsockname()[1]
        self.clients: list[asyncio.StreamWriter] = []

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        while more:
            message = await receive()
            size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        await asyncio.sleep(self.pause)
        body = f"{len(scope['headers'])} headers, {size} bytes".encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def client(self, sent: bytes = b"", source: str = "127.0.0.1", **settings: Any) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, local_addr=(source, 0), **settings)
        self.clients.append(writer)
        writer.write(sent)
        return reader, writer

    async def present(self, count: int) -> None:
        """Until so many are inside."""
        while self.door._present.total() != count:  # noqa: ASYNC110 - the loop's own doings
            await asyncio.sleep(0.001)


@asynccontextmanager
async def serving(tls: ssl.SSLContext | None = None) -> AsyncIterator[Serving]:
    served = Serving(tls)
    served.door.open()
    try:
        async with asyncio.timeout(10):
            yield served
    finally:
        for writer in served.clients:
            writer.transport.abort()
        async with asyncio.timeout(5):
            await served.present(0)
        served.door.close()
        await asyncio.sleep(0)


def running(body: Callable[[Serving], Awaitable[None]], tls: ssl.SSLContext | None = None) -> None:
    async def run() -> None:
        async with serving(tls) as served:
            await body(served)

    asyncio.run(run())


async def end_of(client: Client) -> bytes:
    """What comes until the other end closes or resets."""
    try:
        return await client[0].read()
    except ConnectionError:
        return b""


def test_idle_connections_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "MAX_FROM_ONE", 3)
    monkeypatch.setattr(door, "MAX_CONNECTIONS", 5)

    async def body(served: Serving) -> None:
        for _ in range(3):
            await served.client()
        await served.present(3)
        assert await end_of(await served.client(GOOD)) == b""
        reader, writer = await served.client(GOOD, source="127.0.0.2")
        assert await reader.readline() == ANSWER
        await served.client(source="127.0.0.3")
        await served.present(5)
        assert await end_of(await served.client(GOOD, source="127.0.0.4")) == b""
        writer.close()
        await served.present(4)
        reader, _ = await served.client(GOOD, source="127.0.0.4")
        assert await reader.readline() == ANSWER
        assert served.refused == {Refusal.SOURCE: 1, Refusal.FULL: 1}

    running(body)


@pytest.mark.parametrize(
    "beginning",
    [
        b"",
        b"\r\n",
        b"GET / HTTP/1.1\r\nHost: ",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n1",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1",
        GOOD + b"\r\nGET",
    ],
)
def test_a_request_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch, beginning: bytes) -> None:
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 0.1)

    async def body(served: Serving) -> None:
        await end_of(await served.client(beginning))
        assert served.refused == {Refusal.SLOW: 1}

    running(body)


def test_a_drop_now_and_then_buys_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 0.2)

    async def body(served: Serving) -> None:
        reader, writer = await served.client(GOOD)
        await reader.readuntil(b"bytes")
        while not reader.at_eof():
            writer.write(b"\r\n")
            try:
                async with asyncio.timeout(0.05):
                    await reader.read(1)
            except (TimeoutError, ConnectionError):
                if reader.exception():
                    break
        assert served.refused == {Refusal.SLOW: 1}

    running(body)


def test_an_answer_may_take_longer_than_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "REQUEST_TIMEOUT", 0.05)

    async def body(served: Serving) -> None:
        served.pause = 0.2
        reader, writer = await served.client(GOOD)
        assert (await reader.readuntil(b"bytes")).startswith(ANSWER)
        writer.write(GOOD)
        assert (await reader.readuntil(b"bytes")).startswith(ANSWER)
        assert not served.refused

    running(body)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02",
        b"CONNECT x:1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        b"GET / HTTP/1.1\r\na: " + b"b" * (MAX_HEAD + 1) + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\na: " + b"b" * (8 * MAX_HEAD),
        b"GET /" + b"b" * (8 * MAX_HEAD),
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 2 * MAX_REQUEST + b"\r\n1",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\na: " + b"x" * 2 * MAX_REQUEST,
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n1",
    ],
)
def test_what_is_no_request_or_too_much_is_refused(request_: bytes) -> None:
    async def body(served: Serving) -> None:
        client = await served.client(request_)
        assert (await end_of(client))[:12] in (b"HTTP/1.1 400", b"")  # a reset may overtake the answer
        assert served.refused == {Refusal.REQUEST: 1}

    running(body)


def test_only_so_many_requests_may_be_ahead_of_their_answers() -> None:
    async def body(served: Serving) -> None:
        reader, _ = await served.client(GOOD * MAX_PIPELINED)
        for _ in range(MAX_PIPELINED):
            await reader.readuntil(b"bytes")
        await end_of(await served.client(GOOD * (MAX_PIPELINED + 2)))
        assert served.refused == {Refusal.REQUEST: 1}

    running(body)


def test_headers_behind_a_body_are_none() -> None:
    async def body(served: Serving) -> None:
        reader, _ = await served.client(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n1\r\n0\r\nAuthorization: Bearer x\r\n\r\n"
        )
        assert (await reader.readuntil(b"bytes")).endswith(b"1 headers, 1 bytes")

    running(body)


def test_handshakes_are_counted_and_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(door, "MAX_FROM_ONE", 2)
    authority = pki.issue_authority()
    pki.save(authority, tmp_path, "ca")
    pki.save(pki.issue_hub(authority, "portal.test"), tmp_path, "portal")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "portal.crt", tmp_path / "portal.key")
    trusted = ssl.create_default_context(cafile=tmp_path / "ca.crt")

    async def body(served: Serving) -> None:
        _, idle = await served.client()
        reader, writer = await served.client(GOOD, ssl=trusted, server_hostname="portal.test")
        assert await reader.readline() == ANSWER
        assert await end_of(await served.client()) == b""
        idle.close()
        await served.present(1)
        monkeypatch.setattr(door, "REQUEST_TIMEOUT", 0.1)
        assert await end_of(await served.client()) == b""
        await served.present(1)
        assert await end_of(await served.client(GOOD)) == b""
        await served.present(1)
        assert served.refused == {Refusal.SOURCE: 1, Refusal.HANDSHAKE: 3}
        writer.close()

    running(body, tls)
