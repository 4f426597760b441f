"""The Structs of alarms, as the API, `ctl` and webhooks tell them. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

_ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$(?!\n)"
"""What goes into the audit log must not look like two lines of it; `$` alone lets a line end follow."""
_NAME = r"^[A-Za-z0-9_.-]*$(?!\n)"


class Alarm(msgspec.Struct, frozen=True):
    """One rule broken by one subject, a tunnel or a WAN. Unix times; `acknowledged` is who did, empty: nobody."""

    id: str
    rule: str
    kind: str
    severity: str
    subject: str
    tunnel: str
    wan: str
    traffic_class: str = msgspec.field(name="class")
    value: float
    above: float
    since: float
    acknowledged: str = ""


class Over(StrEnum):
    """Why an alarm is over."""

    CLEAR = "clear"  # the value has been
    STOPPED = "stopped"  # somebody stopped the tunnel, or all of the WAN
    NOT_COVERED = "not covered"  # the rule is of others now
    RULE = "rule"  # there is no such rule any more, or it is of another kind
    GONE = "gone"  # there is no such tunnel or WAN any more


class Silence(msgspec.Struct, frozen=True):
    """Alarms of this rule (empty: any), and of this tunnel, WAN or class and its tunnels (empty: all), are raised but
    not sent before `until`."""

    id: int
    rule: str
    subject: str
    until: float
    by: str
    reason: str

    def covers(self, alarm: Alarm, now: float) -> bool:
        """Whether it is meant now."""
        of = ("", alarm.subject, alarm.wan, alarm.traffic_class)
        return now < self.until and self.rule in ("", alarm.rule) and self.subject in of


class AlarmList(msgspec.Struct, frozen=True):
    """What is raised, and what is silenced."""

    alarms: tuple[Alarm, ...]
    silences: tuple[Silence, ...]


class NewSilence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Empty `rule` or `subject` means any."""

    minutes: Annotated[int, Meta(ge=1, le=44_640)]
    rule: Annotated[str, Meta(max_length=64, pattern=_NAME)] = ""
    subject: Annotated[str, Meta(max_length=64, pattern=_NAME)] = ""
    reason: Annotated[str, Meta(max_length=200, pattern=_ONE_LINE)] = ""
