"""Secrets in text are taken out, and nothing else."""

from __future__ import annotations

import pytest

from mpq_supervisor.scrub import pieces, scrub, secret_files

PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\nabcdefgh\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"a\n{PEM}\nb", "a\n(removed)\nb"),
        (PEM[:50], "(removed)"),
        ('hash = "sha256:' + 64 * "a" + '"', 'hash = "sha256:(removed)"'),
        ("Authorization: Bearer abc.DEF_1", "Authorization: Bearer (removed)"),
        ("https://hooks.example.net/services/T0/B1/secret", "https://hooks.example.net/(removed)"),
        ("https://user:pw@example.net", "https://(removed)example.net"),
        ("the word is swordfish", "the word is (removed)"),
        ("10.200.10.1 via wan4, https://example.net", "10.200.10.1 via wan4, https://example.net"),
    ],
)
def test_what_is_left(text: str, left: str) -> None:
    assert scrub(text, ["swordfish"]) == left


def test_which_files_hold_secrets() -> None:
    text = "key = '/a/b.key'\n[portal.webhook]\nsecret_file = \"/c\"\nbroken = ["
    assert secret_files(text) == ["/a/b.key", "/c"]


def test_pieces_of_a_secret_file() -> None:
    assert pieces(PEM) == ["MC4CAQAwBQYDK2Vw", "abcdefgh"]
    assert pieces("one\n  swordfish \n") == ["swordfish"]
