"""A portal of its own process over a fleet of fake workers, and a client for it."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import secrets
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from datetime import date
from ipaddress import IPv4Address
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, cast

import msgspec

from mpq_supervisor.change import ChangeRefused, Configuration
from mpq_supervisor.control import Control
from mpq_supervisor.edit import ConfigField, Value
from mpq_supervisor.effects import Change, Effect, Preview
from mpq_supervisor.feed import Feed
from mpq_supervisor.inquiry import Inquiry
from mpq_supervisor.plan import HostPlan
from mpq_supervisor.portal.api.models import Problem
from mpq_supervisor.portal.auth import hash_of
from mpq_supervisor.portal_process import PortalProcess
from mpq_supervisor.schema import Portal, Token
from tests.process.bad_inputs import Input
from tests.process.conftest import Rig

FIELD = ConfigField("wan[wan5].mtu", 1400, "restart", True)
LOG = logging.getLogger("mpq_supervisor")
TOKENS = {role: secrets.token_urlsafe(32) for role in ("viewer", "operator", "admin")}
EXPIRED = secrets.token_urlsafe(32)


@dataclass(frozen=True)
class Answer:
    """Of the portal."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Portals:
    """A fleet with a control socket and a portal on a free port of 127.0.0.1."""

    def __init__(self, plan: HostPlan, runtime: Path, **portal_settings: object) -> None:
        self.directory = Path(
            tempfile.mkdtemp(prefix="mpq-portal-", dir="/var/tmp")
        )  # which the portal's uid may pass
        self.directory.chmod(0o711)
        self.port = free_port()
        tokens = [Token(name=role, role=role, hash=hash_of(token)) for role, token in TOKENS.items()]  # type: ignore[arg-type]  # the keys are roles
        tokens.append(Token(name="old", role="admin", hash=hash_of(EXPIRED), expires=date(2020, 1, 1)))
        portal = msgspec.structs.replace(
            Portal(address=(IPv4Address("127.0.0.1"),), port=self.port, token=tuple(tokens), history_mb=16),
            **portal_settings,
        )
        supervisor = msgspec.structs.replace(plan.supervisor, state_directory=str(self.directory))
        self.plan = msgspec.structs.replace(plan, portal=portal, supervisor=supervisor)
        self.rig = Rig(self.plan, runtime)
        self.feed = Feed(self.rig.fleet.status)
        configuration = SimpleNamespace(
            plan=self.plan, fields=lambda name: (FIELD,), patch=self._patch, foresee=self._foresee
        )
        self.patched: list[tuple[str, dict[str, Value]]] = []
        self.refusal: ChangeRefused | None = None
        self.trusted: ssl.SSLContext | None = None
        self.source = "127.0.0.1"
        inquiry = Inquiry(self.feed.ask)
        self.control = Control(self.rig.fleet, cast(Configuration, configuration), self.rig.network, inquiry)
        LOG.addHandler(self.feed)
        LOG.setLevel(logging.INFO)
        self.pids: list[int | None] = []
        self.portal = PortalProcess(self.feed, self.control.attend, self.pids.append)
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Portals:
        await self.rig.__aenter__()
        await self.rig.all_in("UP")
        self.portal.configure(self.plan)
        self._ticking = asyncio.create_task(self._tick())
        await self.until_answering()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.portal.close()
        assert self._ticking is not None
        self._ticking.cancel()
        self.control.close()
        await self.rig.__aexit__()
        self.remove()

    def remove(self) -> None:
        """What it has on disk and in the log."""
        LOG.removeHandler(self.feed)
        shutil.rmtree(self.directory)

    def _patch(self, name: str, changes: dict[str, Value]) -> Preview:
        """In the place of `Configuration.patch`."""
        preview = self._foresee(name, changes)
        self.patched.append((name, changes))
        return preview

    def _foresee(self, name: str, changes: dict[str, Value]) -> Preview:
        """In the place of `Configuration.foresee`."""
        if self.refusal is not None:
            raise self.refusal
        return Preview((Change(FIELD.path, "1400", "1300", Effect.RESTART, True),), {name: "restart"})

    async def _tick(self) -> None:
        while True:
            self.feed.tick(asyncio.get_running_loop().time())
            await asyncio.sleep(0.05)

    async def until_answering(self) -> None:
        """Until it serves what the feed told."""
        async with asyncio.timeout(15):
            while not await self._knows():  # noqa: ASYNC110 - another process's doings
                await asyncio.sleep(0.05)

    async def _knows(self) -> bool:
        try:
            return b"mpq_supervisor_uptime_seconds " in (await self.get("/metrics")).body
        except ConnectionError:
            return False

    async def get(self, path: str, role: str = "viewer", **headers: str) -> Answer:
        return await self.ask("GET", path, role, None, **headers)

    async def ask(self, method: str, path: str, role: str, body: object = None, **headers: str) -> Answer:
        """`role` of the token, or the token itself; nothing for none."""
        token = TOKENS.get(role, role)
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        sent |= {key.replace("_", "-"): value for key, value in headers.items()}
        data = body if isinstance(body, bytes) or body is None else msgspec.json.encode(body)
        return await asyncio.to_thread(self._ask, method, path, data, sent)

    def connect(self) -> http.client.HTTPConnection:
        """To the portal, by TLS where it has a certificate."""
        if self.trusted is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=10, source_address=(self.source, 0))
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10, context=self.trusted)

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> Answer:
        connection = self.connect()
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    async def ask_all(self, inputs: Iterable[Input], role: str) -> list[Answer]:
        """The answers to many requests, one after the other over one connection as long as it lasts."""
        return await asyncio.to_thread(self._ask_all, inputs, role)

    def _ask_all(self, inputs: Iterable[Input], role: str) -> list[Answer]:
        with closing(self.connect()) as connection:
            answers = []
            for one in inputs:
                headers = {**one.headers, "Authorization": f"Bearer {TOKENS[role]}"}
                connection.request(one.method, one.path, one.body, headers)
                response = connection.getresponse()
                answers.append(
                    Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
                )
            return answers

    async def audits(self, count: int) -> list[dict[str, Any]]:
        """The audit events, once there are so many; the history has them a second later."""
        async with asyncio.timeout(5):
            while True:
                found: list[dict[str, Any]] = (await self.get("/api/v1/events?kind=audit")).json()["events"]
                if len(found) >= count:
                    return found
                await asyncio.sleep(0.1)

    @asynccontextmanager
    async def listening(self, role: str = "viewer") -> AsyncIterator[AsyncIterator[tuple[str, Any]]]:
        """The stream: name and data of each event."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(
            b"GET /api/v1/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + TOKENS[role].encode() + b"\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")

        async def news() -> AsyncIterator[tuple[str, Any]]:
            name = ""
            while line := (await reader.readline()).decode().strip("\r\n") or "-":
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

        try:
            yield news()
        finally:
            writer.close()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def undocumented(document: Mapping[str, Any], asked: Iterable[Input], answers: Iterable[Answer]) -> list[str]:
    """Answers that `document` (OpenAPI) does not have, or not in this shape; nothing may be a 5xx."""
    found = []
    for request, answer in zip(asked, answers, strict=True):
        operation = document["paths"][request.operation].get(request.method.lower(), {})
        known = {*map(int, operation.get("responses", ())), 404, 405, *([204] if request.method == "OPTIONS" else [])}
        refusal = answer.status >= 400 and request.method != "HEAD"
        if answer.status not in known or answer.status >= 500 or (refusal and not _is_problem(answer)):
            found.append(
                f"{request.method} {request.path} {request.body!r:.200}: {answer.status} {answer.body!r:.200}"
            )
    return found


def _is_problem(answer: Answer) -> bool:
    try:
        return msgspec.json.decode(answer.body, type=Problem).status_code == answer.status
    except msgspec.MsgspecError:
        return False
