"""The tunnels: how they are, what they logged, and orders to them."""

from __future__ import annotations

import logging
import time
from typing import Annotated, Any

from litestar import Request
from litestar.exceptions import ClientException, NotFoundException, ServiceUnavailableException
from litestar.params import Parameter
from litestar.status_codes import HTTP_202_ACCEPTED, HTTP_409_CONFLICT, HTTP_422_UNPROCESSABLE_ENTITY

from mpq_supervisor.edit import WORDS, ConfigField
from mpq_supervisor.effects import Preview
from mpq_supervisor.portal.api.models import (
    Action,
    ChangedField,
    ConfigChange,
    ConfigChanged,
    Level,
    LogLine,
    Ordered,
    Sample,
    TunnelStatus,
    tunnel_status,
)
from mpq_supervisor.portal.api.routes import get, patch, post
from mpq_supervisor.portal.auth import Role
from mpq_supervisor.portal.metrics import samples
from mpq_supervisor.portal.orders import Unanswered
from mpq_supervisor.portal.parts import parts_of, who_of
from mpq_supervisor.requests import LOOKING, Code, Response
from mpq_supervisor.requests import Request as Order

Name = Annotated[
    str, Parameter(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$(?!\n)", description="As in `tunnels`.")
]
_LEVELS: dict[Level, int] = {"info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


@get("/tunnels", tags=["tunnels"])
async def tunnels(request: Request[Any, Any, Any]) -> list[TunnelStatus]:
    """All of them, in the order of the configuration."""
    now = time.monotonic()
    return [tunnel_status(tunnel, now) for tunnel in parts_of(request).state.tunnels.values()]


@get("/tunnels/{name:str}", tags=["tunnels"])
async def tunnel(request: Request[Any, Any, Any], name: Name) -> TunnelStatus:
    """One of them."""
    return tunnel_status(parts_of(request).tunnel(name), time.monotonic())


@get("/tunnels/{name:str}/metrics", tags=["tunnels"])
async def tunnel_metrics(request: Request[Any, Any, Any], name: Name) -> list[Sample]:
    """Its metrics."""
    parts = parts_of(request)
    parts.tunnel(name)
    return [Sample(*sample) for sample in samples(parts.state, time.monotonic()) if sample[1].get("tunnel") == name]


@get("/tunnels/{name:str}/logs", tags=["tunnels"])
async def logs(
    request: Request[Any, Any, Any],
    name: Name,
    lines: Annotated[int, Parameter(ge=1, le=1000)] = 100,
    level: Level = "info",
) -> list[LogLine]:
    """The latest lines about it, oldest first; the portal remembers a few thousand of all tunnels."""
    parts = parts_of(request)
    parts.tunnel(name)
    return [
        LogLine(line.at, _level(line.level), line.marks.kind if line.marks else "", line.text)
        for line in parts.state.lines(name, _LEVELS[level], lines)
    ]


@post("/tunnels/{name:str}/start", tags=["tunnels"], role=Role.OPERATOR, status_code=HTTP_202_ACCEPTED)
async def start(request: Request[Any, Any, Any], name: Name) -> Ordered:
    """Start it, where it was stopped or has failed."""
    return await _order(request, name, "start")


@post("/tunnels/{name:str}/stop", tags=["tunnels"], role=Role.OPERATOR, status_code=HTTP_202_ACCEPTED)
async def stop(request: Request[Any, Any, Any], name: Name) -> Ordered:
    """Stop it, until somebody starts it; its traffic is refused meanwhile."""
    return await _order(request, name, "stop")


@post("/tunnels/{name:str}/restart", tags=["tunnels"], role=Role.OPERATOR, status_code=HTTP_202_ACCEPTED)
async def restart(request: Request[Any, Any, Any], name: Name) -> Ordered:
    """Start it anew."""
    return await _order(request, name, "restart")


@get("/tunnels/{name:str}/config", tags=["tunnels"])
async def config(request: Request[Any, Any, Any], name: Name) -> list[ConfigField]:
    """The fields it depends on, and what a change of each does; none: nothing until the supervisor starts anew."""
    parts_of(request).tunnel(name)
    return list((await _ask(request, Order("fields", (name,)))).fields)


@patch("/tunnels/{name:str}/config", tags=["tunnels"], role=Role.ADMIN)
async def configure(
    request: Request[Any, Any, Any], name: Name, data: ConfigChange, only_try: bool = False
) -> ConfigChanged:
    """Change some of them, in the file and in what runs; or only say what that would do, or why it is refused.

    What cannot be changes nothing.
    """
    parts, who = parts_of(request), who_of(request)
    tunnel = parts.tunnel(name)
    response = await _ask(request, Order("try" if only_try else "patch", (name,), by=who.name, changes=data.changes))
    preview = response.preview or Preview((), {})
    for change in () if only_try else preview.fields:
        parts.audit(who, f"set {change.path}", change.old or "default", change.new or "default", tunnel)
    fields = (ChangedField(c.path, c.old, c.new, WORDS[c.effect], c.coupled) for c in preview.fields)
    return ConfigChanged(tuple(fields), preview.workers)


async def _ask(request: Request[Any, Any, Any], order: Order) -> Response:
    """The supervisor's answer, where it is a good one. Of what may be done though it did not say so, the audit log
    has that."""
    parts = parts_of(request)
    try:
        response = await parts.orders.ask(order)
    except Unanswered as error:
        if error.sent and order.command not in LOOKING:
            (name,) = order.names
            what = ", ".join((f"{order.command} {name}", *order.changes))
            parts.audit(who_of(request), what, "asked", f"not known: {error}", parts.state.tunnels.get(name))
        raise ServiceUnavailableException(str(error)) from error
    text = "; ".join(response.lines)
    match response.code:
        case Code.OK:
            return response
        case Code.UNKNOWN:  # gone since the portal was told of it
            raise NotFoundException(text)
        case Code.DIFFERENT:
            raise ClientException(text, status_code=HTTP_409_CONFLICT)
        case Code.FAILED:
            raise ClientException(
                "refused, nothing has changed", status_code=HTTP_422_UNPROCESSABLE_ENTITY, extra=list(response.lines)
            )
        case _:
            raise ServiceUnavailableException(text or "the supervisor refused")


async def _order(request: Request[Any, Any, Any], name: str, action: Action) -> Ordered:
    parts, who = parts_of(request), who_of(request)
    tunnel = parts.tunnel(name)
    before = tunnel.status.state
    response = await _ask(request, Order(action, (name,), by=who.name))
    workers = response.status.workers if response.status is not None else ()
    after = next((worker.state for worker in workers if worker.name == name), before)
    parts.audit(who, f"{action} {name}", before, after, tunnel)
    return Ordered(name, action, after)


def _level(number: int) -> Level:
    return "error" if number >= logging.ERROR else "warning" if number >= logging.WARNING else "info"
