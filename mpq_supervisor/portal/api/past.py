"""What was: the history, the events, and what each day came to."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from litestar import Request
from litestar.exceptions import NotFoundException, ServiceUnavailableException, ValidationException
from litestar.params import Parameter

from mpq_supervisor.portal.api.models import EventPage, HistoryAnswer, Indicators
from mpq_supervisor.portal.api.routes import get
from mpq_supervisor.portal.history.layout import DAY, HOUR
from mpq_supervisor.portal.history.query import History, Volume, day_of
from mpq_supervisor.portal.parts import parts_of

Word = Annotated[str, Parameter(max_length=64, pattern=r"^[A-Za-z0-9_.-]*$(?!\n)")]
Seconds = Annotated[int | None, Parameter(ge=0, le=4_102_444_800, description="Unix time, until 2100.")]
_Answer = TypeVar("_Answer")


@get("/history", tags=["history"], sync_to_thread=True)
def history(
    request: Request[Any, Any, Any],
    name: Word,
    since: Seconds = None,
    until: Seconds = None,
    points: Annotated[int, Parameter(ge=1, le=5000)] = 600,
) -> HistoryAnswer:
    """A tunnel or class over time, by default the last hour, in about as many points as asked for."""
    begin, end, now = _span(since, until, HOUR)
    names = _read(request, History.names)
    if name not in names:
        raise NotFoundException(f'nothing is recorded of "{name}"')
    series = _read(request, lambda record: record.series(name, begin, end, points, now))
    return HistoryAnswer(name, begin, end, series.step, series.points)


@get("/events", tags=["history"], sync_to_thread=True)
def events(
    request: Request[Any, Any, Any],
    since: Seconds = None,
    until: Seconds = None,
    kind: Word = "",
    tunnel: Word = "",
    name: Word = "",
    limit: Annotated[int, Parameter(ge=1, le=1000)] = 100,
    before: Annotated[int, Parameter(ge=1, le=1 << 53)] = 1 << 53,
) -> EventPage:
    """The latest events, by default of the last day; `name` is a tunnel or class, with what befell its WANs."""
    begin, end, _ = _span(since, until, DAY)
    found = _read(request, lambda record: record.events(begin, end, limit, kind, tunnel, name, before))
    return EventPage(tuple(found), found[0].id if len(found) == limit else None)


@get("/kpi", tags=["history"], sync_to_thread=True)
def kpi(request: Request[Any, Any, Any], days: Annotated[int, Parameter(ge=1, le=366)] = 31) -> list[Indicators]:
    """Availability, percentiles and volume of every class and tunnel, per day; today's are of the day so far."""
    today = day_of(time.time())
    return [_indicators(volume) for volume in _read(request, lambda record: record.days(today - days + 1, today))]


def _span(since: int | None, until: int | None, default: int) -> tuple[int, int, int]:
    now = int(time.time())
    end = now + 1 if until is None else until
    begin = max(0, end - default) if since is None else since
    if begin > end:
        raise ValidationException("since is after until")
    return begin, end, now


def _read(request: Request[Any, Any, Any], question: Callable[[History], _Answer]) -> _Answer:
    try:
        return question(parts_of(request).history)
    except sqlite3.Error as error:
        raise ServiceUnavailableException(f"history: {error}") from error


def _indicators(volume: Volume) -> Indicators:
    return Indicators(
        day=datetime.fromtimestamp(volume.day * DAY, UTC).date().isoformat(),
        name=volume.name,
        kind=volume.kind,
        availability=volume.up / volume.seen if volume.seen else None,
        seconds_seen=volume.seen,
        rtt=volume.rtt,
        loss=volume.loss,
        bytes_in=volume.bytes_in,
        bytes_out=volume.bytes_out,
    )
