"""Requests that make little sense, of an API that OpenAPI describes: the same ones for the same seed. Pure."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote_from_bytes

WORDS: tuple[bytes, ...] = (
    b"", b" ", b"\0", b"\n", b"\r\nX: y", b"..", b"../../etc/passwd", b"%", b"%00", b"%ff", b"/", b"//", b"?", b"#",
    b";", b"'; DROP TABLE s1; --", b"' OR 1=1", b"<script>", b"{name}", b"$(id)", b"-1", b"0", b"1", b"1.5", b"1e309",
    b"NaN", b"Infinity", b"0x10", b"9" * 19, b"-" + b"9" * 40, b"9" * 5000, b"null", b"true", b"[]", b"{}", b"x" * 64,
    b"x" * 65, b"x" * 9000, "Größe".encode(), "٣".encode(), "\u202e".encode(), b"\xff\xfe", b"\xed\xa0\x80",
    b"\xc0\xaf", b"cr1", b"CR1", b"cr1 ", b"br2", b"critical", b"wan4", b"info", b"loud",
)  # fmt: skip
"""What a parameter may be given: limits, other types, other languages, and now and then what it wants."""

VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 5, 44_641, 1 << 63, -(1 << 70), 1.5, 1e308, "", "cr1", "x" * 65, "x" * 5000, "\0", "a\nb",
    "role = 'site'", "[[wan]]\n" * 500, "\ud800", [], [1], {}, {"a": {}}, [[]] * 100,
)  # fmt: skip

TYPES = (
    "application/json", "application/json; charset=utf-7", "application/json; charset=nonsense", "text/plain", "",
    "application/x-www-form-urlencoded", "multipart/form-data", "multipart/form-data; boundary=x",
    "multipart/form-data; boundary=" + "y" * 300, "application/msgpack", "application/xml", "nonsense", "/",
    "a/b;;;=",
)  # fmt: skip

RAW = (
    b"", b"{", b"}", b"[" * 100_000, b'{"a":' * 50_000, b"null", b'"text"', b"1", b"\xff\xfe{}", b"\xef\xbb\xbf{}",
    b"{}{}", b'{"minutes": 1, "minutes": 2}', b'{"minutes": 1e999}', b'{"toml": "\\ud800"}', b'{"toml": "\xff"}',
    b"a=b&a=%ff", b"--x\r\n", b"--x\r\nContent-Disposition: form-data; name=toml\r\n\r\n1\r\n--x--\r\n",
    b"--x\r\n\r\n--x--", b"\x81\xa4toml\xa1x", b"\xc1", b"x" * 600_000,
)  # fmt: skip


class Input(NamedTuple):
    """One request; `operation` is its path as the document has it."""

    operation: str
    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]


def inputs(document: Mapping[str, Any], seed: int, count: int) -> Iterator[Input]:
    """`count` of them, over all operations but the endless `stream`, and methods that they do not have."""
    chance = random.Random(seed)
    operations = sorted((path, method) for path, item in document["paths"].items() for method in item)
    operations = [found for found in operations if not found[0].endswith("/stream")]
    for _ in range(count):
        operation, method = chance.choice(operations)
        method = method if chance.random() < 0.9 else chance.choice(("put", "patch", "head", "options"))
        described = document["paths"][operation].get(method, {})
        path = re.sub(r"\{\w+\}", lambda _: "cr1" if chance.random() < 0.3 else _word(chance), operation)
        headers, body = {}, None
        if method in ("post", "put", "patch", "delete"):
            body = _body(chance, _fields(document, described))
            headers["Content-Type"] = chance.choice(TYPES[:1] * 10 + TYPES)
            if chance.random() < 0.1:
                headers["X-HTTP-Method-Override"] = chance.choice(("PATCH", "patch", "DELETE", "", "x" * 500))
        yield Input(operation, method.upper(), path + _query(chance, described), body, headers)


def _word(chance: random.Random) -> str:
    word = chance.choice(WORDS) if chance.random() < 0.8 else chance.randbytes(chance.randrange(1, 40))
    return quote_from_bytes(word, safe="" if chance.random() < 0.8 else "/.")


def _query(chance: random.Random, described: Mapping[str, Any]) -> str:
    names = [parameter["name"] for parameter in described.get("parameters", ()) if parameter["in"] == "query"]
    pairs = [f"{chance.choice([*names * 4, 'x', ''])}={_word(chance)}" for _ in range(chance.randrange(5))]
    return "?" + "&".join(pairs) if pairs else ""


def _fields(document: Mapping[str, Any], described: Mapping[str, Any]) -> list[str]:
    for media in described.get("requestBody", {}).get("content", {}).values():
        schema = document["components"]["schemas"][media["schema"]["$ref"].rsplit("/", 1)[1]]
        return [*schema["properties"]]
    return []


def _body(chance: random.Random, fields: list[str]) -> bytes | None:
    kind = chance.random()
    if kind < 0.2:
        return chance.choice(RAW) if chance.random() < 0.9 else chance.randbytes(chance.randrange(200))
    if kind < 0.25 or not fields:
        return None
    data = {field: chance.choice(VALUES) for field in fields if chance.random() < 0.8}
    if chance.random() < 0.1:
        data["more"] = chance.choice(VALUES)
    text = json.dumps(data)
    return (text if kind < 0.9 else text[: chance.randrange(len(text))]).encode()
