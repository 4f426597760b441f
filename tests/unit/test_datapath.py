"""Native paths speak QUIC as aioquic does, and lose, repeat and invent nothing."""

from __future__ import annotations

import random

import pytest
from aioquic.tls import CipherSuite
from hypothesis import given, settings
from hypothesis import strategies as st

from mpq_worker._datapath import FOREIGN_SOURCE, PHASE_CHANGED
from tests.sim.packets import packet
from tests.unit.quic_packets import INNER, forge, frames_of
from tools.paths import End, ends

SUITES = [
    CipherSuite.AES_128_GCM_SHA256,
    CipherSuite.AES_256_GCM_SHA384,
    CipherSuite.CHACHA20_POLY1305_SHA256,
]


@pytest.mark.parametrize("suite", SUITES)
def test_aioquic_opens_what_is_sealed(suite: CipherSuite) -> None:
    site, _ = ends(suite=suite)
    packets = [packet(*INNER, number=i, size=1400) for i in range(100)]
    datagrams = site.send(*packets)
    assert [len(data) for data in datagrams] == [1431] * 100
    for number, data in enumerate(datagrams):
        payload = frames_of(site, data, 1)
        assert payload == b"\x30\x00" + packets[number]


@pytest.mark.parametrize("suite", SUITES)
def test_what_aioquic_seals_is_opened(suite: CipherSuite) -> None:
    site, _ = ends(suite=suite)
    inner = packet(*INNER, size=333)
    data = forge(site, b"\x00\x01\x00\x30\x00" + inner, 0)
    assert site.receive(data) == [inner]


def test_small_packets_share_a_datagram() -> None:
    site, hub = ends()
    packets = [packet(*INNER, number=i, size=64) for i in range(60)]
    datagrams = site.send(*packets)
    assert len(datagrams) == 3
    assert max(len(data) for data in datagrams) <= 1431
    assert hub.receive(*datagrams) == packets


@settings(max_examples=60)
@given(st.lists(st.integers(28, 1400), max_size=120), st.sampled_from(SUITES))
def test_every_size_arrives(sizes: list[int], suite: CipherSuite) -> None:
    site, hub = ends(suite=suite)
    packets = [packet(*INNER, number=i, size=size) for i, size in enumerate(sizes)]
    datagrams = site.send(*packets)
    assert all(len(data) <= 1431 for data in datagrams)
    assert hub.receive(*datagrams) == packets


def test_several_in_one_receipt() -> None:
    site, hub = ends()
    packets = [packet(*INNER, number=i, size=1400) for i in range(40)]
    assert hub.datapath.datagram(b"".join(site.send(*packets)), 0.0, segment=1431) == []
    hub.datapath.flush(0.0)
    assert [frame[10:] for frame in hub.datapath.take_frames()] == packets


def test_a_packet_counts_once_and_reordering_by_thousands_is_no_loss() -> None:
    site, hub = ends()
    packets = [packet(*INNER, number=i, size=1000) for i in range(9000)]
    datagrams = [data for one in packets for data in site.send(one)]
    assert len(hub.receive(*datagrams[8500:])) == 500
    assert len(hub.receive(*datagrams[:8500])) == 8500
    assert hub.receive(*random.Random(1).sample(datagrams, 2000)) == []
    assert hub.datapath.drops()["duplicate"] == 2000


def test_what_is_older_than_the_window_is_dropped() -> None:
    _, hub = ends()
    inner = b"\x30\x00" + packet(*INNER)
    assert len(hub.receive(forge(hub, inner, 20_000, seed=1))) == 1
    assert len(hub.receive(forge(hub, inner, 20_000 - 16_383, seed=1))) == 1
    assert hub.receive(forge(hub, inner, 20_000 - 16_384, seed=1)) == []


def test_what_does_not_open_is_counted() -> None:
    site, hub = ends()
    key, iv, _ = site.derive(3)
    hub.path.set_next_key(key, iv)
    (data,) = site.send(packet(*INNER))
    for i in range(len(data)):
        bad = data[:i] + bytes((data[i] ^ 1,)) + data[i + 1 :]
        hub.datapath.datagram(bad, 0.0)
    assert hub.path.opened == 0
    assert hub.path.failed == hub.datapath.drops()["unopened"] == len(data) - len(hub.cid)
    assert hub.receive(data) == [packet(*INNER)]


STRANGE = {
    "stream": b"\x08\x00hello",
    "close": b"\x1d\x41\x00\x00",
    "path challenge": b"\x1a" + bytes(8),
    "two acks": b"\x02\x00\x00\x00\x00" * 2,
    "ack of what was not sent": b"\x02\x05\x00\x00\x00",
    "ack below zero": b"\x02\x00\x00\x01\x00\x00\x00",
    "ack cut short": b"\x02\x00\x00",
    "datagram beyond the end": b"\x31\x40\xff\x00",
    "unknown": b"\x2f" + bytes(20),
}


@pytest.mark.parametrize("what", STRANGE)
def test_other_frames_are_left_to_python_with_all_that_is_beside_them(what: str) -> None:
    site, _ = ends()
    site.send(packet(*INNER))
    data = forge(site, b"\x31\x21\x00" + packet(*INNER, size=32) + STRANGE[what], 0)
    assert site.datapath.datagram(data, 0.0) == [data]
    site.datapath.flush(0.0)
    assert site.datapath.take_frames() == []
    assert not site.path.has_received(0)


@pytest.mark.parametrize("first", [0x4B, 0x53])
def test_reserved_bits_are_left_to_python(first: int) -> None:
    site, _ = ends()
    data = forge(site, b"\x01\x00\x00\x00", 0, first=first)
    assert site.datapath.datagram(data, 0.0) == [data]


def test_strangers_are_left_to_python() -> None:
    site, _ = ends()
    for data in (b"", b"\x40", bytes(1200), b"\xc0" + bytes(1199), b"\x40" + b"unknown!" + bytes(30)):
        assert site.datapath.datagram(data, 0.0) == ([data] if data else [])


def test_another_address_is_left_to_python() -> None:
    hub = End(2, 1, hub=True)
    hub.path.set_peer(bytes([1]) * 8, b"", b"address A")
    data = forge(hub, b"\x01\x00\x00\x00", 0, seed=1)
    assert hub.datapath.datagram(data, 0.0, b"address B") == [data]
    assert hub.datapath.datagram(data, 0.0, b"address A") == []


def test_a_stateless_reset_is_left_to_python() -> None:
    site, _ = ends()
    token = bytes(range(16))
    site.path.set_peer(bytes([2]) * 8, token, b"")
    reset = b"\x41" + site.cid + bytes(20) + token
    assert site.datapath.datagram(reset, 0.0) == [reset]
    assert site.datapath.datagram(reset[:-1] + b"\xff", 0.0) == []


# ------------------------------------------------------------------ queue


def test_a_full_queue_and_codel_count_their_drops() -> None:
    site, _ = ends()
    site.configure(window=0)
    site.send(*[packet(*INNER, size=1400)] * 120)
    full, codel = site.path.drops
    assert (full, codel) == (120 - 131_072 // 1400, 0)
    site.configure(window=1 << 24, rate=200_000.0)
    now = 1.0
    while site.path.waits:
        site.flush(now)
        site.datapath.take_events()
        now = site.datapath.deadline() or now
    assert site.path.drops[1] > 0
    assert site.path.totals[2] + site.path.drops[1] == 120 - full
    counted = site.datapath.drops()
    assert (counted["queue_full"], counted["codel"]) == site.path.drops


def test_messages_go_first_and_come_out_beside_the_packets() -> None:
    site, hub = ends()
    site.configure(window=0)
    site.datapath.frame(packet(*INNER), 0.0)
    assert site.path.send_message(b"\x01ping")
    site.configure()
    inner = hub.receive(*site.flush())
    assert hub.datapath.take_other() == [(hub.path, b"\x01ping")]
    assert inner == [packet(*INNER)]


def test_a_packet_larger_than_the_path_takes_is_returned() -> None:
    site, _ = ends(mtu=1300)
    big = packet(*INNER, size=1400)
    assert site.send(big) == []
    assert site.datapath.take_too_big() == [(big[:1280], 1300)]
    site.path.inner_mtu = 1400
    assert [len(data) for data in site.send(big)] == [1431]


def test_a_probe_of_the_path_is_acknowledged() -> None:
    site, hub = ends()
    number = site.path.probe_mtu(1600, 1.0)
    data, small = site.flush(1.0)
    assert (len(data), len(small)) == (1600, 30)
    hub.receive(data, now=1.0)
    assert hub.path.has_received(number)
    assert hub.datapath.deadline() is not None


def test_a_probe_that_is_lost_is_no_loss_but_large_packets_are_counted() -> None:
    site, _ = ends()
    probe = site.path.probe_mtu(1600, 1.0)
    site.path.acknowledge([(probe + 1, probe + 1)], 0.0, 1.02)
    site.path.detect_loss(1.1)
    assert site.path.take_fates() == [(probe, False)]
    assert site.path.take_ack()[:3] == (1, 30, 0)
    assert site.path.large_lost == 1
    site.send(*[packet(*INNER, size=1400)] * 9, now=2.0)  # 2 to 10
    site.path.acknowledge([(10, 10)], 0.0, 2.02)
    assert (site.path.take_ack()[2], site.path.large_lost) == (6, 0)  # one of that size has arrived


# ------------------------------------------------------------------ keys


def test_the_peers_next_key_takes_over_and_the_old_one_lives_on() -> None:
    site, hub = ends()
    early, late, much_later = (site.send(packet(*INNER, number=i)) for i in range(3))
    key, iv, _ = site.derive(3)
    hub.path.set_next_key(key, iv)
    site.path.set_send_key(key, iv, True)
    updated = site.send(packet(*INNER, number=3))
    assert site.path.sealed == 1
    assert hub.receive(*early, *updated, *late, now=1.0) == [packet(*INNER, number=i) for i in (0, 3, 1)]
    assert [event for _, event in hub.datapath.take_events()] == [PHASE_CHANGED]
    assert (hub.path.receive_phase, hub.path.phase_start) == (1, 3)
    assert hub.datapath.datagram(much_later[0], 1.31) == much_later  # three PTOs have passed


def test_a_key_that_is_not_there_yet_is_pythons_business() -> None:
    site, hub = ends()
    key, iv, _ = site.derive(3)
    site.path.set_send_key(key, iv, True)
    data = site.send(packet(*INNER))
    assert hub.datapath.datagram(data[0], 0.0) == data


# ------------------------------------------------------------------ the hub's tables


def test_a_source_must_belong_to_its_connection() -> None:
    site, _ = ends()
    hub = End(2, 1, hub=True)
    good, bad = packet(*INNER), packet("10.200.11.6", "192.0.2.1")
    hub.path.allow([])
    assert hub.receive(*site.send(good)) == []
    assert hub.datapath.drops()["unauthenticated"] == 1
    hub.path.allow(
        [(bytes([10, 200, 11, 5]), 32), (bytes([172, 16, 2, 0]), 24), (bytes.fromhex("20010db8") + bytes(12), 32)]
    )
    hub.datapath.take_events()
    assert hub.receive(*site.send(good, bad)) == [good]
    assert [event for _, event in hub.datapath.take_events()] == [FOREIGN_SOURCE]
    assert hub.path.take_foreign_source() == bytes([10, 200, 11, 6])
    assert hub.datapath.drops()["source"] == 1
    prefixed = [packet("172.16.2.77", "192.0.2.1"), packet("2001:db8:1::5", "2001:db9::1")]
    strange = [packet("172.16.3.1", "192.0.2.1"), packet("2001:db9::5", "2001:db9::1")]
    assert hub.receive(*site.send(*prefixed, *strange)) == prefixed


def test_the_longest_prefix_wins() -> None:
    hub = End(2, 1, hub=True)
    hub.datapath.route(bytes([172, 16, 0, 0]), 12, hub.path)
    assert len(hub.send(packet("192.0.2.1", "172.17.0.1"))) == 1
    hub.datapath.route(bytes([172, 17, 0, 1]), 32, hub.path)
    hub.datapath.route(bytes([172, 16, 0, 0]), 12, None)
    assert len(hub.send(packet("192.0.2.1", "172.17.0.1"))) == 1
    assert hub.send(packet("192.0.2.1", "172.17.0.2")) == []
    assert hub.datapath.drops()["no_path"] == 1


def test_tables_keep_what_they_are_given() -> None:
    hub = End(2, 1, hub=True)
    addresses = [random.Random(i).randbytes(4 if i % 2 else 16) for i in range(2000)]
    for address in addresses:
        hub.datapath.route(address, 8 * len(address), hub.path)
    for address in addresses[::3]:
        hub.datapath.route(address, 8 * len(address), None)

    def to(address: bytes) -> bytes:
        if len(address) == 4:
            return packet("192.0.2.1", ".".join(map(str, address)))
        return packet("2001:db8::1", ":".join(address.hex()[i : i + 4] for i in range(0, 32, 4)))

    kept = [a for i, a in enumerate(addresses) if i % 3 and a[0] < 0xE0]
    gone = [a for i, a in enumerate(addresses) if i % 3 == 0 and a[0] < 0xE0]
    assert len(hub.send(*[to(a) for a in kept])) > 0
    assert hub.path.totals[2] == len(kept)
    hub.send(*[to(a) for a in gone])
    assert hub.path.totals[2] == len(kept)


def test_multicast_and_garbage_stay_at_home() -> None:
    site, _ = ends()
    assert site.send(b"", b"\x45", packet("10.0.0.1", "224.0.0.1"), packet("fe80::1", "ff02::2")) == []
    counted = site.datapath.drops()
    assert (counted["not_ip"], counted["local"]) == (2, 2)


def test_a_path_that_goes_takes_its_queue_along() -> None:
    site, _ = ends()
    site.configure(window=0)
    site.send(*[packet(*INNER, size=1400)] * 3)
    site.datapath.remove(site.path)
    assert site.datapath.drops()["queue_full"] == 3
    assert site.send(packet(*INNER)) == []
    assert site.datapath.drops()["no_path"] == 1


def test_a_path_that_goes_leaves_no_trace_in_the_tables() -> None:
    hub = End(2, 1, hub=True)
    addresses = [random.Random(i).randbytes(4) for i in range(300)]
    for address in addresses:
        hub.datapath.route(address, 32, hub.path)
        hub.datapath.bind(address + address, hub.path)
    hub.datapath.remove(hub.path)
    packets = [packet("192.0.2.1", ".".join(map(str, address))) for address in addresses if address[0] < 0xE0]
    packets = [data for data in packets if data[16:18] != b"\xa9\xfe"]
    assert hub.send(*packets) == []
    assert hub.datapath.drops()["no_path"] == len(packets)
    data = b"\x40" + addresses[0] * 2 + bytes(40)
    assert hub.datapath.datagram(data, 0.0) == [data]
    with pytest.raises(ValueError, match="removed"):
        hub.datapath.bind(hub.cid, hub.path)
    with pytest.raises(ValueError, match="removed"):
        hub.datapath.route(addresses[0], 32, hub.path)
    with pytest.raises(ValueError, match="removed"):
        hub.datapath.use(hub.path)
