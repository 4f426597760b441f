"""What the API says and takes besides what other modules have: the Structs that OpenAPI describes. Pure."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from mpq_supervisor.edit import Value, Word
from mpq_supervisor.orders import WorkerChange
from mpq_supervisor.portal.history.query import Point
from mpq_supervisor.portal.history.samples import Event
from mpq_supervisor.portal.state import Tunnel
from mpq_supervisor.status import WorkerStatus

Action = Literal["start", "stop", "restart"]
Level = Literal["info", "warning", "error"]


class Problem(msgspec.Struct, frozen=True):
    """An answer that is a refusal."""

    status_code: int
    detail: str
    extra: Any = None


class Health(msgspec.Struct, frozen=True):
    """`ok` while the supervisor is heard of; `stale` when not for five seconds."""

    status: Literal["ok", "stale"]
    version: str


class Info(msgspec.Struct, frozen=True):
    """The host. Seconds, bytes, Unix time; `you` is whose token it was."""

    version: str
    role: str
    name: str
    time: float
    uptime: float
    heard: float  # when the supervisor told of itself last
    supervisor_pid: int
    zygote_losses: int
    sites: tuple[str, ...]
    guarded: dict[str, int]  # packets of strangers that nftables dropped
    history_bytes: int
    history_lost_seconds: int
    you: str
    your_role: str


class Ordered(msgspec.Struct, frozen=True):
    """An order that the supervisor has taken; what becomes of it shows in the tunnel's state."""

    tunnel: str
    action: Action
    state: str


class ConfigChange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """New values by the paths of `ConfigField`s; null is the default."""

    changes: Annotated[dict[str, Value], Meta(min_length=1, max_length=50)]


class ChangedField(msgspec.Struct, frozen=True):
    """A field as it was and is, as text."""

    path: str
    old: str | None
    new: str | None
    effect: Word
    coupled: bool


class ConfigChanged(msgspec.Struct, frozen=True):
    """What was changed, or would be, and what becomes of which worker: restart, add, remove, sites; others go on."""

    fields: tuple[ChangedField, ...]
    workers: dict[str, WorkerChange]


class Sample(msgspec.Struct, frozen=True):
    """One metric's value; a histogram's are its counts by upper bound (`+Inf` is all) and its sum."""

    name: str
    labels: dict[str, str]
    value: float


class LogLine(msgspec.Struct, frozen=True):
    """A line of the supervisor's log."""

    t: float
    level: Level
    kind: str
    text: str


class HistoryAnswer(msgspec.Struct, frozen=True):
    """`points` are `step` seconds apart; where one is missing, nothing was recorded."""

    name: str
    since: int
    until: int
    step: int
    points: tuple[Point, ...]


class Indicators(msgspec.Struct, frozen=True):
    """A class or tunnel on one day (UTC), as contracts measure.

    `availability` is of the seconds that were seen and in which nobody had it stopped; None where none was. Round
    trips are seconds, by quantile; loss is the worse way's.
    """

    day: str
    name: str
    kind: str
    availability: float | None
    seconds_seen: int
    rtt: dict[str, float]
    loss: dict[str, float]
    bytes_in: int
    bytes_out: int


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A configuration to be looked at: the whole text of a file."""

    toml: str


class Verdict(msgspec.Struct, frozen=True):
    """`problems` as `mpq-supervisor check` prints them; files and users of the host are not looked at."""

    good: bool
    problems: tuple[str, ...]


class TunnelStatus(WorkerStatus, frozen=True, kw_only=True):
    """A tunnel as it was `age` seconds ago, when it was heard of last: about one, unless the supervisor hangs."""

    age: float


class Glance(msgspec.Struct, frozen=True):
    """What `stream` sends as `status`, once a second and when something changed. `age` is how long ago the supervisor
    was heard last: from five seconds on nobody knows how the tunnels are."""

    t: float
    age: float
    uptime: float
    sites: tuple[str, ...]
    tunnels: tuple[TunnelStatus, ...]


def tunnel_status(tunnel: Tunnel, now: float) -> TunnelStatus:
    """Of a tunnel at monotonic time `now`."""
    return TunnelStatus(**msgspec.structs.asdict(tunnel.status), age=now - tunnel.heard)


class EventPage(msgspec.Struct, frozen=True):
    """Oldest first; `before` is what to ask with for those before them, None where there are none."""

    events: tuple[Event, ...]
    before: int | None
