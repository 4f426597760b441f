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
    code, lines = Code.OK, []
    match request.command:
        case "acknowledge":
            lines = [f'no alarm "{key}" is raised' for key in request.names if not deeds.acknowledge(parts, who, key)]
        case "silence" if request.silence is not None:
            lines = _silence(parts, who, request.silence)
        case "unsilence":
            lines = [f"no silence {number}" for number in request.numbers if not deeds.unsilence(parts, who, number)]
    if lines:
        code = Code.UNKNOWN
    return Response(code, tuple(lines), alarms=deeds.alarm_list(parts))


def _silence(parts: Parts, who: Identity, wanted: NewSilence) -> list[str]:
    try:
        made = deeds.silence(parts, who, wanted)
    except UnknownName as error:
        return [str(error)]
    return [] if made else ["there are too many silences"]
