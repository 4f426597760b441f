"""The control socket: one request per connection, a line of JSON each way.

Who may connect is a matter of the socket's owner, group and mode, and is checked once more by SO_PEERCRED. A
client can cost a connection for a few seconds, never the supervisor's attention.
"""

from __future__ import annotations

import asyncio
import contextlib
import grp
import logging
import os
import pwd
import re
import socket
import struct
from pathlib import Path
from typing import Protocol

import msgspec

from mpq_supervisor import happenings, lifecycle
from mpq_supervisor.change import ChangeRefused, Configuration, FileDiffers
from mpq_supervisor.classifier import Packet
from mpq_supervisor.classify import Verdict, parse_packet, rule_counts
from mpq_supervisor.effects import Preview, describe
from mpq_supervisor.events import Kind, marks
from mpq_supervisor.fleet import Fleet
from mpq_supervisor.inquiry import Inquiry
from mpq_supervisor.lifecycle import State
from mpq_supervisor.plan import UnknownName, select
from mpq_supervisor.requests import (
    ALARM_VERBS,
    LOOKING,
    MAX_REQUEST,
    MAX_WAIT,
    PORTAL_VERBS,
    SOCKET_NAME,
    Code,
    Request,
    Response,
    decode_request,
)
from mpq_worker.errors import HostFault

MAX_CLIENTS = 16
IO_TIMEOUT = 5.0

log = logging.getLogger(__name__)


class Classifier(Protocol):
    """What `classify` asks of `host.Host`."""

    def classify(self, packet: Packet) -> tuple[Verdict, ...]: ...

    def counters(self) -> dict[str, int]: ...


class Control:
    """Serves `ctl` for one fleet."""

    def __init__(self, fleet: Fleet, configuration: Configuration, classifier: Classifier, inquiry: Inquiry) -> None:
        self._fleet = fleet
        self._configuration = configuration
        self._classifier = classifier
        self._inquiry = inquiry
        self._clients = 0
        self._group: int | None = None
        self._server: asyncio.Server | None = None
        self._path: Path | None = None
        self._attending: asyncio.Task[None] | None = None

    async def start(self, directory: Path, group: str) -> None:
        """Listens in `directory`. Without such a group only our own user and root may connect."""
        path = self._path = directory / SOCKET_NAME
        path.unlink(missing_ok=True)
        with contextlib.suppress(KeyError):
            self._group = grp.getgrnam(group).gr_gid
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            sock.bind(str(path))
        finally:
            os.umask(mask)
        if self._group is None:
            log.warning('no group "%s": only uid %d may use %s', group, os.geteuid(), path)
        else:
            os.chown(path, -1, self._group)
            os.chmod(path, 0o660)
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=MAX_REQUEST)

    def close(self) -> None:
        """Stops listening; nothing is left to connect to."""
        if self._server is not None and self._path is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        if self._attending is not None:
            self._attending.cancel()

    def attend(self, sock: socket.socket) -> None:
        """Takes the portal's requests from `sock`, one after the other, until its end; the last one's are dropped."""
        if self._attending is not None:
            self._attending.cancel()
        self._attending = asyncio.get_running_loop().create_task(self._attend(sock))

    async def _attend(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=sock, limit=MAX_REQUEST)
        try:
            while line := await reader.readuntil():
                writer.write(msgspec.json.encode(await self._respond_to_portal(line)) + b"\n")
                await writer.drain()
        except (asyncio.LimitOverrunError, asyncio.IncompleteReadError, ConnectionError) as error:
            log.debug("control: portal gone: %s", error)
        finally:
            writer.close()

    async def _respond_to_portal(self, line: bytes) -> Response:
        request = decode_request(line)
        if isinstance(request, Response):
            return request
        if request.command not in PORTAL_VERBS:
            return Response(Code.REFUSED, (f"{request.command} is not for the portal",))
        if request.command == "answer":
            return self._inquiry.answer(request)
        if request.command not in LOOKING:
            self._log(f"portal for {request.by}", request)
        return await self._execute(msgspec.structs.replace(request, wait=0.0))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients += 1
        try:
            response = await self._respond(reader, writer)
            writer.write(msgspec.json.encode(response) + b"\n")
            async with asyncio.timeout(IO_TIMEOUT):
                await writer.drain()
        except (TimeoutError, ConnectionError) as error:
            log.debug("control: client gone: %s", error)
        finally:
            self._clients -= 1
            writer.close()

    async def _respond(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Response:
        async with asyncio.timeout(IO_TIMEOUT):
            try:
                line = await reader.readuntil()
            except (asyncio.LimitOverrunError, asyncio.IncompleteReadError) as error:
                return Response(Code.USAGE, (f"not a request: {error}",))
        uid, permitted = self._peer(writer)
        if not permitted:
            log.warning("control: uid %d refused", uid)
            return Response(Code.REFUSED, ("you may not control this supervisor",))
        if self._clients > MAX_CLIENTS:
            return Response(Code.REFUSED, (f"{MAX_CLIENTS} others are connected",))
        request = decode_request(line)
        if isinstance(request, Response):
            return request
        if request.command == "answer":
            return Response(Code.REFUSED, ("answers are the portal's",))
        if request.command in ALARM_VERBS:  # the portal writes down who did what
            return await self._inquiry.ask(msgspec.structs.replace(request, by=f"ctl:{_user(uid)}"))
        if request.command not in LOOKING:
            self._log(f"uid {uid}", request)
        return await self._execute(request)

    def _log(self, who: str, request: Request) -> None:
        names = " ".join(request.names)
        log.info("control: %s: %s %s", who, request.command, names, extra=marks(Kind.ORDER, reason=request.command))

    async def _execute(self, request: Request) -> Response:
        if request.command in ("plan", "reload", "commit", "confirm", "rollback"):
            return self._change(request)
        if request.command == "classify":
            return self._classify(request)
        try:
            words = request.names or ("all",)
            names = tuple(dict.fromkeys(name for word in words for name in select(self._configuration.plan, word)))
        except UnknownName as unknown:
            return Response(Code.UNKNOWN, (str(unknown),))
        code = Code.OK
        match request.command:
            case "fields" | "try" | "patch":
                return self._configure(request, names)
            case "start":
                self._fleet.command(names, happenings.StartWanted())
                code = await self._come_up(names, request.wait, {})
            case "stop":
                self._fleet.command(names, happenings.StopWanted())
                code = await self._go_down(names, request.wait)
            case "restart":
                before = {name: self._fleet.workers[name].life for name in names}
                self._fleet.command(names, happenings.RestartWanted())
                code = await self._come_up(names, request.wait, before)
        status = self._fleet.status()
        shown = tuple(worker for worker in status.workers if worker.name in names)
        return Response(code, status=msgspec.structs.replace(status, workers=shown))

    def _classify(self, request: Request) -> Response:
        plan = self._configuration.plan
        if plan.role != "site":
            return Response(Code.FAILED, ("a hub classifies nothing",))
        try:
            if not request.names:
                counters = self._classifier.counters()
                return Response(Code.OK, rules=rule_counts(plan, counters), counters=counters)
            source, destination = request.names
            verdicts = self._classifier.classify(parse_packet(source, destination, request.dscp))
        except ValueError as error:
            return Response(Code.USAGE, (str(error),))
        except HostFault as fault:
            return Response(Code.FAILED, (str(fault),))
        if not verdicts:
            return Response(Code.FAILED, (f"no [[lan]] has a route to {source}",))
        return Response(Code.OK, tuple(map(str, verdicts)), verdicts=verdicts)

    def _configure(self, request: Request, names: tuple[str, ...]) -> Response:
        if len(names) != 1:
            return Response(Code.USAGE, ("one worker at a time",))
        if request.command == "fields":
            return Response(Code.OK, fields=self._configuration.fields(names[0]))
        if request.command == "try":
            try:
                return Response(Code.OK, preview=self._configuration.foresee(names[0], request.changes))
            except ChangeRefused as refused:
                return _refusal(refused)
        try:
            preview = self._configuration.patch(names[0], request.changes)
        except ChangeRefused as refused:
            return self._refuse("patch", refused)
        return self._tell("patch", preview)

    def _change(self, request: Request) -> Response:
        configuration = self._configuration
        try:
            match request.command:
                case "confirm":
                    if configuration.confirm():
                        return Response(Code.OK, ("confirmed",))
                    return Response(Code.FAILED, ("nothing waits to be confirmed",))
                case "plan":
                    preview = configuration.preview(request.text)
                    code = Code.DIFFERENT if preview.fields or preview.workers else Code.OK
                    return Response(code, tuple(describe(preview)) or ("no difference",), preview=preview)
                case "rollback":
                    preview = configuration.rollback()
                case "commit" if request.confirm:
                    preview = configuration.commit(request.confirm)
                    last = f"goes back in {request.confirm:g} s unless `ctl confirm` comes"
                    return self._tell(request.command, preview, last)
                case _:
                    preview = configuration.reload()
        except ChangeRefused as refused:
            return self._refuse(request.command, refused)
        return self._tell(request.command, preview)

    def _refuse(self, command: str, refused: ChangeRefused) -> Response:
        for line in (*refused.lines, "refused, going on as before"):
            log.error("%s: %s", command, line, extra=marks(Kind.CONFIG))
        return _refusal(refused)

    def _tell(self, command: str, preview: Preview, *more: str) -> Response:
        lines = (*(describe(preview) or ["nothing changed"]), *more)
        for line in lines:
            log.info("%s: %s", command, line, extra=marks(Kind.CONFIG))
        return Response(Code.OK, lines, preview=preview)

    async def _come_up(self, names: tuple[str, ...], seconds: float, before: dict[str, lifecycle.Life]) -> Code:
        """Waits until all are UP, those in `before` after another start; FAILED where that restart failed."""

        def begun(name: str, life: lifecycle.Life) -> bool:
            return life.starts > before[name].starts if name in before else True

        def failed(name: str, life: lifecycle.Life) -> bool:
            return name in before and life.failed_restarts > before[name].failed_restarts

        def settled() -> bool:
            return all(
                life.state is State.FAILED or (life.state is State.UP and (begun(name, life) or failed(name, life)))
                for name, life in lives()
            )

        def lives() -> list[tuple[str, lifecycle.Life]]:
            return [(name, self._fleet.workers[name].life) for name in names if name in self._fleet.workers]

        if seconds <= 0:
            return Code.OK
        await self._fleet.wait(settled, min(seconds, MAX_WAIT))
        good = all(life.state is State.UP and begun(name, life) for name, life in lives())
        return Code.OK if good else Code.FAILED

    async def _go_down(self, names: tuple[str, ...], seconds: float) -> Code:
        def down() -> bool:
            workers = (self._fleet.workers.get(name) for name in names)
            return all(worker is None or worker.life.state is State.STOPPED for worker in workers)

        if seconds <= 0:
            return Code.OK
        return Code.OK if await self._fleet.wait(down, min(seconds, MAX_WAIT)) else Code.FAILED

    def _peer(self, writer: asyncio.StreamWriter) -> tuple[int, bool]:
        sock: socket.socket = writer.get_extra_info("socket")
        _, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid in (0, os.geteuid()):
            return uid, True
        if self._group is None:
            return uid, False
        return uid, gid == self._group or _is_member(uid, self._group)


def _user(uid: int) -> str:
    """As a word of a request: directories have names with spaces and accents, too."""
    try:
        return re.sub(r"[^!-~]", "_", pwd.getpwuid(uid).pw_name)[:64]
    except KeyError:
        return str(uid)


def _is_member(uid: int, gid: int) -> bool:
    try:
        user = pwd.getpwuid(uid)
        return user.pw_gid == gid or user.pw_name in grp.getgrgid(gid).gr_mem
    except KeyError:
        return False


def _refusal(refused: ChangeRefused) -> Response:
    code = Code.DIFFERENT if isinstance(refused, FileDiffers) else Code.FAILED
    return Response(code, tuple(refused.lines))
