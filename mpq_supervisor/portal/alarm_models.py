"""The Structs of alarms, as the API, `ctl` and webhooks tell them. Pure."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

_ONE_LINE = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*$"
"""What goes into the audit log must not look like two lines of it."""


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


class Silence(msgspec.Struct, frozen=True):
    """Alarms of this rule and subject (empty: any) are raised but not sent before `until`."""

    id: int
    rule: str
    subject: str
    until: float
    by: str
    reason: str

    def covers(self, alarm: Alarm, now: float) -> bool:
        """Whether it is meant now."""
        return now < self.until and self.rule in ("", alarm.rule) and self.subject in ("", alarm.subject)


class AlarmList(msgspec.Struct, frozen=True):
    """What is raised, and what is silenced."""

    alarms: tuple[Alarm, ...]
    silences: tuple[Silence, ...]


class NewSilence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Empty `rule` or `subject` means any."""

    minutes: Annotated[int, Meta(ge=1, le=44_640)]
    rule: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_.-]*$")] = ""
    subject: Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9_.-]*$")] = ""
    reason: Annotated[str, Meta(max_length=200, pattern=_ONE_LINE)] = ""
