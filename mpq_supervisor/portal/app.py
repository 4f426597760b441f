"""The portal's web application: what it serves where, and what every answer has in common."""

from __future__ import annotations

import logging
import time
from mimetypes import guess_type
from pathlib import Path
from typing import Any

from litestar import Litestar, Request, Response, Router, get
from litestar.datastructures import State as AppState
from litestar.enums import HttpMethod, ScopeType
from litestar.exceptions import HTTPException, NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme
from litestar.response import File
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from mpq_supervisor import __version__
from mpq_supervisor.portal.api import alarms, past, stream, system, tunnels
from mpq_supervisor.portal.api.models import Problem
from mpq_supervisor.portal.guard import guard
from mpq_supervisor.portal.parts import Parts, parts_of

STATIC = Path(__file__).with_name("static")
MAX_BODY = 512 * 1024
_FILES = {path.relative_to(STATIC).as_posix(): path for path in STATIC.rglob("*") if path.is_file()}
_OVERRIDE = b"x-http-method-override"
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
)

log = logging.getLogger(__name__)


class _Document(JsonRenderPlugin):
    """OpenAPI, with unions as what they are: an integer is a number too, so it is not `oneOf` both."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, _any_of(openapi_schema))


def make_app(parts: Parts) -> ASGIApp:
    """Serves `parts`."""
    api = Router(
        "/api/v1",
        route_handlers=[
            system.health,
            system.info,
            system.metrics,
            system.validate,
            tunnels.tunnels,
            tunnels.tunnel,
            tunnels.tunnel_metrics,
            tunnels.logs,
            tunnels.config,
            tunnels.configure,
            tunnels.start,
            tunnels.stop,
            tunnels.restart,
            past.history,
            past.events,
            past.kpi,
            stream.stream,
            alarms.alarms,
            alarms.acknowledge,
            alarms.silence,
            alarms.unsilence,
        ],
    )
    app = Litestar(
        route_handlers=[api, metrics, page, documentation, static],
        state=AppState({"parts": parts}),
        request_max_body_size=MAX_BODY,
        openapi_config=OpenAPIConfig(
            title="mpq",
            version=__version__,
            description="Tunnels of one host: how they are, how they were, and orders to them.",
            path="/api/v1/docs",
            use_handler_docstrings=True,
            render_plugins=[_Document(path="/openapi.json")],
            components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
        ),
        logging_config=None,
        exception_handlers={RecursionError: _unreadable, UnicodeDecodeError: _unreadable},
        after_exception=[_tell],
    )
    return _front(app)


@get("/", include_in_schema=False)
async def page() -> File:
    """For people."""
    return File(STATIC / "index.html", content_disposition_type="inline", media_type="text/html")


@get("/docs", include_in_schema=False)
async def documentation() -> File:
    """The API's, for people."""
    return File(STATIC / "docs.html", content_disposition_type="inline", media_type="text/html")


@get("/static/{path:path}", include_in_schema=False)
async def static(path: Path) -> File:
    """What the pages need: these files, and no other path is looked at."""
    found = _FILES.get(str(path).lstrip("/"))
    if found is None:
        raise NotFoundException
    return File(found, content_disposition_type="inline", media_type=guess_type(found.name)[0])


@get("/metrics", include_in_schema=False, guards=[guard])
async def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """For Prometheus."""
    page, content_type = parts_of(request).exposition.render(request.headers.get("accept", ""), time.monotonic())
    return Response(page, headers={"content-type": content_type})  # it has its charset


def _any_of(node: Any) -> Any:
    if isinstance(node, dict):
        return {"anyOf" if key == "oneOf" else key: _any_of(value) for key, value in node.items()}
    return [_any_of(value) for value in node] if isinstance(node, list) else node


def _unreadable(_: Request[Any, Any, Any], error: RecursionError | UnicodeDecodeError) -> Response[Problem]:
    """A body of which msgspec says so: nested too deeply, or no UTF-8."""
    return Response(Problem(400, f"the body cannot be read: {error}"), status_code=400)


async def _tell(error: Exception, scope: Scope) -> None:
    """What becomes a 500 is a defect of ours: the log has it whole."""
    if not isinstance(error, HTTPException | RecursionError | UnicodeDecodeError):
        log.error("portal: %s %r", scope.get("method"), scope["path"], exc_info=error)


def _front(app: ASGIApp) -> ASGIApp:
    """What is done to every request and answer, refusals included.

    POST with X-HTTP-Method-Override: PATCH is one, for clients that know no PATCH; no other method can be had so.
    """

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP and scope["method"] == "POST":
            values = [value.upper() for name, value in scope["headers"] if name == _OVERRIDE]
            if values == [b"PATCH"]:
                scope["method"] = HttpMethod.PATCH

        async def harden(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        await app(scope, receive, harden)

    return front
