"""Decorators for the API's handlers: a viewer's token is needed, and every refusal is documented.

@get("/tunnels")                                where looking is enough
@post("/silences", role=Role.OPERATOR)          where it is not
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import litestar
from litestar.openapi.datastructures import ResponseSpec

from mpq_supervisor.portal.api.models import Problem
from mpq_supervisor.portal.auth import Role
from mpq_supervisor.portal.guard import guard

REFUSALS = {
    400: ResponseSpec(Problem, description="The request makes no sense; `extra` says where."),
    401: ResponseSpec(Problem, description="No good token."),
    403: ResponseSpec(Problem, description="The token's role may not do this."),
    404: ResponseSpec(Problem, description="No such thing here."),
    405: ResponseSpec(Problem, description="Not with this method."),
    413: ResponseSpec(Problem, description="The body is larger than 512 KiB."),
    409: ResponseSpec(Problem, description="The file is not what runs; it has to be reloaded or committed first."),
    422: ResponseSpec(Problem, description="Understood, but not possible; `extra` says what is wrong, line by line."),
    429: ResponseSpec(
        Problem, description="Too many at once, or bad tokens from this address; then Retry-After says how long."
    ),
    503: ResponseSpec(Problem, description="The supervisor or the history does not answer."),
}
"""What any operation may answer besides."""


def _route(method: Callable[..., Callable[[Any], Any]]) -> Callable[..., Callable[[Any], Any]]:
    def route(path: str, *, role: Role = Role.VIEWER, **settings: Any) -> Callable[[Any], Any]:
        needed = [{"bearer": [role.name.lower()]}]  # OpenAPI 3.1: of a bearer, the roles
        return method(path, guards=[guard], opt={"role": role}, responses=REFUSALS, security=needed, **settings)

    return route


get, post, patch, delete = map(_route, (litestar.get, litestar.post, litestar.patch, litestar.delete))
