"""What is fuzzed: one function per target, which takes bytes and raises if its invariant does not hold.

`TARGETS` has them by name. A target is made once per process and called once per input; it is quick, does no I/O, and
an input means the same each time. The first byte, `mode`, says what the rest is fed to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from ipaddress import ip_address
from itertools import count
from types import SimpleNamespace
from typing import Any, cast

import msgspec
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion

from mpq_supervisor import guard, ruleset
from mpq_supervisor.config import ConfigError, parse
from mpq_supervisor.lifecycle import Life, State
from mpq_supervisor.orders import configure_hub, configure_site
from mpq_supervisor.plan import HubWorkerPlan, make_plan
from mpq_supervisor.requests import Code, Response, decode_request
from mpq_supervisor.status import HostStatus, worker_status
from mpq_supervisor.table import host_table, worker_page
from mpq_worker import contract
from mpq_worker.admission import HELLO_TIME
from mpq_worker.channel import Channel, ChannelClosed, ChannelFault, Later
from mpq_worker.endpoint import Endpoint
from mpq_worker.errors import PeerFault
from mpq_worker.hub import HubTunnel
from mpq_worker.inner import addresses
from mpq_worker.peer import Peer
from mpq_worker.quic.header import parse_header
from mpq_worker.quic.session import Address
from mpq_worker.tunnel import SiteTunnel
from mpq_worker.wire import ControlReader
from tests.fuzz import ends
from tests.fuzz.ends import NOW, SITE_ADDRESS, STRANGER, messages_of, quiet
from tests.fuzz.supervised import supervised
from tests.sim.conftest import HUB_ADDRESS, SITE_INNER
from tests.sim.packets import initial
from tests.unit.test_network import HUB as HUB_TOML
from tests.unit.test_network import SITE as SITE_TOML

Target = Callable[[bytes], None]
RENEWED = 500
"""A target that keeps its cores makes new ones after so many inputs."""


def datagrams() -> Target:
    """UDP payloads of strangers: each is one drop, no connection changes, and no answer is as long as its cause. They
    come a second apart, so that answers which are limited by rate are given."""
    flooded = ends.hub()
    flooded._admission._limits = contract.Limits(retry_from=0)
    full = ends.hub_of_one()[0]  # `initials` are the handshakes that begin
    full._admission._limits = contract.Limits(handshakes=0)
    cores: list[Endpoint] = [full, ends.site()[0], flooded]
    peers = [set(core._peers) for core in cores]
    clock = count(NOW)

    def run(data: bytes) -> None:
        core, now = cores[data[0] % 3], next(clock)
        if isinstance(core, HubTunnel):
            core._admission.overdue(now + HELLO_TIME)  # of the input before
        before = ends.drops(core)
        core.handle_udp(data[1:], STRANGER, now)
        answers = core.poll_transmit(now)
        assert ends.drops(core) == before + 1
        assert core._peers == peers[data[0] % 3]
        assert not answers or sum(len(answer) for answer, _ in answers) < len(data) - 1
        assert all(address == STRANGER for _, address in answers)
        quiet(core, now)

    return run


def mutations() -> Target:
    """A good packet of an established connection, changed or cut, does not open."""
    packets: list[tuple[Endpoint, Peer, bytes, Address]] = []
    for role, make, source in (("hub", ends.hub_of_one, SITE_ADDRESS), ("site", ends.site, HUB_ADDRESS)):
        core, peer = make()
        payload = b"\x31\x40\x65\x00" + bytes(100)
        packets.append((core, peer, ends.seal(peer.session, role, payload, 7), source))
    clock = count(NOW)

    def run(data: bytes) -> None:
        core, peer, packet, source = packets[data[0] & 1]
        now = next(clock)
        mangled = bytearray(packet)
        for where, mask in zip(data[1::2], data[2::2], strict=False):
            mangled[where % len(mangled)] ^= mask
        cut = bytes(mangled[: len(mangled) - data[0] // 2])
        if cut == packet:
            return
        before = peer.session.opened
        core.handle_udp(cut, source, now)
        quiet(core, now)
        assert peer.session.opened == before
        assert core._peers == {peer}

    return run


def initials() -> Target:
    """Frames in Initial packets, which need no secret, to a hub and to a site that waits for one. A hub sends no more
    than three times what came, also when it repeats itself and when it is stopped, and forgets in time; a site goes
    on."""

    def run(data: bytes) -> None:
        source: Address
        if data[0] & 1:
            core: Endpoint = ends.unanswered_site()
            header = parse_header(core.poll_transmit(NOW)[0][0])
            assert header is not None
            cid, to, source, is_client = header.destination_cid, header.source_cid, HUB_ADDRESS, False
        else:
            core, source, is_client = ends.hub(), STRANGER, True
            cid = to = b"\x05strange"
        keys = CryptoPair()
        keys.setup_initial(cid, is_client=is_client, version=QuicProtocolVersion.VERSION_1)
        received = sent = 0
        for number, payload in enumerate(split(data[1:], 4)):
            packet = initial(keys, to, cid, payload, number)
            received += len(packet)
            core.handle_udp(packet, source, NOW)
            for message in [message for message in messages_of(core) if isinstance(message, contract.SignRequest)]:
                core.handle_signature(message.seq, ends.sign(message.data), NOW)
            sent += sum(len(answer) for answer, _ in core.poll_transmit(NOW))
            if isinstance(core, HubTunnel):
                assert sent <= 3 * received
        if isinstance(core, HubTunnel):
            check_books(core)
            while (now := core.poll_timeout()) is not None and now < NOW + HELLO_TIME:
                core.handle_timer(now)
                sent += sum(len(answer) for answer, _ in core.poll_transmit(now))
            if data[0] & 2:
                core.handle_stop(NOW + HELLO_TIME)
            else:
                core.handle_timer(NOW + HELLO_TIME)
            sent += sum(len(answer) for answer, _ in core.poll_transmit(NOW + HELLO_TIME))
            assert sent <= 3 * received
            assert not core._peers
            check_books(core)
        else:
            core.handle_timer(NOW + 3.0)
            assert len(core._peers) == 1, "another attempt"

    return run


def frames() -> Target:
    """Frames in 1-RTT packets, of a site to its hub and of a hub to its site: nothing but the site's own packets
    comes out at a hub, and the books balance."""
    own = ip_address(SITE_INNER).packed

    def run(data: bytes) -> None:
        role, make, source = (("hub", ends.hub_of_one, SITE_ADDRESS), ("site", ends.site, HUB_ADDRESS))[data[0] & 1]
        core, peer = make()
        for number, payload in enumerate(split(data[1:], 4)):
            if peer not in core._peers:
                break
            core.handle_udp(ends.seal(peer.session, role, payload, number), source, NOW)
            core.poll_transmit(NOW)
        while (packet := core.poll_packet()) is not None:
            where = addresses(packet)
            assert where is not None
            assert where.source == own or isinstance(core, SiteTunnel)
        core.handle_timer(NOW + 0.5)
        core.poll_transmit(NOW + 0.5)
        core.report(NOW + 0.5)
        assert len(core._timers) < 50
        check_books(core)

    return run


def payloads() -> Target:
    """DATAGRAM payloads of an admitted site: delivered if it is a packet of its own, else one drop, or a refusal."""
    own = ip_address(SITE_INNER).packed
    core, peer = ends.hub_of_one()

    def run(data: bytes) -> None:
        core._drops.clear()
        refused = False
        try:
            core._datagram(peer, data, NOW)
        except PeerFault:
            refused = True
        delivered = core.poll_packet()
        where = addresses(data[1:]) if data[:1] == b"\x00" else None
        if where is not None and where.source == own:
            assert delivered == data[1:]
        else:
            probe = len(data) == 17 and data[0] in (1, 2)
            assert delivered is None
            assert probe + refused + sum(core._drops.values()) == 1
        peer.session._connection._datagrams_pending.clear()
        peer.session._pending_bytes = 0
        quiet(core)

    return run


def tun_packets() -> Target:
    """IP packets from a TUN: taken, or dropped and counted as one."""
    made: list[tuple[Endpoint, Endpoint]] = []
    number = count()

    def run(data: bytes) -> None:
        if next(number) % RENEWED == 0:
            made[:] = [(ends.hub_of_one()[0], ends.site()[0])]
        core = made[0][data[0] & 1]
        before = taken(core) + ends.drops(core)
        core.handle_packet(data[1:], NOW)
        quiet(core)
        assert taken(core) + ends.drops(core) == before + 1

    return run


def taken(core: Endpoint) -> int:
    """Packets from the TUN that were sent or wait for it."""
    return core.report(NOW).packets_out + sum(peer.left for peer in core._peers)


def control() -> Target:
    """The control stream: of somebody who has not said Hello, of an admitted site, of a hub; in pieces of any size.
    It is understood, or refused, and nobody is admitted by it."""
    strangers = ends.stranger()
    makers = (lambda: strangers, ends.hub_of_one, ends.site, lambda: strangers)

    def run(data: bytes) -> None:
        core, peer = makers[data[0] & 3]()
        if isinstance(core, HubTunnel):
            core._guests[peer].reader = ControlReader()
        size = 1 + (data[0] >> 2) * 8
        with contextlib.suppress(PeerFault):
            for begin in range(1, len(data), size):
                core._on_control(peer, data[begin : begin + size], NOW)
        if core is strangers[0]:
            assert core._guests[peer].site is None
            assert not core._current
        quiet(core)

    return run


def certificates() -> Target:
    """A site's certificate, DER: good, or refused."""
    anchor = ends.hub()._anchor

    def run(data: bytes) -> None:
        with contextlib.suppress(PeerFault):
            identity, _ = anchor.identify(data, ends.WORLD.wall)
            assert identity == "mpq://site/ship1"

    return run


def channel() -> Target:
    """The contract channel, all four directions: a message of it, the same when it is sent on, one of a later
    release, or a fault."""
    kinds = (contract.ToWorker, contract.FromWorker, contract.ToZygote, contract.FromZygote)
    nowhere = SimpleNamespace(setblocking=lambda flag: None)
    channels: list[Channel[Any]] = [Channel(cast(Any, nowhere), kind) for kind in kinds]

    def run(data: bytes) -> None:
        there = channels[data[0] & 3]
        body = data[1:]
        there._buffer[: len(body)] = body
        try:
            message = there._decode(len(body), 0, data[0] >> 2)
        except (ChannelFault, ChannelClosed, Later):
            return
        again = msgspec.msgpack.encode(message)
        there._buffer[: len(again)] = again
        assert msgspec.msgpack.encode(there._decode(len(again), 0, data[0] >> 2)) == again

    return run


def worker_says() -> Target:
    """What a worker that was broken into says to the supervisor: it is taken or its worker is unfit, and whatever of
    it is shown is one printable line each."""
    supervisors = [supervised(make_plan(parse(text))) for text in (SITE_TOML, HUB_TOML)]
    decoder = msgspec.msgpack.Decoder(contract.FromWorker)

    def run(data: bytes) -> None:
        worker, leader = supervisors[data[0] & 1]
        worker.life, worker.leader, leader.report = Life(State.STARTING), leader, contract.Report()
        try:
            message = decoder.decode(data[1:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return  # `channel` has these
        leader._handle(message)
        status = worker_status(worker, NOW, 0)
        host = HostStatus("hub", "hub.test", 1, 1.0, 1, 0, (status,), ())
        answer = msgspec.json.encode(Response(code=Code.OK, status=host))
        shown = msgspec.json.decode(answer, type=Response).status
        assert shown is not None
        for text in (host_table(shown), *map(worker_page, shown.workers)):
            assert all(line.isprintable() for line in text.split("\n"))

    return run


def ctl() -> Target:
    """A line that comes by the control socket: a request, the same when it is sent on, or an answer of one line."""

    def run(data: bytes) -> None:
        request = decode_request(data)
        if isinstance(request, Response):
            assert len(msgspec.json.encode(request)) < 1000
            assert request.code is Code.USAGE
        else:
            assert decode_request(msgspec.json.encode(request)) == request

    return run


def configuration() -> Target:
    """A configuration file: all its problems by their path, or a plan from which everything else follows."""

    def run(data: bytes) -> None:
        try:
            plan = make_plan(parse(data.decode(errors="replace")))
        except ConfigError as error:
            if not error.problems:
                raise
            return
        ruleset.render(plan)
        for worker in plan.workers:
            if isinstance(worker, HubWorkerPlan):
                guard.render(plan)
                message: msgspec.Struct = configure_hub(worker, plan, ends.CREDENTIALS, bytes(32), bytes(32))
            else:
                message = configure_site(worker, plan, ends.CREDENTIALS, ("192.0.2.1", 1))
            again = msgspec.msgpack.decode(msgspec.msgpack.encode(message), type=contract.ToWorker)
            assert again == message

    return run


TARGETS: dict[str, Callable[[], Target]] = {
    make.__name__: make
    for make in (
        datagrams, mutations, initials, frames, payloads, tun_packets, control, certificates, channel, worker_says,
        ctl, configuration,
    )
}  # fmt: skip


# ---------------------------------------------------------------- helpers


def split(data: bytes, most: int) -> list[bytes]:
    """Up to `most` packets' payloads: a length (2) and so many bytes each; the last has the rest."""
    parts: list[bytes] = []
    while len(data) > 2 and len(parts) < most:
        size = int.from_bytes(data[:2], "big") % 1400
        parts.append(data[2 : 2 + size])
        data = data[2 + size :]
    return [part for part in parts if part]


def check_books(core: Endpoint) -> None:
    """Whatever the core knows is of connections that it has."""
    assert set(core._by_cid.values()) <= core._peers
    assert set(core._signing.values()) <= core._peers
    if isinstance(core, HubTunnel):
        assert set(core._guests) == core._peers
        assert set(core._admission._strangers) <= core._peers
        assert set(core._current.values()) <= core._peers
