"""One worker's fields of a configuration: what they are, and a file's text with some of them changed. Pure.

Fields are named as `effects` names them: `wan[wan5].mtu`, `class[bulk].dscp`, `listener[mt4].port`. The text keeps
its comments and its order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import msgspec

from mpq_supervisor.effects import EFFECTS, Effect
from mpq_supervisor.events import class_word
from mpq_supervisor.orders import Entry
from mpq_supervisor.plan import TunnelPlan
from mpq_supervisor.schema import ClassConfig, Config

Scalar = str | int | float | bool
Value = Scalar | list[Scalar] | None
"""As in the file; None is the default, which the file does not have."""
Word = Literal["none", "hot", "restart"]
WORDS: dict[Effect, Word] = {Effect.NONE: "none", Effect.HOT: "hot", Effect.RESTART: "restart"}
_PATH = re.compile(r"(\w+)\[(.+)\]\.(\w+)")


class EditFault(Exception):
    """A text that cannot be changed so."""


class ConfigField(msgspec.Struct, frozen=True):
    """A field that a worker depends on, maybe with others. `coupled`: the other end's file has to change with it."""

    path: str
    value: Value
    effect: Word
    coupled: bool


def fields_of(config: Config, worker: Entry) -> tuple[ConfigField, ...]:
    """The fields of the worker's WAN or listener, and of its class."""
    group = "wan" if isinstance(worker, TunnelPlan) else "listener"
    section = next(entry for entry in getattr(config, group) if entry.name == worker.group)
    found = list(_fields(group, worker.group, section))
    if worker.traffic_class is not None:
        classes = {entry.name: entry for entry in config.classes}
        entry = classes.get(worker.traffic_class, ClassConfig(name=worker.traffic_class))
        found += _fields("class", class_word(worker.traffic_class), entry)
    return tuple(found)


def edit(text: str, changes: Mapping[str, Value]) -> str:
    """`text`, a good configuration, with these fields changed. Raises EditFault."""
    import tomlkit  # here, because a supervisor that nobody asks does without it
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        for path, value in changes.items():
            _set(document, path, value)
        return tomlkit.dumps(document)
    except (TOMLKitError, ValueError) as error:
        raise EditFault(str(error)) from error


def _fields(kind: str, name: str, section: msgspec.Struct) -> Iterator[ConfigField]:
    for field in msgspec.structs.fields(section):
        place = f"{kind}.{field.encode_name}"
        if place in EFFECTS:
            value = msgspec.to_builtins(getattr(section, field.name), enc_hook=str)
            effect, coupled = EFFECTS[place]
            value = list(value) if isinstance(value, tuple) else value
            yield ConfigField(f"{kind}[{name}].{field.encode_name}", value, WORDS[effect], coupled)


def _set(document: Any, path: str, value: Value) -> None:
    match = _PATH.fullmatch(path)
    if match is None:
        raise EditFault(f"{path}: not a field")
    kind, name, key = match.groups()
    entry = next((entry for entry in document.get(kind, ()) if entry.get("name") == name), None)
    if entry is None:
        raise EditFault(f"{path}: the file has no [[{kind}]] of that name")
    if value is not None:
        entry[key] = value
    elif key in entry:
        del entry[key]
