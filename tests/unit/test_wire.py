"""Control messages in every split, and what is not one; probes; words of a peer."""

from __future__ import annotations

import msgspec
import pytest

from mpq_worker.errors import PeerFault, Refusal
from mpq_worker.wire import (
    CONTEXT_PROBE,
    CONTEXT_PROBE_REPLY,
    DATAGRAM_OVERHEAD,
    MAX_CONTROL_MESSAGE,
    MAX_REASON,
    Claims,
    Control,
    ControlReader,
    Hello,
    Welcome,
    decode_claims,
    decode_probe,
    encode_claims,
    encode_control,
    encode_probe,
    hello_transcript,
    one_line,
)

CLAIMS = Claims((1, 2), 2, ("10.0.0.5", "fd00::5"), b"certificate", ("a",))
HELLO = Hello(encode_claims(CLAIMS), b"signature")
WELCOME = Welcome(1, ("10.0.0.254",))


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(2, "big") + body


def test_every_split() -> None:
    stream = encode_control(HELLO) + encode_control(WELCOME)
    for cut in range(len(stream) + 1):
        reader = ControlReader()
        assert reader.feed(stream[:cut]) + reader.feed(stream[cut:]) == [HELLO, WELCOME]


def test_byte_by_byte() -> None:
    reader = ControlReader()
    received: list[Control] = []
    for byte in encode_control(WELCOME) * 3:
        received += reader.feed(bytes((byte,)))
    assert received == [WELCOME] * 3
    assert reader.feed(b"") == []


def test_largest_message() -> None:
    body = encode_control(HELLO)[2:]
    room = MAX_CONTROL_MESSAGE - len(body) - 2  # a longer bin header
    hello = msgspec.structs.replace(HELLO, claims=b"c" * (len(HELLO.claims) + room))
    data = encode_control(hello)
    assert MAX_CONTROL_MESSAGE - 2 <= len(data) - 2 <= MAX_CONTROL_MESSAGE
    assert ControlReader().feed(data) == [hello]


@pytest.mark.parametrize("length", [MAX_CONTROL_MESSAGE + 1, 65_535])
def test_too_large_is_refused_by_its_length_alone(length: int) -> None:
    with pytest.raises(PeerFault) as caught:
        ControlReader().feed(length.to_bytes(2, "big"))
    assert caught.value.refusal is Refusal.MALFORMED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x80",
        b"hello",
        msgspec.msgpack.encode({"type": 7}),
        msgspec.msgpack.encode({"kind": "hello"}),
        msgspec.msgpack.encode({"type": "hello"}),
        msgspec.msgpack.encode({"type": "welcome", "version": "1", "inner": []}),
        msgspec.msgpack.encode({"type": "welcome", "version": 2**70 // 2**8, "inner": [1]}),
        msgspec.msgpack.encode(["hello"]),
        encode_control(HELLO)[2:] + b"\x00",
        b"\x91" * MAX_CONTROL_MESSAGE,
        b"\x82\xa4type\xa5hello\xa1x" + b"\x91" * 8000,
        b"\x81\xa4type\xa5hel\xff\xfe",
    ],
)
def test_not_a_message(body: bytes) -> None:
    with pytest.raises(PeerFault) as caught:
        ControlReader().feed(framed(body))
    assert caught.value.refusal is Refusal.MALFORMED


def test_fields_of_a_later_release_are_ignored() -> None:
    later = msgspec.msgpack.encode({"type": "welcome", "version": 1, "inner": ["10.0.0.254"], "colour": "blue"})
    assert ControlReader().feed(framed(later)) == [WELCOME]


def test_messages_of_a_later_release_are_skipped() -> None:
    later = framed(msgspec.msgpack.encode({"type": "goodbye", "until": 7}))
    assert ControlReader().feed(later + encode_control(WELCOME)) == [WELCOME]


def test_transcript_is_bound_to_all_claims_and_the_connection() -> None:
    transcript = hello_transcript(HELLO.claims, b"b" * 32)
    for changed in (
        msgspec.structs.replace(CLAIMS, versions=(1,)),
        msgspec.structs.replace(CLAIMS, traffic_class=1),
        msgspec.structs.replace(CLAIMS, inner=("10.0.0.5",)),
        msgspec.structs.replace(CLAIMS, certificate=b"other"),
        msgspec.structs.replace(CLAIMS, features=()),
        msgspec.structs.replace(CLAIMS, standby=True),
    ):
        assert hello_transcript(encode_claims(changed), b"b" * 32) != transcript
    assert hello_transcript(HELLO.claims, b"c" * 32) != transcript


def test_claims_there_and_back() -> None:
    assert decode_claims(HELLO.claims) == CLAIMS
    for bad in (b"", b"\xc1", msgspec.msgpack.encode({"versions": [1]}), b"\x91" * 8000):
        with pytest.raises(PeerFault) as caught:
            decode_claims(bad)
        assert caught.value.refusal is Refusal.MALFORMED


def test_probe_there_and_back() -> None:
    request = encode_probe(CONTEXT_PROBE, 2**64 - 1, 0)
    assert (request[0], decode_probe(request)) == (CONTEXT_PROBE, (2**64 - 1, 0))
    reply = encode_probe(CONTEXT_PROBE_REPLY, 7, 123_456)
    assert (reply[0], decode_probe(reply)) == (CONTEXT_PROBE_REPLY, (7, 123_456))


@pytest.mark.parametrize("length", [1, 2, 16, 18, 1400])
def test_probe_of_another_length(length: int) -> None:
    with pytest.raises(PeerFault) as caught:
        decode_probe(b"\x01" * length)
    assert caught.value.refusal is Refusal.MALFORMED


def test_overhead_is_what_quic_adds() -> None:
    short_header, frame, context, tag = 1 + 8 + 2, 1 + 2, 1, 16
    assert short_header + frame + context + tag == DATAGRAM_OVERHEAD


def test_a_peers_words_are_one_short_printable_line() -> None:
    assert one_line("10.0.0.5, fd00::5 née") == "10.0.0.5, fd00::5 née"
    assert one_line("a\nb\x1b[2Jc\u2028d\u202ee") == "a?b?[2Jc?d?e"
    assert one_line("x" * 10_000) == "x" * MAX_REASON
