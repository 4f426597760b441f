"""Lets requests in, or answers why not; every route names the role it needs."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from litestar.exceptions import NotAuthorizedException, PermissionDeniedException, TooManyRequestsException
from litestar.handlers import BaseRouteHandler

from mpq_supervisor.portal.auth import Denied, Role
from mpq_supervisor.portal.parts import Connection, parts_of


def guard(connection: Connection, handler: BaseRouteHandler) -> None:
    """A viewer's token where the handler's `role` asks for nothing else."""
    needed: Role = handler.opt.get("role", Role.VIEWER)
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
