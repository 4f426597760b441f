"""Configuration: everything that is wrong is found, each with its path, and both samples are good."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpq_supervisor import schema
from mpq_supervisor.config import ConfigError, load, parse
from mpq_supervisor.files import MAX_SIZE

ROOT = Path(__file__).parents[2]
SITE = (ROOT / "etc/site.toml").read_text()
PLAIN = (ROOT / "etc/site-plain.toml").read_text()
HUB = (ROOT / "etc/hub.toml").read_text()


def problems_of(text: str) -> list[str]:
    """What `parse` finds, `path: text` each."""
    try:
        parse(text)
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def changed(text: str, *changes: tuple[str, str]) -> str:
    """A sample with its first `old` replaced by `new`, for each change."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


def loading(path: Path) -> list[str]:
    """What `load` finds, `path: text` each, of a file in the directory DIR."""
    try:
        load(path)
    except ConfigError as error:
        return [str(problem).replace(str(path.parent), "DIR") for problem in error.problems]
    return []


@pytest.mark.parametrize("text", [SITE, PLAIN, HUB], ids=["site", "site-plain", "hub"])
def test_samples_are_good(text: str) -> None:
    assert problems_of(text) == []


def test_every_problem_is_found_at_once() -> None:
    broken = """
        role = "site"
        colour = "red"
        [identity]
        certificate = 4
        key = "/k"
        [hub]
        name = "hub.example.net"
        address = ["198.51.100.2", "x"]
        [inner]
        ipv4 = "10.200.10.0/24"
        number = 21
        [[wan]]
        name = "wan4"
        interfce = "wan4"
        [[wan]]
        name = "wan5"
        interface = "an-interface-too-long"
        rate_mbit = "5"
        [[wan]]
        name = "wan6"
        interface = "wan6"
        mtu = 1000
        [[wan]]
        name = "wan6"
        interface = "wan6"
        hub_port = 45012
        [matrix]
        wan6 = ["bulk", "critcal"]
        [[lan]]
        name = "lan1"
        interface = "wan6"
        wan = "wan4"
        [[rule]]
        class = "bulk"
        ports = ["20-10", 77]
        [watchdog]
        probe_interval = 1
    """
    assert problems_of(broken) == [
        "colour: unknown key",
        "identity.certificate: Expected `str`, got `int`",
        "identity.ca: is missing",
        "hub.address[1]: 'x' does not appear to be an IPv4 or IPv6 address",
        'wan[0].interfce: unknown key (did you mean "interface"?)',
        "wan[0].interface: is missing",
        'wan[1].interface: "an-interface-too-long" is longer than the 15 characters of an interface name',
        "wan[1].rate_mbit: Expected `float`, got `str`",
        "wan[2].mtu: Expected `int` >= 1280",
        "matrix.wan6[1]: must be one of critical, default, bulk, not 'critcal' (did you mean \"critical\"?)",
        "rule[0].ports[0]: '20-10' is not within 1-65535, the lower port first",
        'wan[3].name: "wan6" is taken: wan[2] has the same WAN name',
        'wan[3].interface: "wan6" is taken: wan[2] has the same WAN interface',
        'wan[3].hub_port: "45012" is taken: wan[2] has the same WAN hub_port',
        "inner.number: 21 does not fit 10.200.10.0/24: 0 to 20 do",
        'lan[0].interface: "wan6" is the interface of wan[2]',
        'lan[0].interface: "wan6" is the interface of wan[3]',
        "watchdog.probe_interval: must be shorter than peer_timeout",
    ]


def test_not_toml_says_where() -> None:
    (line,) = problems_of('role = "site"\nwan = [[\n')
    assert "line 3" in line or "end of document" in line
    (line,) = problems_of('role = "site"\nwan 4 = 1\n')
    assert "at line 2, column 5" in line


def test_toml_that_its_parser_gives_up_on_is_no_toml() -> None:
    assert problems_of("a = " + "[" * 100_000) == ["not TOML: nested too deeply"]
    (line,) = problems_of("a = " + "9" * 100_000)
    assert line.startswith("not TOML: Exceeds the limit")


def test_text_holds_no_control_character() -> None:
    text = changed(SITE, ("[supervisor]", '[supervisor]\ncontrol_group = "a\\u0000b"'))
    assert problems_of(text) == ["supervisor.control_group: holds a control character"]


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["role", "wan", "lan", "site", "name", "listener", "inner", "hub", "identity"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_shape_is_an_answer(value: object) -> None:
    """Whatever a file holds, the result is problems, never another exception."""
    table = value if isinstance(value, dict) else {"wan": value}
    for role in ("site", "hub"):
        assert problems_of(_toml({**table, "role": role}))


def test_every_key_is_documented() -> None:
    text = (ROOT / "docs/configuration.md").read_text()
    kinds = [k for k in vars(schema).values() if isinstance(k, type) and issubclass(k, msgspec.Struct)]
    keys = {
        field.encode_name for kind in kinds if kind is not schema.PortRange for field in msgspec.structs.fields(kind)
    }
    assert [key for key in sorted(keys) if f"`{key}`" not in text and f"[{key}]" not in text] == []


def test_load_without_a_readable_file(tmp_path: Path) -> None:
    assert loading(tmp_path / "none.toml") == ["No such file or directory"]
    (tmp_path / "latin1.toml").write_bytes(b'role = "\xe4"')
    assert loading(tmp_path / "latin1.toml") == ["byte 8: not UTF-8"]


def test_load_reads_files_that_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", Path("/dev/zero")):
        assert loading(path) == ["not a regular file"]
    with (tmp_path / "large.toml").open("wb") as file:
        file.truncate(MAX_SIZE + 1)
    assert loading(tmp_path / "large.toml") == ["longer than 4 MiB"]


def _toml(value: object) -> str:
    """A TOML document of any nested value; what TOML cannot say is left out."""
    assert isinstance(value, dict)
    return "".join(f"{key} = {_inline(item)}\n" for key, item in value.items() if item is not None)


def _inline(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_inline(v)}" for k, v in value.items() if v is not None) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(_inline(item) for item in value if item is not None) + "]"
    if isinstance(value, str):
        return '"' + "".join(f"\\U{ord(c):08x}" if not 0xD800 <= ord(c) < 0xE000 else "?" for c in value) + '"'
    return str(value)
