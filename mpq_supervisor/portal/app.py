"""The portal's web application: what it serves, to whom, and what every answer has in common."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from litestar import Litestar, Request, Response, get
from litestar.connection import ASGIConnection
from litestar.datastructures import State as AppState
from litestar.exceptions import NotAuthorizedException, PermissionDeniedException, TooManyRequestsException
from litestar.handlers import BaseRouteHandler
from litestar.openapi.config import OpenAPIConfig

from mpq_supervisor import __version__
from mpq_supervisor.portal.auth import Denied, Gate, Role
from mpq_supervisor.portal.exposition import Exposition
from mpq_supervisor.portal.state import State

MAX_BODY = 512 * 1024

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What the handlers work with."""

    state: State
    gate: Gate
    exposition: Exposition


def make_app(parts: Parts) -> Litestar:
    """Serves `parts`."""
    return Litestar(
        route_handlers=[metrics],
        guards=[guard],
        state=AppState({"parts": parts}),
        request_max_body_size=MAX_BODY,
        openapi_config=OpenAPIConfig(title="mpq", version=__version__),
        after_request=harden,
        logging_config=None,
    )


def parts_of(connection: ASGIConnection[Any, Any, Any, Any]) -> Parts:
    """Of the application that a request came to."""
    parts: Parts = connection.app.state.parts
    return parts


def guard(connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler) -> None:
    """Lets in who has the role that the handler's `role` asks for (a viewer's by default); None: everybody."""
    needed: Role | None = handler.opt.get("role", Role.VIEWER)
    if needed is None:
        return
    client = connection.client.host if connection.client else ""
    authorization = connection.headers.get("authorization", "")
    try:
        who = parts_of(connection).gate.admit(authorization, client, time.monotonic(), datetime.now(UTC).date())
    except Denied as denied:
        if denied.locked:
            raise TooManyRequestsException(str(denied), headers={"Retry-After": f"{denied.locked:.0f}"}) from denied
        raise NotAuthorizedException(str(denied), headers={"WWW-Authenticate": "Bearer"}) from denied
    if who.role < needed:
        raise PermissionDeniedException(f"{who.name} is {who.role.name.lower()}, not {needed.name.lower()}")
    connection.state.who = who


async def harden(response: Response[Any]) -> Response[Any]:
    """What a browser must know of every answer."""
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Cache-Control", "no-store")
    return response


@get("/metrics", include_in_schema=False)
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """For Prometheus."""
    page, content_type = parts_of(request).exposition.render(request.headers.get("accept", ""))
    return Response(page, media_type=content_type)
