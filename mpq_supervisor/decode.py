"""TOML values → the Structs of `schema`, with every problem found and not only the first. Pure.

msgspec stops at its first error, so this walks the Structs itself, field by field and element by element, and
leaves to msgspec what it does well: one plain value with its bounds. For a value that cannot be read its default
stands in, or something that is nobody else's; where there is no such thing its section is None in the result. That is
what lets `validate` look at the rest of a file that has a problem; nobody else ever sees such a result.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_interface, ip_network
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import msgspec

from mpq_supervisor.printable import printable
from mpq_supervisor.schema import (
    Address,
    InterfaceAddress,
    InterfaceName,
    Name,
    Network,
    Port,
    PortRange,
    Ports,
    Prefixes,
    SiteName,
    TokenHash,
)
from mpq_worker.contract import TrafficClass

_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]*")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_SITE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_TOKEN_HASH = re.compile(r"sha256:[0-9a-f]{64}")
_PORTS = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")


class Problem(msgspec.Struct, frozen=True):
    """One thing wrong with a configuration. `path` is where (`wan[1].interface`); empty: the whole file."""

    path: str
    text: str
    meant: str = ""  # the path of the field for which `path` may be a misspelling

    def __str__(self) -> str:
        text = f"{self.path}: {self.text}" if self.path else self.text
        return printable(text)  # it may quote what is in the file


def decode(kind: Any, value: Any, path: str, problems: list[Problem]) -> Any:
    """`value` as `kind`, or None after having added to `problems` why not."""
    try:
        if kind in _PARSERS:
            return _PARSERS[kind](value)
        origin = get_origin(kind)
        if origin in (Union, UnionType):
            (kind,) = (option for option in get_args(kind) if option is not NoneType)
            return decode(kind, value, path, problems)
        if origin is Literal:
            return _one_of(get_args(kind), value)
        if origin is tuple:
            return _decode_list(get_args(kind)[0], value, path, problems)
        if origin is dict:
            return _decode_table(get_args(kind)[1], _expect(dict, value), path, problems)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return _decode_struct(kind, _expect(dict, value), path, problems)
        if isinstance(value, str) and not value.isprintable():
            raise ValueError("holds a control character")
        return msgspec.convert(value, kind)
    except ValueError as error:  # msgspec.ValidationError is one
        problems.append(Problem(path, str(error)))
        return None


def unread_fields(problems: Iterable[Problem]) -> set[str]:
    """The paths of fields that could not be read, and of lists of which an element could not."""
    paths = {path for problem in problems for path in (problem.path, problem.meant) if path}
    return paths | {re.sub(r"\[\d+\]$", "", path) for path in paths}


def nearest(word: str, known: Iterable[str]) -> str:
    """ " (did you mean "x"?)", or nothing when nothing is near."""
    close = _closest(word, known)
    return f' (did you mean "{close}"?)' if close else ""


def join(path: str, key: str) -> str:
    """`path.key`, the key quoted where TOML would."""
    key = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else f'"{key}"'
    return f"{path}.{key}" if path else key


def _decode_struct(
    kind: type[msgspec.Struct], table: dict[str, Any], path: str, problems: list[Problem]
) -> msgspec.Struct | None:
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for key in table.keys() - fields.keys():
        meant = _closest(key, fields)
        text = f"unknown key{nearest(key, fields)}"
        problems.append(Problem(join(path, key), text, join(path, meant) if meant else ""))
    values: dict[str, Any] = {}
    complete = True
    for key, field in fields.items():
        value = None
        if key in table:
            value = decode(field.type, table[key], join(path, key), problems)
        elif field.required:
            problems.append(Problem(join(path, key), "is missing"))
        if value is None and field.required and path:
            value = _stand_in(field.type, join(path, key))
        if value is not None:
            values[field.name] = value
        else:
            complete &= not field.required
    if not complete and path:
        return None
    # The whole file is kept even when a section of it is not there.
    for field in fields.values():
        if field.required:
            values.setdefault(field.name, () if get_origin(field.type) is tuple else None)
    return kind(**values)


def _closest(word: str, known: Iterable[str]) -> str:
    names = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), list(names), 1)
    return names[close[0]] if close else ""


def _stand_in(kind: Any, path: str) -> Any:
    if kind in _STAND_INS:
        return _STAND_INS[kind]
    if get_origin(kind) is tuple:
        return ()
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    return f"({path})" if kind in _TEXTS else None


def _decode_list(kind: Any, value: Any, path: str, problems: list[Problem]) -> tuple[Any, ...] | None:
    if kind in (Address, InterfaceAddress) and isinstance(value, str):
        value = [value]
    items = _expect(list, value)
    decoded = tuple(decode(kind, item, f"{path}[{index}]", problems) for index, item in enumerate(items))
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return decoded  # None where one is unusable: the others keep their index
    return None if None in decoded else decoded


def _decode_table(kind: Any, table: dict[str, Any], path: str, problems: list[Problem]) -> dict[str, Any]:
    decoded = {key: decode(kind, value, join(path, key), problems) for key, value in table.items()}
    return {key: value for key, value in decoded.items() if value is not None}


def _expect(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        words: dict[Any, str] = {dict: "a table", list: "a list", str: "a string"}
        raise ValueError(f"must be {words[kind]}, not {reprlib.repr(value)}")
    return value


def _one_of(options: Iterable[str], value: Any) -> str:
    options = list(options)
    if value not in options:
        hint = nearest(value, options) if isinstance(value, str) else ""
        raise ValueError(f"must be one of {', '.join(options)}, not {reprlib.repr(value)}{hint}")
    return str(value)


def _token_hash(value: Any) -> str:
    """Does not quote what is none: it may be the token itself."""
    if not isinstance(value, str) or not _TOKEN_HASH.fullmatch(value):
        raise ValueError("is no hash of a token; `mpq-supervisor token` makes them")
    return value


def _matching(pattern: re.Pattern[str], rule: str) -> Callable[[Any], str]:
    def parse(value: Any) -> str:
        text = str(_expect(str, value))
        if not pattern.fullmatch(text):
            raise ValueError(f'"{text}" {rule}')
        return text

    return parse


def _interface(value: Any) -> str:
    text = _matching(_INTERFACE, "is no interface name (letters, digits, - _ . @)")(value)
    if text == "lo":
        raise ValueError('"lo" leads nowhere')
    if len(text) > 15:  # IFNAMSIZ - 1
        raise ValueError(f'"{text}" is longer than the 15 characters of an interface name')
    return text


def _network(kind: type[IPv4Network] | type[IPv6Network]) -> Callable[[Any], Network]:
    def parse(value: Any) -> Network:
        network = ip_network(_unscoped(value))
        if not isinstance(network, kind):
            raise ValueError(f"{value} is not an IPv{4 if kind is IPv4Network else 6} prefix")
        return network

    return parse


def _ports(value: Any) -> PortRange:
    match = _PORTS.fullmatch(str(value)) if isinstance(value, int | str) else None
    if match is None:
        raise ValueError(f'{value!r} is neither a port nor a range such as "10000-20000"')
    first, last = int(match[1]), int(match[2] or match[1])
    if not 1 <= first <= last <= 65535:
        raise ValueError(f"{value!r} is not within 1-65535, the lower port first")
    return PortRange(first, last)


def _interface_address(value: Any) -> InterfaceAddress:
    address = ip_interface(_unscoped(value))
    if "/" not in value:
        raise ValueError(f"{value} needs the length of its prefix: {value}/{address.max_prefixlen - 8}")
    return address


def _prefix(value: Any) -> Network:
    return ip_network(_unscoped(value))


def _unscoped(value: Any) -> str:
    """Python takes any text behind a % for an IPv6 zone (RFC 4007 section 11); nft and shells read addresses, too."""
    text: str = _expect(str, value)
    if "%" in text:
        raise ValueError(f"{text!r} has a zone, which has no meaning here")
    return text


def _or_set(parse: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """What `parse` reads, or "@NAME"."""
    return lambda value: value if isinstance(value, str) and value.startswith("@") else parse(value)


_PARSERS: dict[Any, Callable[[Any], Any]] = {
    Address: lambda value: ip_address(_unscoped(value)),
    InterfaceAddress: _interface_address,
    Network: _prefix,
    IPv4Network: _network(IPv4Network),
    IPv6Network: _network(IPv6Network),
    InterfaceName: _interface,
    Name: _matching(_NAME, "is no name (up to 32 letters, digits, - and _)"),
    SiteName: _matching(_SITE_NAME, "is no name (up to 63 letters, digits, - _ and .)"),
    TokenHash: _token_hash,
    PortRange: _ports,
    Ports: _or_set(_ports),
    Prefixes: _or_set(_prefix),
    TrafficClass: lambda value: TrafficClass[_one_of([c.name.lower() for c in TrafficClass], value).upper()],
}

_TEXTS = (str, InterfaceName, Name, SiteName, TokenHash)
_STAND_INS: dict[Any, Any] = {TrafficClass: TrafficClass.DEFAULT, Port: 0}
