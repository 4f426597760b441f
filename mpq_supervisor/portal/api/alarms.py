"""The alarms: what is wrong now, who has seen it, and what is not to be told."""

from __future__ import annotations

import time
from typing import Annotated, Any

from litestar import Request
from litestar.exceptions import NotFoundException, TooManyRequestsException
from litestar.params import Parameter
from litestar.status_codes import HTTP_200_OK, HTTP_204_NO_CONTENT

from mpq_supervisor.portal.alarms import Alarm, Silence
from mpq_supervisor.portal.api.models import AlarmList, NewSilence
from mpq_supervisor.portal.api.routes import delete, get, post
from mpq_supervisor.portal.auth import Role
from mpq_supervisor.portal.parts import parts_of, who_of

Rule = Annotated[str, Parameter(max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]
Subject = Annotated[str, Parameter(max_length=64, pattern=r"^[A-Za-z0-9_.-]+$")]


@get("/alarms", tags=["alarms"])
async def alarms(request: Request[Any, Any, Any]) -> AlarmList:
    """Those that are raised now, and the silences."""
    found = parts_of(request).watch.alarms
    return AlarmList(tuple(found.active.values()), tuple(found.silences.values()))


@post(
    "/alarms/{rule:str}/{subject:str}/acknowledge",
    tags=["alarms"],
    opt={"role": Role.OPERATOR},
    status_code=HTTP_200_OK,
)
async def acknowledge(request: Request[Any, Any, Any], rule: Rule, subject: Subject) -> Alarm:
    """Say that you know; it stays raised until it is over."""
    parts, who = parts_of(request), who_of(request)
    key = f"{rule}/{subject}"
    before = parts.watch.alarms.active.get(key)
    alarm = parts.watch.alarms.acknowledge(key, who.name)
    if before is None or alarm is None:
        raise NotFoundException(f'no alarm "{key}" is raised')
    parts.watch.save()
    parts.audit(who, f"acknowledge {key}", before.acknowledged or "nobody", who.name)
    return alarm


@post("/silences", tags=["alarms"], opt={"role": Role.OPERATOR})
async def silence(request: Request[Any, Any, Any], data: NewSilence) -> Silence:
    """Raise such alarms, but tell nobody, for a while."""
    parts, who = parts_of(request), who_of(request)
    made = parts.watch.alarms.silence(data.rule, data.subject, time.time() + 60 * data.minutes, who.name, data.reason)
    if made is None:
        raise TooManyRequestsException("there are too many silences")
    parts.watch.save()
    what = f"{data.rule or 'any rule'}/{data.subject or 'all'}"
    parts.audit(who, f"silence {what}", "told", f"silent for {data.minutes} min: {data.reason}")
    return made


@delete("/silences/{number:int}", tags=["alarms"], opt={"role": Role.OPERATOR}, status_code=HTTP_204_NO_CONTENT)
async def unsilence(request: Request[Any, Any, Any], number: int) -> None:
    """End a silence."""
    parts, who = parts_of(request), who_of(request)
    if parts.watch.alarms.silences.pop(number, None) is None:
        raise NotFoundException(f"no silence {number}")
    parts.watch.save()
    parts.audit(who, f"silence {number}", "silent", "told")
