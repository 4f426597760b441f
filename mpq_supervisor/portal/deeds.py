"""What people do about alarms, through the API or `ctl`: done, kept, and written down with who did it."""

from __future__ import annotations

import time

from mpq_supervisor.entries import UnknownName
from mpq_supervisor.portal.alarm_models import Alarm, AlarmList, NewSilence, Silence
from mpq_supervisor.portal.alarm_rules import MAX_SILENCES
from mpq_supervisor.portal.auth import Identity
from mpq_supervisor.portal.parts import Parts

TOO_MANY = f"there are {MAX_SILENCES} silences already"


def alarm_list(parts: Parts) -> AlarmList:
    """As it is now."""
    found = parts.watch.alarms
    return AlarmList(tuple(found.active.values()), tuple(found.silences.values()))


def acknowledge(parts: Parts, who: Identity, key: str) -> Alarm | None:
    """Somebody knows of the alarm RULE/SUBJECT; None where none is raised."""
    before = parts.watch.alarms.active.get(key)
    alarm = parts.watch.alarms.acknowledge(key, who.name)
    if before is None or alarm is None:
        return None
    parts.watch.save()
    parts.audit(who, f"acknowledge {key}", before.acknowledged or "nobody", who.name)
    return alarm


def silence(parts: Parts, who: Identity, wanted: NewSilence) -> Silence | None:
    """A new one; None where there are too many. Raises UnknownName: of what there is not nothing would be silent."""
    for word, known in ((wanted.rule, _rules(parts)), (wanted.subject, _subjects(parts))):
        if word and known and word not in known:
            raise UnknownName(word, known)
    until = time.time() + 60 * wanted.minutes
    made = parts.watch.alarms.silence(wanted.rule, wanted.subject, until, who.name, wanted.reason)
    if made is None:
        return None
    parts.watch.save()
    what = f"{wanted.rule or 'any rule'}/{wanted.subject or 'all'}"
    parts.audit(who, f"silence {what}", "told", f"silent for {wanted.minutes} min: {wanted.reason}")
    return made


def unsilence(parts: Parts, who: Identity, number: int) -> bool:
    """Ends a silence; False where there is none of that number."""
    if parts.watch.alarms.silences.pop(number, None) is None:
        return False
    parts.watch.save()
    parts.audit(who, f"silence {number}", "silent", "told")
    return True


def _rules(parts: Parts) -> set[str]:
    return {rule.name for rule in parts.state.setup.alarms}


def _subjects(parts: Parts) -> set[str]:
    """Tunnels, WANs and classes; none while it is not known which there are."""
    state = parts.state
    if not state.complete:
        return set()
    about = (tunnel.status for tunnel in state.tunnels.values())
    return {word for status in about for word in (status.name, status.wan, status.traffic_class)}
