"""Configuration: everything that is wrong is found, each with its path, and both samples are good."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpq_supervisor import pki, schema
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


_WAN6 = 'name = "wan6"\ninterface = "wan6"'

_LAST_TWO = 'name = "quic"\nprotocol = "udp"\nports = [443]\n\n[[rule]]\nclass = "bulk"\nname = "iperf"'

_LAN1 = 'interface = "lan1"'

SITE_MISTAKES = [
    (('role = "site"', 'role = "sight"'), "role", 'must be "site" or "hub"'),
    (('role = "site"', 'rolle = "site"'), "role", 'is "rolle" meant?'),
    (('address = "198.51.100.2" ', "address = [] "), "hub.address", "at least one"),
    (('address = "198.51.100.2" ', 'address = "0.0.0.0" '), "hub.address[0]", "no address of a host"),
    (('address = "198.51.100.2" ', 'address = "255.255.255.255" '), "hub.address[0]", "no address of a host"),
    (('address = "198.51.100.2" ', 'address = "fe80::1%wan4" '), "hub.address[0]", "no address of a host"),
    (('name = "hub.example.net" ', r'name = "hub\u001b[31m" '), "hub.name", "holds a control character"),
    (('address = "198.51.100.2" ', 'address = "10.200.11.3" '), "inner.ipv4", "of wan[1] contains the hub's"),
    (('name = "hub.example.net" ', 'name = "hub example" '), "hub.name", "neither a host name"),
    (('"10.200.10.0/24"', '"10.200.10.1/24"'), "inner.ipv4", "has host bits set"),
    (('"10.200.10.0/24"', '"10.200.10.0/25"'), "inner.ipv4", "too small"),
    (('"10.200.10.0/24"', '"127.0.0.0/24"'), "inner.ipv4", "loopback"),
    (('"10.200.10.0/24"', '"224.0.0.0/24"'), "inner.ipv4", "multicast"),
    (('"10.200.10.0/24"', '"255.255.255.0/24"'), "inner.ipv4", "no subnet for wan[1]"),
    (('"fd6d:7071::/64"', '"10.0.0.0/8"'), "inner.ipv6", "not an IPv6 prefix"),
    (("number = 0 ", "number = 21 "), "inner.number", "0 to 20 do"),
    (("number = 0 ", "number = true "), "inner.number", "Expected `int`"),
    ((_WAN6, 'name = "bulk"\ninterface = "wan6"'), "wan[2].name", "something else to `ctl`"),
    ((_WAN6, 'name = "cr1"\ninterface = "wan6"'), "wan[2].name", "name of a tunnel of wan[0]"),
    ((_WAN6, 'name = "wan6"\ninterface = "df2"'), "wan[1]", "name of the interface of wan[2]"),
    ((_WAN6, 'name = "wan6"\ninterface = "lo"'), "wan[2].interface", "leads nowhere"),
    ((_WAN6, 'name = "wan6"\ninterface = "wan6;"'), "wan[2].interface", "no interface name"),
    ((_WAN6, _WAN6 + "\nsuffix = 1"), "wan[2].suffix", "taken: wan[0]"),
    ((_WAN6, _WAN6 + "\nhub_port = 45010"), "wan[2].hub_port", "taken: wan[0]"),
    ((_WAN6, _WAN6 + "\nhub_port = 65536"), "wan[2].hub_port", "<= 65535"),
    ((_WAN6, _WAN6 + "\nrate_mbit = 0"), "wan[2].rate_mbit", "> 0"),
    ((_WAN6, _WAN6 + "\ntable = 254"), "wan[2].table", "254 is the kernel's"),
    ((_WAN6, _WAN6 + "\ntable = 112"), "wan[2].table", "among 100-163, which follow from"),
    ((_WAN6, _WAN6 + '\nfallback = ["wan7"]'), "wan[2].fallback[0]", 'no WAN "wan7"'),
    ((_WAN6, _WAN6 + '\nfallback = ["wan6"]'), "wan[2].fallback[0]", "this WAN itself"),
    ((_WAN6, _WAN6 + '\nfallback = ["wan4", "wan4"]'), "wan[2].fallback[1]", "twice"),
    ((_WAN6, _WAN6 + '\nhub_address = ["192.0.2.1", "192.0.2.1"]'), "wan[2].hub_address[1]", "twice"),
    (("[supervisor]", '[matrix]\nwan7 = ["bulk"]\n[supervisor]'), "matrix.wan7", 'no WAN "wan7" (did you'),
    (("[supervisor]", '[matrix]\nwan6 = ["bulk", "bulk"]\n[supervisor]'), "matrix.wan6[1]", "twice"),
    (("[supervisor]", '[[class]]\nname = "bulk"\n[supervisor]'), "rule[0].class", "critical is not among"),
    (("[supervisor]", "[[class]]\nname='bulk'\n[[class]]\nname='bulk'\n[supervisor]"), "class[1].name", "taken"),
    (('wan = "wan5"', 'wan = "wan55"'), "lan[1].wan", 'no WAN "wan55" (did you mean "wan5"?)'),
    (('name = "lan2"', 'name = "lan1"'), "lan[1].name", "taken"),
    (('interface = "lan2"', 'interface = "lan1"'), "lan[1].interface", "taken: lan[0]"),
    (('protocol = "tcp"', ""), "rule[2].ports", "need protocol"),
    (("dscp = [46]\n\n[[rule]]", "dscp = [64]\n\n[[rule]]"), "rule[1].dscp[0]", "<= 63"),
    (('name = "web"', 'name = "voice"'), "rule[2].name", '"voice" is taken: rule[0]'),
    (
        (_LAST_TWO, _LAST_TWO.replace('"quic"', '"4"').replace('name = "iperf"', "")),
        "rule[4].name",
        "taken",
    ),
    (('name = "web"', 'name = "other"'), "rule[2].name", "is what matches no rule"),
    (("dscp = [46]", 'source = ["10.0.0.1/8"]'), "rule[1].source[0]", "has host bits set"),
    (("dscp = [46]", 'source = ["::/0"]'), "rule[1].source[0]", "is everything: leave it out"),
    (
        ("dscp = [46]", 'source = ["@offic"]\n[set.office]\nports = [1]'),
        "rule[1].source[0]",
        'did you mean "office"?',
    ),
    (("dscp = [46]", 'source = ["@office"]\n[set.office]\nports = [1]'), "rule[1].source[0]", "has no prefixes"),
    (("dscp = [46]", 'source = ["10.0.0.0/8"]\ndestination = ["fd00::/8"]'), "rule[1]", "matches nothing"),
    (("[supervisor]", "[set.office]\n[supervisor]"), "set.office", "is empty"),
    (("[supervisor]", '[set."a b"]\nports = [1]\n[supervisor]'), 'set."a b"', "no name of a set"),
    (("[supervisor]", '[set.a]\nprefixes = ["@b"]\n[supervisor]'), "set.a.prefixes[0]", "does not appear"),
    (('interface = "lan1"', 'interface = "lan1"\nclass = "voice"'), "lan[0].class", "must be one of critical"),
    ((_LAN1, _LAN1 + "\nvlan = 11"), "lan[0].parent", "is missing, the other is there"),
    ((_LAN1, _LAN1 + '\nparent = "eth0"'), "lan[0].vlan", "is missing, the other is there"),
    ((_LAN1, _LAN1 + '\nvlan = 11\nparent = "lan1"'), "lan[0].parent", "is the interface itself"),
    ((_LAN1, _LAN1 + '\nvlan = 4095\nparent = "eth0"'), "lan[0].vlan", "<= 4094"),
    ((_LAN1, _LAN1 + '\naddress = "172.16.1.1"'), "lan[0].address[0]", "needs the length of its prefix"),
    ((_LAN1, _LAN1 + '\naddress = "224.0.0.1/24"'), "lan[0].address[0]", "no address of a host"),
    ((_LAN1, _LAN1 + '\ngateway = "172.16.1.2"'), "lan[0].gateway[0]", "nothing is behind 172.16.1.2"),
    (
        (_LAN1, f'{_LAN1}\nprefixes = ["10.0.0.0/8"]\ngateway = ["10.9.9.9", "10.9.9.8"]'),
        "lan[0].gateway[1]",
        "second",
    ),
    ((_LAN1, f'{_LAN1}\nprefixes = ["0.0.0.0/0"]'), "lan[0].prefixes[0]", "is everything"),
    (
        (_LAN1, f'{_LAN1}\naddress = "10.0.0.1/30"\nprefixes = ["10.9.0.0/16"]\ngateway = "10.0.0.5"'),
        "lan[0].gateway[0]",
        "10.0.0.5 is in no subnet of lan[0].address",
    ),
    (("[supervisor]", "[supervisor]\ntable_base = 240"), "supervisor.table_base", "253, which is the kernel's"),
    (("[supervisor]", "[supervisor]\ntable_base = 265"), "supervisor.table_base", "255, which is the kernel's"),
    (("[supervisor]", "[supervisor]\ntable_base = 10"), "supervisor.table_base", ">= 11"),
    (("[supervisor]", "[supervisor]\nmark_mask = 0x00ff00ff"), "supervisor.mark_mask", "not one run"),
    (("[supervisor]", "[supervisor]\nmark_mask = 0x00070000"), "supervisor.mark_mask", "fewer than five bits"),
    (("[supervisor]", "[supervisor]\ncpus = [1, 1]"), "supervisor.cpus", "twice"),
    (("[supervisor]", '[supervisor]\nstate_directory = "x"'), "supervisor.state_directory", "absolute"),
    (("[supervisor]", '[supervisor]\non_stop = "close"'), "supervisor.on_stop", 'did you mean "closed"?'),
    (("[supervisor]", "[watchdog]\nheartbeat_timeout = 0.3\n[supervisor]"), "watchdog.heartbeat_timeout", "0.5"),
    (("[supervisor]", "[watchdog]\nbackoff_max = 0.01\n[supervisor]"), "watchdog.backoff_initial", "longer"),
]

_MT5 = 'name = "mt5"\nport = 45011'
_SHIP1 = "number = 0 "
_LAN = 'prefix = "172.16.2.0/24", class = "default", listener = "mt4"'

HUB_MISTAKES = [
    ((_MT5, 'name = "mt4"\nport = 45011'), "listener[1].name", "taken: listener[0]"),
    ((_MT5, 'name = "mt5"\nport = 45010'), "listener[1].port", "listener[0] listens there"),
    ((_MT5, 'name = "all"\nport = 45011'), "listener[1].name", "something else to `ctl`"),
    ((_MT5, 'name = "a-long-name-of15"\nport = 45011'), "listener[1].name", "longer than the 15"),
    ((_MT5, _MT5 + "\naddress = []"), "listener[1].address", "at least one"),
    ((_MT5, _MT5 + '\naddress = ["192.0.2.1", "192.0.2.2"]'), "listener[1].address", "0.0.0.0 and :: together"),
    ((_MT5, _MT5 + '\naddress = ["0.0.0.0", "::", "::1"]'), "listener[1].address", "0.0.0.0 and :: together"),
    ((_MT5, _MT5 + '\naddress = ["::", "::"]'), "listener[1].address[1]", "twice"),
    ((_MT5, _MT5 + '\naddress = ["ff02::1"]'), "listener[1].address[0]", "no address of a host"),
    ((_MT5, _MT5 + '\naddress = "10.200.11.7"'), "listener[1].ipv4", "own address 10.200.11.7"),
    (('"10.200.11.0/24"', '"10.200.0.0/16"'), "listener[1].ipv4", "overlaps 10.200.10.0/24 of listener[0].ipv4"),
    (('"10.200.11.0/24"', '"10.200.11.0/28"'), "listener[1].ipv4", "too small"),
    (('name = "ship2"', 'name = "ship1"'), "site[1].identity", '"mpq://site/ship1" is taken'),
    (('name = "ship2"', 'name = "../x"'), "site[1].name", "no name"),
    (('name = "ship2"', 'name = "ship2"\nidentity = "ship2"'), "site[1].identity", "no URI"),
    (("number = 1 ", "number = 0 "), "site[1].number", "10.200.10.1 is taken by site[0].number"),
    (("number = 1 ", "number = 30 "), "site[1].number", "30 does not fit 10.200.10.0/24 of mt4: 0 to 20 do"),
    (("number = 1 ", ""), "site[1].number", "is missing"),
    ((_SHIP1, '"addresses" = { "mt4.bulk" = ["10.200.10.254"] } '), 'site[0].addresses."mt4.bulk"', "the hub"),
    ((_SHIP1, '"addresses" = { "mt4.bluk" = ["10.200.10.5"] } '), 'site[0].addresses."mt4.bluk"', '"mt4.bulk"?'),
    ((_SHIP1, '"addresses" = { "mt4.bulk" = ["10.9.9.9"] } '), 'site[0].addresses."mt4.bulk"[0]', "not in a subnet"),
    ((_LAN, 'prefix = "172.16.2.0/24", listener = "mt4"'), "site[1].lan[0]", "ambiguous: name the class"),
    ((_LAN, 'prefix = "172.16.2.0/24", class = "default"'), "site[1].lan[0]", "ambiguous: name the listener"),
    ((_LAN, _LAN.replace("mt4", "mt44")), "site[1].lan[0]", 'no listener "mt44" (did you mean "mt4"?)'),
    ((_LAN, _LAN.replace("172.16.2.0", "172.16.2.1")), "site[1].lan[0].prefix", "host bits"),
    ((_LAN, _LAN.replace("172.16.2.0/24", "0.0.0.0/0")), "site[1].lan[0].prefix", "overlaps 10.200.10.0/24"),
    ((_LAN, _LAN + "}, {" + _LAN.replace("default", "bulk")), "site[1].lan[1].prefix", "ambiguous"),
    ((_SHIP1, "number = 0\nlan = [{" + _LAN.replace(".0/24", ".8/29") + "}] "), "site[1].lan[0].prefix", "ambiguous"),
    (('interface = "ens3"', 'interface = "mt5d"'), "listener[1].name", "interface of nat.interface"),
    (("[nat]", "[lan]"), "lan", "unknown key"),
]


@pytest.mark.parametrize(("change", "path", "text"), SITE_MISTAKES, ids=lambda value: str(value)[:40])
def test_site_mistake(change: tuple[str, str], path: str, text: str) -> None:
    found = problems_of(changed(SITE, change))
    assert any(line.startswith(f"{path}: ") and text in line for line in found), found


@pytest.mark.parametrize(("change", "path", "text"), HUB_MISTAKES, ids=lambda value: str(value)[:40])
def test_hub_mistake(change: tuple[str, str], path: str, text: str) -> None:
    found = problems_of(changed(HUB, change))
    assert any(line.startswith(f"{path}: ") and text in line for line in found), found


def test_one_mistake_is_one_problem() -> None:
    """A duplicate number means many equal addresses; it is said once."""
    assert len(problems_of(changed(HUB, ("number = 1 ", "number = 0 ")))) == 1


def test_revoked_site_leaves_its_number_to_another() -> None:
    assert problems_of(changed(HUB, (_SHIP1, "revoked = true\nnumber = 1 "))) == []


def test_edges_that_are_good() -> None:
    for base in (11, 199, 266):  # no table of 253, 254, 255 among base - 10 to base + 53
        assert problems_of(changed(SITE, ("[supervisor]", f"[supervisor]\ntable_base = {base}"))) == []
    for address in ('["0.0.0.0", "::"]', '["::", "0.0.0.0"]', '"192.0.2.1"'):
        assert problems_of(changed(HUB, (_MT5, f"{_MT5}\naddress = {address}"))) == []


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


# ---------------------------------------------------------------- the host's side


@pytest.fixture(scope="module")
def authority() -> pki.Credential:
    return pki.issue_authority(begin=datetime.now(UTC) - timedelta(days=1000))


def _write(directory: Path, text: str, stem: str, authority: pki.Credential, leaf: pki.Credential) -> Path:
    """A sample whose files are there."""
    pki.save(leaf, directory, stem)
    (directory / "ca.crt").write_bytes(authority.certificate_pem)
    path = directory / "mpq.toml"
    path.write_text(text.replace("/etc/mpq/pki", str(directory)))
    return path


def _loading(path: Path) -> list[str]:
    try:
        load(path)
    except ConfigError as error:
        return [str(problem).replace(str(path.parent), "DIR") for problem in error.problems]
    return []


def test_load_good_files(tmp_path: Path, authority: pki.Credential) -> None:
    site = _write(tmp_path / "site", SITE, "ship1", authority, pki.issue_site(authority, "ship1"))
    hub = _write(tmp_path / "hub", HUB, "hub.example.net", authority, pki.issue_hub(authority, "hub.example.net"))
    assert _loading(site) == []
    assert _loading(hub) == []


@pytest.mark.parametrize("begin", [-800, 300], ids=["expired", "not yet valid"])
def test_load_does_not_judge_the_clock(tmp_path: Path, authority: pki.Credential, begin: int) -> None:
    leaf = pki.issue_site(authority, "ship1", begin=datetime.now(UTC) + timedelta(days=begin))
    assert _loading(_write(tmp_path, SITE, "ship1", authority, leaf)) == []


def test_load_finds_missing_files_and_all_else(tmp_path: Path) -> None:
    path = tmp_path / "mpq.toml"
    path.write_text(changed(SITE, ('"wan5"\n\n[[wan]]', '"wan4"\n\n[[wan]]')).replace("/etc/mpq/pki", str(tmp_path)))
    assert _loading(path) == [
        'wan[1].interface: "wan4" is taken: wan[0] has the same WAN interface',
        "identity.key: DIR/ship1.key: No such file or directory",
        "identity.certificate: DIR/ship1.crt: No such file or directory",
        "identity.ca: DIR/ca.crt: No such file or directory",
    ]


def test_load_refuses_unsafe_or_foreign_files(tmp_path: Path, authority: pki.Credential) -> None:
    leaf = pki.issue_site(authority, "ship2")
    path = _write(tmp_path, SITE, "ship1", pki.issue_authority(), leaf)
    (tmp_path / "ship1.key").write_bytes(pki.issue_site(authority, "ship1").key_pem)
    (tmp_path / "ship1.key").chmod(0o640)
    mode, key, name, chain = _loading(path)
    assert mode == "identity.key: DIR/ship1.key: mode is 0640, must be 0600 or less"
    assert key == "identity.key: is not the key of DIR/ship1.crt"
    assert name == "identity.certificate: is mpq://site/ship2, not mpq://site/ship1"
    assert chain.startswith("identity.certificate: is not good for its CA: ")


def test_load_refuses_the_other_roles_certificate(tmp_path: Path, authority: pki.Credential) -> None:
    site = _write(tmp_path / "s", SITE, "ship1", authority, pki.issue_hub(authority, "ship1"))
    hub = _write(tmp_path / "h", HUB, "hub.example.net", authority, pki.issue_site(authority, "hub.example.net"))
    assert "no URI mpq://site/NAME" in _loading(site)[0]
    assert "names no host" in _loading(hub)[0]


def test_load_refuses_garbage(tmp_path: Path, authority: pki.Credential) -> None:
    path = _write(tmp_path, SITE, "ship1", authority, pki.issue_site(authority, "ship1"))
    (tmp_path / "ship1.key").write_text("garbage")
    (tmp_path / "ca.crt").write_text("garbage")
    assert _loading(path) == [
        "identity.key: DIR/ship1.key: no unencrypted P-256 private key in PEM",
        "identity.ca: DIR/ca.crt: no certificate in PEM",
    ]


def test_load_refuses_credentials_that_never_end_and_a_ca_that_is_none(
    tmp_path: Path, authority: pki.Credential
) -> None:
    path = _write(tmp_path, SITE, "ship1", authority, pki.issue_site(authority, "ship1"))
    (tmp_path / "ca.crt").write_bytes((tmp_path / "ship1.crt").read_bytes())
    assert _loading(path) == ["identity.ca: DIR/ca.crt: holds a certificate that is no CA's"]
    (tmp_path / "ship1.key").unlink()
    os.mkfifo(tmp_path / "ship1.key", 0o600)
    (tmp_path / "ca.crt").unlink()
    (tmp_path / "ca.crt").symlink_to("/dev/zero")
    assert _loading(path) == [
        "identity.key: DIR/ship1.key: not a regular file",
        "identity.ca: DIR/ca.crt: not a regular file",
    ]


def test_load_checks_uids_and_cpus(tmp_path: Path, authority: pki.Credential) -> None:
    text = changed(SITE, ("[supervisor]", "[supervisor]\nuid_base = 65520\ncpus = [0, 4000]"))
    first, second = _loading(_write(tmp_path, text, "ship1", authority, pki.issue_site(authority, "ship1")))
    assert first == "supervisor.uid_base: uid 65534 belongs to the user nobody"
    assert second.startswith("supervisor.cpus[1]: 4000: this host has 0 to ")


def test_load_without_a_readable_file(tmp_path: Path) -> None:
    assert _loading(tmp_path / "none.toml") == ["No such file or directory"]
    (tmp_path / "latin1.toml").write_bytes(b'role = "\xe4"')
    assert _loading(tmp_path / "latin1.toml") == ["byte 8: not UTF-8"]


def test_load_reads_files_that_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.toml")
    for path in (tmp_path / "pipe.toml", Path("/dev/zero")):
        assert _loading(path) == ["not a regular file"]
    with (tmp_path / "large.toml").open("wb") as file:
        file.truncate(MAX_SIZE + 1)
    assert _loading(tmp_path / "large.toml") == ["longer than 4 MiB"]


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


PORTAL = """
[portal]
{lines}
[[portal.token]]
name = "grafana"
role = "viewer"
hash = "sha256:{hash}"
expires = 2027-12-31
"""


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ("", None),
        ('address = ["127.0.0.1", "::1"]', None),
        ('address = "0.0.0.0"\ncertificate = "/c"\nkey = "/k"', None),
        ('address = "0.0.0.0"', "portal.address[0]: 0.0.0.0 is not this host's own: needs certificate and key"),
        ('address = ["::1", "::1"]', "portal.address[1]: ::1 is there twice"),
        ("address = []", "portal.address: needs at least one address"),
        ('certificate = "/c"', "portal.key: is missing, the other is there"),
        ('alarm = [{ name = "a", kind = "loss" }]', "portal.alarm[0].above: is missing"),
        ('alarm = [{ name = "a", kind = "down" }]', None),
        ('alarm = [{ name = "a", kind = "rtt", above = 1, clear = 2 }]', "portal.alarm[0].clear: is above `above`"),
        (
            'webhook = { url = "ftp://x", secret_file = "/s" }',
            "portal.webhook.url: must begin with https:// or http://",
        ),
        ("port = 0", "portal.port: Expected `int` >= 1"),
        ("history_mb = 1", "portal.history_mb: Expected `int` >= 16"),
    ],
)
@pytest.mark.parametrize("sample", [SITE, HUB], ids=["site", "hub"])
def test_portal(sample: str, lines: str, problem: str | None) -> None:
    found = problems_of(sample + PORTAL.format(lines=lines, hash="0" * 64))
    assert found == ([] if problem is None else [problem])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("sha256:0", "0", "portal.token[0].hash: \"" + "0" * 64 + "\" is no hash of a token"),
        ('role = "viewer"', 'role = "root"', "portal.token[0].role: must be one of viewer, operator, admin"),
        ("expires = 2027-12-31", 'expires = "soon"', "portal.token[0].expires: Invalid"),
        ("[portal]", "[[portal.token]]\nname = 'grafana'\nrole = 'admin'\nhash = 'sha256:" + "1" * 64 + "'\n[portal]",
         'portal.token[1].name: "grafana" is taken'),
    ],
)  # fmt: skip
def test_tokens(old: str, new: str, problem: str) -> None:
    (found,) = problems_of(SITE + PORTAL.format(lines="", hash="0" * 64).replace(old, new, 1))
    assert problem in found
