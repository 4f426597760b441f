"""What is asked over the control socket, and answered: a line of JSON each way, see `control`. Pure."""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Annotated, Literal

import msgspec

from mpq_supervisor.classify import RuleCount, Verdict
from mpq_supervisor.edit import ConfigField, Value
from mpq_supervisor.effects import Preview
from mpq_supervisor.portal.alarm_models import AlarmList, NewSilence
from mpq_supervisor.status import HostStatus

SOCKET_NAME = "ctl.sock"
MAX_REQUEST = 2 << 20
"""Bytes; a configuration may come with it."""
MAX_ECHO = 200
"""Characters of what is said of a line that is no request: it quotes it."""
MAX_WAIT = 120.0


class Code(IntEnum):
    """How a request ended; also the exit code of `ctl`."""

    OK = 0
    FAILED = 1  # understood, but the answer is no: not UP, not in time, a configuration that cannot be used
    USAGE = 2
    UNKNOWN = 3  # no such name
    UNREACHABLE = 4
    REFUSED = 5
    DIFFERENT = 6  # `plan`: there are differences; `patch`: the file is not what runs


Verb = Literal[
    "status", "start", "stop", "restart",
    "plan", "reload", "commit", "confirm", "rollback",
    "classify",
    "fields", "try", "patch",
    "alarms", "acknowledge", "silence", "unsilence",
    "answer",
]  # fmt: skip
PORTAL_VERBS: frozenset[Verb] = frozenset({"start", "stop", "restart", "fields", "try", "patch", "answer"})
"""What the portal may ask for, whoever asks it."""
LOOKING: frozenset[Verb] = frozenset({"status", "classify", "fields", "try"})
"""What changes nothing, and is not worth a line of the log."""
ALARM_VERBS: frozenset[Verb] = frozenset({"alarms", "acknowledge", "silence", "unsilence"})
"""What the portal is asked for."""


WORD = re.compile(r"[!-~]{1,128}")
"""A name, an address or an alarm: what is none is not even told in the log."""
Word = Annotated[str, msgspec.Meta(pattern=rf"^({WORD.pattern})?$(?!\n)")]  # `$` alone lets a line end follow


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`names` as `plan.select` takes them, none meaning all; `wait` is how many seconds to wait for UP; `by` is
    for the log: whom the portal asks for.

    For classify they are source and destination as `classify.parse_packet` takes them; none asks for the counters.
    `text` is the configuration to plan for, if not the supervisor's file; `confirm` the seconds that a commit lasts,
    0 for good. `changes` are fields of one worker, see `edit`, to patch or only to try. For acknowledge `names` are
    alarms, RULE/SUBJECT; `numbers` are silences to end.
    """

    command: Verb
    names: tuple[Word, ...] = ()
    wait: float = 0.0
    by: Word = ""
    dscp: int = 0
    text: str = ""
    confirm: Annotated[float, msgspec.Meta(ge=0, le=86_400)] = 0.0
    changes: dict[str, Value] = {}
    numbers: tuple[int, ...] = ()
    silence: NewSilence | None = None


class Response(msgspec.Struct, frozen=True):
    """`lines` are for people, the rest for everything else: `status` restricted to the names, `preview` of a
    change of the configuration, answers to classify, the alarms."""

    code: Code
    lines: tuple[str, ...] = ()
    status: HostStatus | None = None
    preview: Preview | None = None
    verdicts: tuple[Verdict, ...] = ()
    rules: tuple[RuleCount, ...] = ()
    counters: dict[str, int] = {}
    alarms: AlarmList | None = None
    fields: tuple[ConfigField, ...] = ()


def decode_request(line: bytes) -> Request | Response:
    """What a client wants, or the answer to what is no request."""
    try:
        return msgspec.json.decode(line, type=Request)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return Response(Code.USAGE, (f"not a request: {str(error)[:MAX_ECHO]}",))
