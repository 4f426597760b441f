"""The alarms: what is wrong now, who has seen it, and what is not to be told."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request
from litestar.exceptions import NotFoundException, TooManyRequestsException
from litestar.params import Parameter
from litestar.status_codes import HTTP_200_OK, HTTP_204_NO_CONTENT

from mpq_supervisor.entries import UnknownName
from mpq_supervisor.portal import deeds
from mpq_supervisor.portal.alarm_models import Alarm, AlarmList, NewSilence, Silence
from mpq_supervisor.portal.api.routes import delete, get, post
from mpq_supervisor.portal.auth import Role
from mpq_supervisor.portal.parts import parts_of, who_of

Name = Annotated[str, Parameter(max_length=64, pattern=r"^[A-Za-z0-9_.-]+$(?!\n)")]


@get("/alarms", tags=["alarms"])
async def alarms(request: Request[Any, Any, Any]) -> AlarmList:
    """Those that are raised now, and the silences."""
    return deeds.alarm_list(parts_of(request))


@post(
    "/alarms/{rule:str}/{subject:str}/acknowledge",
    tags=["alarms"],
    role=Role.OPERATOR,
    status_code=HTTP_200_OK,
)
async def acknowledge(request: Request[Any, Any, Any], rule: Name, subject: Name) -> Alarm:
    """Say that you know; it stays raised until it is over."""
    key = f"{rule}/{subject}"
    alarm = deeds.acknowledge(parts_of(request), who_of(request), key)
    if alarm is None:
        raise NotFoundException(f'no alarm "{key}" is raised')
    return alarm


@post("/silences", tags=["alarms"], role=Role.OPERATOR)
async def silence(request: Request[Any, Any, Any], data: NewSilence) -> Silence:
    """Raise such alarms, but tell nobody, for a while."""
    try:
        made = deeds.silence(parts_of(request), who_of(request), data)
    except UnknownName as error:
        raise NotFoundException(str(error)) from error
    if made is None:
        raise TooManyRequestsException(deeds.TOO_MANY)
    return made


@delete("/silences/{number:int}", tags=["alarms"], role=Role.OPERATOR, status_code=HTTP_204_NO_CONTENT)
async def unsilence(request: Request[Any, Any, Any], number: int) -> None:
    """End a silence."""
    if not deeds.unsilence(parts_of(request), who_of(request), number):
        raise NotFoundException(f"no silence {number}")
