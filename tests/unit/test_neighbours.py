"""Every message of the contract and of the control stream between this release and the last one, both ways.

`tests/frozen` has the last release's. Until there is one, that is a copy of this one's.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest
from msgspec import NODEFAULT, inspect

from mpq_worker import contract, wire
from mpq_worker.channel import Channel, ChannelFault, pair
from tests.frozen import release_1 as last

UNIONS = ("ToZygote", "FromZygote", "ToWorker", "FromWorker", "Control")
HERE = {name: getattr(wire if name == "Control" else contract, name) for name in UNIONS}
MESSAGES = [(union, kind.__name__) for union in UNIONS for kind in get_args(getattr(last, union))] + [("", "Claims")]


def filled(shape: inspect.Type) -> Any:
    """A value of a type, as MessagePack has it, with nothing in it that is left out as a default."""
    match shape:
        case inspect.StructType(cls=cls, tag=tag):
            info = inspect.type_info(cls)
            assert isinstance(info, inspect.StructType)
            body = {f.encode_name: False if f.default is True else filled(f.type) for f in info.fields}
            return body if tag is None else {"type": tag, **body}
        case inspect.VarTupleType(item_type=item):
            return [filled(item), filled(item)]
        case inspect.TupleType(item_types=items):
            return [filled(item) for item in items]
        case inspect.DictType(key_type=key, value_type=value):
            return {filled(key): filled(value)}
        case inspect.UnionType(types=types):
            return filled(next(one for one in types if not isinstance(one, inspect.NoneType)))
        case inspect.EnumType(cls=cls):
            return list(cls)[-1].value
        case inspect.BoolType():
            return True
        case inspect.IntType():
            return 3
        case inspect.FloatType():
            return 2.5
        case inspect.BytesType():
            return b"bytes"
        case inspect.StrType():
            return "word"
    raise AssertionError(f"no sample of {shape}")


def common(theirs: Any, ours: Any) -> Any:
    """`theirs` less what `ours` does not have, at any depth."""
    if isinstance(theirs, dict) and isinstance(ours, dict) and "word" not in theirs:
        return {key: common(value, ours[key]) for key, value in theirs.items() if key in ours}
    if isinstance(theirs, list) and isinstance(ours, list):
        return [common(one, other) for one, other in zip(theirs, ours, strict=True)]
    return theirs


def sample(kind: type) -> dict[str, Any]:
    """A message with every field set to something."""
    message: dict[str, Any] = filled(inspect.type_info(kind))
    return message


def heard(message: dict[str, Any], kind: Any) -> dict[str, Any]:
    """What a receiver of `kind` makes of it; its defaults are left out."""
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=kind)
    again: dict[str, Any] = msgspec.msgpack.decode(msgspec.msgpack.encode(decoded))
    return again


def pairs(name: str) -> tuple[type[msgspec.Struct], type[msgspec.Struct]]:
    """The last release's struct, and ours."""
    return getattr(last, name), getattr(wire, name, None) or getattr(contract, name)


@pytest.mark.parametrize(("union", "name"), MESSAGES)
def test_what_the_last_release_says_is_understood(union: str, name: str) -> None:
    theirs, ours = pairs(name)
    message = sample(theirs)
    assert heard(message, HERE.get(union, ours)) == message


@pytest.mark.parametrize(("union", "name"), MESSAGES)
def test_the_last_release_understands_what_we_say(union: str, name: str) -> None:
    theirs, ours = pairs(name)
    message, known = sample(ours), sample(theirs)
    assert heard(message, getattr(last, union, theirs)) == common(message, known) == known


STRUCTS = [name for name, kind in vars(last).items() if isinstance(kind, type) and issubclass(kind, msgspec.Struct)]


@pytest.mark.parametrize("name", [name for name in STRUCTS if name != "_Message"])
def test_a_field_is_only_ever_added_and_with_a_default_that_stays(name: str) -> None:
    """A default is left out on the wire: to change one would mean something else to each end."""
    theirs, ours = ({field.name: field for field in msgspec.structs.fields(kind)} for kind in pairs(name))
    assert list(ours)[: len(theirs)] == list(theirs)
    for field in ours.values():
        if field.name not in theirs:
            assert not field.required
        elif theirs[field.name].default is not NODEFAULT:
            assert msgspec.to_builtins(field.default) == msgspec.to_builtins(theirs[field.name].default)


def test_the_last_release_is_the_same_or_the_one_before() -> None:
    assert contract.CONTRACT_VERSION - last.CONTRACT_VERSION in (0, 1)
    assert set(last.VERSIONS) & set(wire.VERSIONS)
    assert {last.CONTRACT_VERSION, contract.CONTRACT_VERSION} <= contract.NEIGHBOURS
    assert contract.CONTRACT_VERSION + 2 not in contract.NEIGHBOURS


# ---------------------------------------------------------------- the next release


class Later(msgspec.Struct, frozen=True, tag=True):
    colour: str = "blue"


def test_messages_of_the_next_release_are_skipped_and_their_descriptors_closed() -> None:
    ours, theirs = pair()
    worker = Channel[Any](ours, contract.ToWorker)
    with theirs:
        sender = Channel[Any](theirs, contract.FromWorker)
        sender.send(Later(), [0, 1])
        sender.send(contract.Stop(2.0))
        assert worker.receive() == (contract.Stop(2.0), [])
        for _ in range(40):
            sender.send(Later())
        with pytest.raises(ChannelFault, match="says nothing that this release understands"):
            worker.receive()
    worker.close()


@pytest.mark.parametrize(("union", "name"), MESSAGES)
def test_fields_of_the_next_release_are_ignored(union: str, name: str) -> None:
    _, ours = pairs(name)
    message = sample(ours)
    assert heard({**message, "colour": {"deep": [1, 2]}}, HERE.get(union, ours)) == message
