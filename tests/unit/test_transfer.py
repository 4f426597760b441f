"""The stream of a transfer: the right bytes are right in whatever pieces they come, and no others are."""

from __future__ import annotations

import random

import pytest

from tools.transfer import BLOCK, PIECE, Stream

SIZE = 2 * BLOCK + 12_345


def sent(limit: int = PIECE) -> bytes:
    stream, pieces = Stream(), []
    while stream.size < SIZE:
        piece = stream.next_piece(min(limit, SIZE - stream.size))
        pieces.append(bytes(piece))
        stream.size += len(piece)
    return b"".join(pieces)


def first_wrong(data: bytes, seed: int = 1) -> int | None:
    """Received in pieces of any size."""
    stream, lot, at, wrong = Stream(), random.Random(seed), 0, None
    while wrong is None and at < len(data):
        piece = data[at : at + lot.randint(1, PIECE)]
        wrong = stream.find_wrong(piece)
        at += len(piece)
    assert wrong is not None or stream.size == len(data)
    return wrong


@pytest.mark.parametrize("limit", [4096, 100_001, PIECE])
def test_pieces_do_not_matter(limit: int) -> None:
    assert first_wrong(sent(limit), limit) is None


@pytest.mark.parametrize("at", [0, BLOCK - 1, BLOCK, SIZE - 1])
def test_one_flipped_bit_is_found_where_it_is(at: int) -> None:
    data = bytearray(sent())
    data[at] ^= 1
    assert first_wrong(bytes(data)) == at


def test_what_is_left_out_or_said_twice_is_found() -> None:
    data = sent()
    for size in (1, 1360, 65_536):
        assert first_wrong(data[:500_000] + data[500_000 + size :]) is not None
        assert first_wrong(data[:500_000] + data[500_000 - size :]) is not None
