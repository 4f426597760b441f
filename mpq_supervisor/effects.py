"""What a change of each configuration field does to a running host, and the differences of two configurations. Pure.

One table; a test holds it against the Structs of `schema`, another against what a reload really does.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import msgspec

from mpq_supervisor.decode import join
from mpq_supervisor.orders import WorkerChange
from mpq_supervisor.schema import Config
from mpq_supervisor.scrub import scrub


class Effect(StrEnum):
    """What a reload does about a field."""

    NONE = "nothing until the supervisor itself starts anew"
    HOT = "applied at once, no worker is touched"
    RESTART = "restarts the workers it concerns, one after the other"


class Field(NamedTuple):
    """`coupled`: the other end's configuration has to change with it."""

    effect: Effect
    coupled: bool = False


class Change(msgspec.Struct, frozen=True):
    """One difference. `old` and `new` are text without secrets (the path of a webhook's URL, a token's hash), None
    where there is none: an entry that was added or removed."""

    path: str
    old: str | None
    new: str | None
    effect: Effect
    coupled: bool


class Preview(msgspec.Struct, frozen=True):
    """What a change would do, or did: the fields that differ, and what becomes of which worker."""

    fields: tuple[Change, ...]
    workers: dict[str, WorkerChange]


_NONE, _HOT, _RESTART = Field(Effect.NONE), Field(Effect.HOT), Field(Effect.RESTART)
_HOT_BOTH, _RESTART_BOTH = Field(Effect.HOT, True), Field(Effect.RESTART, True)

_SHOWN = 200
"""Characters of a value in a line."""

EFFECTS: dict[str, Field] = {
    "role": _NONE,
    "identity.certificate": _RESTART,
    "identity.key": _HOT,
    "identity.ca": _RESTART,
    "identity.name": _RESTART_BOTH,
    "class": _RESTART_BOTH,
    "class.dscp": _RESTART,
    "class.priority": _RESTART,
    "class.txqueuelen": _HOT,
    "supervisor.on_stop": _HOT,
    "supervisor.on_orphan": _RESTART,
    "supervisor.uid_base": _RESTART,
    "supervisor.control_group": _NONE,
    "supervisor.runtime_directory": _NONE,
    "supervisor.state_directory": _NONE,
    "supervisor.table_base": _HOT,
    "supervisor.mark_mask": _HOT,
    "supervisor.rule_priority": _HOT,
    "supervisor.source_port_base": _RESTART,
    "supervisor.key_update_packets": _RESTART,
    "supervisor.memory_limit_mb": _HOT,
    "supervisor.cpus": _RESTART,
    "supervisor.native": _RESTART,
    "watchdog.heartbeat_timeout": _HOT,
    "watchdog.peer_timeout": _RESTART,
    "watchdog.start_timeout": _HOT,
    "watchdog.probe_interval": _RESTART,
    "watchdog.backoff_initial": _HOT,
    "watchdog.backoff_max": _HOT,
    "watchdog.healthy_after": _HOT,
    "watchdog.failover_after": _HOT,
    "watchdog.failback_after": _HOT,
    "portal": _HOT,
    # site
    "hub.name": _RESTART_BOTH,
    "hub.address": _RESTART,
    "inner.ipv4": _RESTART_BOTH,
    "inner.ipv6": _RESTART_BOTH,
    "inner.number": _RESTART_BOTH,
    "wan": _RESTART_BOTH,
    "wan.interface": _RESTART,
    "wan.suffix": _RESTART_BOTH,
    "wan.hub_port": _RESTART_BOTH,
    "wan.hub_address": _RESTART,
    "wan.rate_mbit": _HOT,
    "wan.mtu": _RESTART_BOTH,
    "wan.table": _HOT,
    "wan.fallback": _HOT,
    "matrix": _RESTART,
    "lan": _HOT,
    "lan.interface": _HOT,
    "lan.class": _HOT,
    "lan.wan": _HOT,
    "lan.vlan": _HOT,
    "lan.parent": _HOT,
    "lan.address": _HOT,
    "lan.prefixes": _HOT,
    "lan.gateway": _HOT,
    "lan.masquerade": _HOT,
    "rule": _HOT,
    "set": _HOT,
    # hub
    "listener": _RESTART_BOTH,
    "listener.port": _RESTART_BOTH,
    "listener.address": _RESTART,
    "listener.ipv4": _RESTART_BOTH,
    "listener.ipv6": _RESTART_BOTH,
    "listener.workers": _RESTART,
    "listener.mtu": _RESTART_BOTH,
    "site": _HOT,
    "site.identity": _HOT_BOTH,
    "site.number": _HOT_BOTH,
    "site.addresses": _HOT_BOTH,
    "site.lan": _HOT,
    "site.revoked": _HOT,
    "nat": _HOT,
    "nat.interface": _HOT,
    "nat.lans": _HOT,
    "limits.connections": _RESTART,
    "limits.handshakes": _RESTART,
    "limits.first_packets": _HOT,
    "limits.strangers": _HOT,
}
"""By the field's place in the file, `SECTION.KEY`; a section that may be absent, or many, has an entry of its own for
what comes and goes of it, and `portal` stands for all that is in it. Entries without a name are compared as a whole.
What the files hold that `identity` names is compared by the supervisor itself."""

_OF_A_START = [
    path.removeprefix("supervisor.")
    for path, field in EFFECTS.items()
    if field.effect is Effect.NONE and path.startswith("supervisor.")
]


def differences(old: Config, new: Config) -> list[Change]:
    """What is different, in the order of the fields. Entries of a list are the same if their name is."""
    if old.role != new.role:
        return [_change("role", "role", old.role, new.role)]
    return list(_compare("", "", old, new))


def as_it_runs(running: Config, new: Config) -> Config:
    """`new` as a reload applies it: what nothing but a start changes stays as in `running`."""
    kept = {name: getattr(running.supervisor, name) for name in _OF_A_START}
    return msgspec.structs.replace(new, supervisor=msgspec.structs.replace(new.supervisor, **kept))


def describe(preview: Preview) -> list[str]:
    """As lines for people: fields, then workers. Empty if there is no difference."""
    words = {"add": "starts", "remove": "stops for good", "restart": "restarts", "sites": "is told its sites"}
    fields = [
        f"{change.path}: {_before_and_after(change)} ({change.effect}"
        f"{'; the other end has to follow' if change.coupled else ''})"
        for change in preview.fields
    ]
    return [*fields, *(f"{name} {words[change]}" for name, change in preview.workers.items())]


def _compare(path: str, place: str, old: msgspec.Struct, new: msgspec.Struct) -> Iterator[Change]:
    for field in msgspec.structs.fields(old):
        key = field.encode_name
        here, there = join(path, key), f"{place}.{key}" if place else key
        before, after = getattr(old, field.name), getattr(new, field.name)
        if before == after:
            continue
        if isinstance(before, msgspec.Struct) and isinstance(after, msgspec.Struct):
            yield from _compare(here, there, before, after)
        elif _are_entries(before) and _are_entries(after) and (before or after):
            yield from _compare_entries(here, there, _by_name(before), _by_name(after))
        else:
            yield _change(here, there, before, after)


def _compare_entries(
    path: str, place: str, old: dict[str, msgspec.Struct], new: dict[str, msgspec.Struct]
) -> Iterator[Change]:
    for name in dict.fromkeys((*old, *new)):
        here = f"{path}[{name}]"
        if name in old and name in new:
            yield from _compare(here, place, old[name], new[name])
        else:
            yield _change(here, place, old.get(name), new.get(name))


def _are_entries(value: Any) -> bool:
    """A list of sections that must have a name."""
    return isinstance(value, tuple) and all(
        isinstance(entry, msgspec.Struct)
        and any(field.name == "name" and field.required for field in msgspec.structs.fields(entry))
        for entry in value
    )


def _by_name(entries: tuple[Any, ...]) -> dict[str, msgspec.Struct]:
    return {_text(entry.name): entry for entry in entries}


def _change(path: str, place: str, old: Any, new: Any) -> Change:
    field = EFFECTS["portal" if place.startswith("portal.") else place]
    return Change(
        path, None if old is None else _text(old), None if new is None else _text(new), field.effect, field.coupled
    )


def _text(value: Any) -> str:
    """As in the file, nearly, and without secrets; a section by its name alone."""
    if isinstance(value, str):
        return scrub(value)
    if isinstance(value, msgspec.Struct):
        return str(getattr(value, "name", "")) or ", ".join(
            f"{field.encode_name} {_text(one)}"
            for field in msgspec.structs.fields(value)
            if (one := getattr(value, field.name)) not in (None, ())
        )
    if isinstance(value, tuple | list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_text(one)}" for key, one in value.items()) + " }"
    if isinstance(value, IntEnum):
        return value.name.lower()
    return str(value).lower() if isinstance(value, bool) else str(value)


def _before_and_after(change: Change) -> str:
    if change.old is None:
        return f"new: {_short(change.new)}" if change.new else "new"
    return "gone" if change.new is None else f"{_short(change.old)} → {_short(change.new)}"


def _short(text: str) -> str:
    """A list of a thousand prefixes is not for a line of the log; a program finds it whole in `Change`."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text)} characters)"
