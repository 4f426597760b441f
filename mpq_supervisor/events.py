"""What a log line is about, beside its text: the fields that the journal and the portal get. Pure.

log.info("%s: …", name, extra=marks(Kind.STATE, worker, reason="…"))
"""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol

import msgspec

from mpq_worker.contract import TrafficClass


class Kind(StrEnum):
    """Kinds of events; a line without one is for people only."""

    STATE = "state"  # a worker's life-cycle took a step
    EXIT = "exit"  # a worker's process ended by itself
    NOTICE = "notice"  # a worker's own word
    LINK = "link"  # a WAN came, went or has another address
    ORDER = "order"  # somebody asked for something over the control socket
    CONFIG = "config"  # the configuration was read anew
    SUPERVISOR = "supervisor"  # the supervisor itself, its zygote, its portal
    ALARM = "alarm"  # a rule of the portal was broken, or holds again
    AUDIT = "audit"  # somebody changed something through the portal
    HISTORY = "history"  # the record has a gap, or goes on
    REPAIR = "repair"  # others took away something of ours in the host's network; it was put back


MESSAGE_ID = {
    Kind.STATE: "3b1c5ddc4f1b4d0c9e9c4e0ab3c8a001",
    Kind.EXIT: "3b1c5ddc4f1b4d0c9e9c4e0ab3c8a002",
    Kind.NOTICE: "3b1c5ddc4f1b4d0c9e9c4e0ab3c8a003",
    Kind.LINK: "3b1c5ddc4f1b4d0c9e9c4e0ab3c8a004",
    Kind.ORDER: "3b1c5ddc4f1b4d0c9e9c4e0ab3c8a005",
    Kind.CONFIG: "3b1c5ddc4f1b4d0c9e9c4e0ab3c8a006",
    Kind.SUPERVISOR: "3b1c5ddc4f1b4d0c9e9c4e0ab3c8a007",
    Kind.ALARM: "3b1c5ddc4f1b4d0c9e9c4e0ab3c8a008",
    Kind.AUDIT: "3b1c5ddc4f1b4d0c9e9c4e0ab3c8a009",
    Kind.HISTORY: "3b1c5ddc4f1b4d0c9e9c4e0ab3c8a00a",
    Kind.REPAIR: "3b1c5ddc4f1b4d0c9e9c4e0ab3c8a00b",
}
"""For `journalctl MESSAGE_ID=…`, see systemd.journal-fields(7)."""


class Marks(msgspec.Struct, frozen=True, omit_defaults=True):
    """Empty where a line is not about one. `traffic_class` is the class's word or "all"."""

    kind: Kind
    tunnel: str = ""
    wan: str = ""
    traffic_class: str = ""
    reason: str = ""  # one stable word where there is one, otherwise why


class About(Protocol):
    """What the plan says of one worker: `plan.TunnelPlan` and `plan.HubWorkerPlan`."""

    @property
    def name(self) -> str: ...

    @property
    def group(self) -> str: ...

    @property
    def traffic_class(self) -> TrafficClass | None: ...


def marks(kind: Kind, about: About | None = None, *, wan: str = "", reason: str = "") -> dict[str, object]:
    """The `extra` of a log line."""
    if about is None:
        return {"marks": Marks(kind, wan=wan, reason=reason)}
    return {"marks": Marks(kind, about.name, about.group, class_word(about.traffic_class), reason)}


def class_word(traffic_class: TrafficClass | None) -> str:
    """A class as people write it; "all" for a worker that carries every class."""
    return "all" if traffic_class is None else traffic_class.name.lower()
