"""A token is good from where it was sent to, for what it was given for, in its time."""

from __future__ import annotations

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import QuicPacketType, get_retry_integrity_tag, pull_quic_header

from mpq_worker.quic.header import CID_LENGTH, Header
from mpq_worker.quic.retry import LIFETIME, RetryTokens

KEY, SLOT, NOW = b"r" * 32, 5, 1000.0
FIRST = Header(b"\x05original-id", True, True, b"site-cid")
WHERE = ("192.0.2.7", 4711)


@pytest.fixture
def tokens() -> RetryTokens:
    return RetryTokens(KEY, SLOT)


def second(packet: bytes) -> Header:
    """The client's next Initial."""
    header = pull_quic_header(Buffer(data=packet), host_cid_length=CID_LENGTH)
    return Header(header.source_cid, True, True, FIRST.source_cid, header.token)


def test_the_retry_packet(tokens: RetryTokens) -> None:
    packet = tokens.retry(FIRST, *WHERE, NOW)
    header = pull_quic_header(Buffer(data=packet), host_cid_length=CID_LENGTH)
    assert header.packet_type is QuicPacketType.RETRY
    assert header.destination_cid == FIRST.source_cid
    assert len(header.source_cid) == CID_LENGTH
    assert header.source_cid[0] == SLOT  # so that the kernel brings the answer here
    assert header.integrity_tag == get_retry_integrity_tag(packet[:-16], FIRST.destination_cid, version=1)
    assert len(packet) < 120  # for 1200 bytes: no use to an amplifier


def test_the_token_comes_back(tokens: RetryTokens) -> None:
    answer = second(tokens.retry(FIRST, *WHERE, NOW))
    assert tokens.redeem(answer, *WHERE, NOW + 0.6) == FIRST.destination_cid
    assert RetryTokens(KEY, SLOT + 1).redeem(answer, *WHERE, NOW) == FIRST.destination_cid  # the next worker too
    assert RetryTokens(b"s" * 32, SLOT).redeem(answer, *WHERE, NOW) is None


@pytest.mark.parametrize(
    ("host", "port", "later"),
    [
        pytest.param("192.0.2.8", 4711, 0.1, id="another host"),
        pytest.param("192.0.2.7", 4712, 0.1, id="another port"),
        pytest.param("192.0.2.7", 4711, LIFETIME + 0.001, id="too late"),
        pytest.param("192.0.2.7", 4711, -0.001, id="before its time: of another boot"),
    ],
)
def test_elsewhere_or_at_another_time(tokens: RetryTokens, host: str, port: int, later: float) -> None:
    answer = second(tokens.retry(FIRST, *WHERE, NOW))
    assert tokens.redeem(answer, host, port, NOW + later) is None


def test_to_another_connection_id(tokens: RetryTokens) -> None:
    answer = second(tokens.retry(FIRST, *WHERE, NOW))
    assert tokens.redeem(answer._replace(destination_cid=b"\x05another"), *WHERE, NOW) is None


def test_every_bit_counts(tokens: RetryTokens) -> None:
    answer = second(tokens.retry(FIRST, *WHERE, NOW))
    for bit in range(8 * len(answer.token)):
        forged = bytearray(answer.token)
        forged[bit // 8] ^= 1 << bit % 8
        assert tokens.redeem(answer._replace(token=bytes(forged)), *WHERE, NOW) is None
    for length in range(1, len(answer.token)):
        assert tokens.redeem(answer._replace(token=answer.token[:length]), *WHERE, NOW) is None
    assert tokens.redeem(answer._replace(token=bytes(1000) + answer.token), *WHERE, NOW) is None
