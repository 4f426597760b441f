"""What `ctl` asks of the portal, through the supervisor: the alarms, and what is done about them."""

from __future__ import annotations

from mpq_supervisor.entries import UnknownName
from mpq_supervisor.portal import deeds
from mpq_supervisor.portal.alarm_models import NewSilence
from mpq_supervisor.portal.auth import Identity, Role
from mpq_supervisor.portal.parts import Parts
from mpq_supervisor.requests import Code, Request, Response


def respond(parts: Parts, request: Request) -> Response:
    """The answer; `request.by` is whom the supervisor asks for, who may do what an operator may."""
    who = Identity(request.by, Role.OPERATOR)
    lines: list[str] = []
    match request.command:
        case "acknowledge":
            lines = [f'no alarm "{key}" is raised' for key in request.names if not deeds.acknowledge(parts, who, key)]
        case "silence" if request.silence is not None:
            return _silence(parts, who, request.silence)
        case "unsilence":
            lines = [f"no silence {number}" for number in request.numbers if not deeds.unsilence(parts, who, number)]
    return _answer(parts, Code.UNKNOWN if lines else Code.OK, *lines)


def _silence(parts: Parts, who: Identity, wanted: NewSilence) -> Response:
    try:
        made = deeds.silence(parts, who, wanted)
    except UnknownName as error:
        return _answer(parts, Code.UNKNOWN, str(error))
    return _answer(parts, Code.OK) if made else _answer(parts, Code.FAILED, deeds.TOO_MANY)


def _answer(parts: Parts, code: Code, *lines: str) -> Response:
    return Response(code, lines, alarms=deeds.alarm_list(parts))
