"""Peers that hold good keys and say anything: frames that QUIC allows and frames that it does not, before and after
the handshake. What opens in a packet comes from `forge`, so that an input means the same whatever the keys are.
"""

from __future__ import annotations

from aioquic.buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mpq_worker.contract import Ready
from mpq_worker.hub import HubTunnel
from mpq_worker.peer import Peer
from tests.sim.conftest import HUB_INNER, World
from tests.sim.network import Node
from tests.sim.packets import number_of, packet
from tests.unit.sessions import forge

RUNS = settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
NUMBERS = st.one_of(
    st.integers(0, 20), st.sampled_from([63, 64, 1200, 16_383, 16_384, 65_536, 2**30, 2**60, 2**62 - 1])
)


def varint(number: int) -> bytes:
    buffer = Buffer(capacity=8)
    buffer.push_uint_var(number)
    return buffer.data


def numbers(count: int) -> st.SearchStrategy[bytes]:
    return st.tuples(*[NUMBERS] * count).map(lambda found: b"".join(map(varint, found)))


def frame(kind: int, body: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return body.map(lambda data: varint(kind) + data)


SHORT = st.binary(max_size=60)
WITH_LENGTH = SHORT.map(lambda data: varint(len(data)) + data)
NEW_ID = st.tuples(
    numbers(2), st.integers(0, 21).map(lambda n: bytes((n,)) + b"c" * n), st.binary(min_size=16, max_size=16)
)
FRAMES = st.one_of(
    frame(0x01, st.just(b"")),
    frame(0x02, numbers(4)),
    frame(0x02, st.tuples(numbers(2), st.just(b"\x03"), numbers(7)).map(b"".join)),
    frame(0x03, numbers(7)),
    frame(0x04, numbers(3)),
    frame(0x05, numbers(2)),
    frame(0x06, st.tuples(numbers(1), WITH_LENGTH).map(b"".join)),
    frame(0x07, WITH_LENGTH),
    *(frame(kind, st.tuples(numbers(2), WITH_LENGTH).map(b"".join)) for kind in (0x0E, 0x0F)),
    *(frame(kind, numbers(1)) for kind in (0x10, 0x12, 0x13, 0x14, 0x16, 0x17, 0x19)),
    *(frame(kind, numbers(2)) for kind in (0x11, 0x15)),
    frame(0x18, NEW_ID.map(b"".join)),
    *(frame(kind, st.binary(min_size=8, max_size=8)) for kind in (0x1A, 0x1B)),
    frame(0x1C, st.tuples(numbers(2), WITH_LENGTH).map(b"".join)),
    frame(0x1D, st.tuples(numbers(1), WITH_LENGTH).map(b"".join)),
    frame(0x1E, st.just(b"")),
    frame(0x31, WITH_LENGTH),
    frame(0x30, SHORT),
    st.binary(min_size=1, max_size=60),
)
PACKETS = st.lists(st.lists(FRAMES, min_size=1, max_size=8).map(b"".join), min_size=1, max_size=6)


def initial(payload: bytes, number: int) -> bytes:
    """A client's Initial with any frames in it, which needs no secret (RFC 9001 section 5.2)."""
    cid = b"\x05stranger"[:8]
    keys = CryptoPair()
    keys.setup_initial(cid, is_client=True, version=QuicProtocolVersion.VERSION_1)
    payload = payload.ljust(1200 - 44, b"\x00")
    length = (len(payload) + 2 + 16 | 0x4000).to_bytes(2, "big")
    header = b"\xc1\x00\x00\x00\x01\x08" + cid + b"\x08" + cid + b"\x00" + length + number.to_bytes(2, "big")
    packet = keys.encrypt_packet(header, payload, number)
    assert len(packet) >= 1200, "a shorter one is not looked at"
    return packet


def build() -> tuple[World, Node, Node, Node]:
    """A hub, ship1 that will go bad, and ship2 that stays good."""
    world = World()
    world.entry("ship1", "10.200.11.5")
    world.entry("ship2", "10.200.11.17")
    return world, world.add_hub(), world.add_site(), world.add_site("ship2", ("10.200.11.17",), port=46099)


def peer_at(node: Node, port: int) -> Peer:
    (peer,) = [peer for peer in node.core._peers if peer.session.address[1] == port]
    return peer


def check(world: World, hub: Node, good: Node) -> None:
    """The hub's books balance, and the good site lost nothing."""
    core = hub.core
    assert isinstance(core, HubTunnel)
    assert set(core._guests) == core._peers
    assert set(core._by_cid.values()) <= core._peers
    assert set(core._admission._strangers) <= core._peers
    assert set(core._current.values()) <= core._peers
    assert len(core._peers) <= 2 + world.limits.handshakes
    assert len(core._timers) < 200
    hub.delivered.clear()
    good.delivered.clear()
    world.net.send_packet(good, packet("10.200.11.17", HUB_INNER, 1))
    world.net.send_packet(hub, packet(HUB_INNER, "10.200.11.17", 2))
    world.net.run(0.1)
    mine = [number_of(data) for _, data in hub.delivered if data[12:16] == bytes((10, 200, 11, 17))]
    assert mine == [1]
    assert [number_of(data) for _, data in good.delivered] == [2]


@RUNS
@given(payloads=PACKETS)
@example(payloads=[b"\x18\x09\x09\x14" + b"z" * 20 + bytes(16)])  # a connection ID too long for a full packet
@example(payloads=[b"\x31\x02\x01\x00" * 100])  # a hundred probes that are none
@example(payloads=[b"\x19\x00" * 8, b"\x19\x01"])  # retires the connection ID it uses
@example(payloads=[b"\x02\x7f\xff\x00\x00\x00"])  # acknowledges what was never sent
def test_frames_of_a_site_gone_bad(payloads: list[bytes]) -> None:
    world, hub, site, good = build()
    world.net.run(0.2)
    assert Ready() in good.messages
    session = peer_at(site, 45011).session
    for payload in payloads:
        if session.closed:
            break
        hub.core.handle_udp(forge(session, payload), site.addr, world.net.now)
        world.net.flush(hub)
        world.net.run(0.01)
    world.net.run(0.3)
    check(world, hub, good)


@RUNS
@given(payloads=PACKETS)
@example(payloads=[b"\x1d\x41\x00\x05a\n\x1b[m"])  # a refusal that is none to print
def test_frames_of_a_hub_gone_bad(payloads: list[bytes]) -> None:
    """The site's worker outlives it and comes back by itself, unless it was told that it is refused."""
    world, hub, site, good = build()
    world.net.run(0.2)
    assert Ready() in site.messages
    session = peer_at(hub, 46011).session
    for payload in payloads:
        if session.closed:
            break
        site.core.handle_udp(forge(session, payload), hub.addr, world.net.now)
        world.net.flush(site)
        world.net.run(0.01)
    world.net.run(0.5)
    assert len(site.core._peers) <= 2
    assert set(site.core._by_cid.values()) <= site.core._peers
    check(world, hub, good)


@RUNS
@given(payloads=PACKETS)
@example(payloads=[b"\x06\x00\x04\x01\x00\x00\x00"])  # a ClientHello without content
@example(payloads=[b"\x06\x7f\xff\x01x" * 50])  # far beyond what is held of a handshake
def test_first_packets_of_strangers(payloads: list[bytes]) -> None:
    world, hub, _, good = build()
    world.net.run(0.2)
    stranger = ("192.0.2.66", 6666)
    for number, payload in enumerate(payloads):
        hub.core.handle_udp(initial(payload, number), stranger, world.net.now)
        world.net.flush(hub)
        world.net.run(0.01)
    world.net.run(6.0)  # HELLO_TIME is over
    assert len(hub.core._peers) == 2
    assert set(hub.core.report(world.net.now).refusals) <= {"timeout"}
    check(world, hub, good)


@settings(RUNS, max_examples=80)
@given(
    which=st.integers(0, 11),
    flips=st.lists(st.tuples(st.integers(0, 1430), st.integers(1, 255)), max_size=4),
    cut=st.integers(0, 1431),
    late=st.booleans(),
)
@example(which=0, flips=[(1199, 1)], cut=1431, late=False)
def test_handshakes_that_are_tampered_with(which: int, flips: list[tuple[int, int]], cut: int, late: bool) -> None:
    """One datagram of the handshake, either way, arrives mangled too, before or after the true one."""
    world, hub, site, good = build()
    seen = 0
    for node in (hub, site):
        take = node.core.handle_udp

        def tamper(data: bytes, addr: object, now: float, take=take) -> None:  # type: ignore[no-untyped-def]
            nonlocal seen
            mangled = bytearray(data[: max(1, cut)])
            for where, mask in flips:
                mangled[where % len(mangled)] ^= mask
            mine, seen = seen == which, seen + 1
            for piece in (data, bytes(mangled)) if late else (bytes(mangled), data):
                if mine or piece is data:
                    take(piece, addr, now)

        node.core.handle_udp = tamper  # type: ignore[method-assign]
    world.net.run(2.0)
    assert seen > which
    assert Ready() in good.messages
    assert Ready() in site.messages
    check(world, hub, good)
