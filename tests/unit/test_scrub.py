"""Secrets in text are taken out, and nothing else."""

from __future__ import annotations

import pytest

from mpq_supervisor.scrub import pieces, scrub, secret_addresses, secret_files

PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2Vw\nabcdefgh\n-----END PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (f"a\n{PEM}\nb", "a\n(removed)\nb"),
        (PEM[:50], "(removed)"),
        (PEM.replace(" PRIVATE", " PGP PRIVATE").replace("KEY-", "KEY BLOCK-"), "(removed)"),
        ("known as sha256:" + 64 * "a", "known as sha256:(removed)"),
        ('hash = "sha256:' + 64 * "a" + '"', 'hash = "(removed)"'),
        ("hash = 'the token itself'", "hash = '(removed)'"),
        ("X-Mpq-Signature: sha256=" + 64 * "a", "X-Mpq-Signature: sha256=(removed)"),
        ("Authorization: Bearer abc.DEF_1", "Authorization: Bearer (removed)"),
        ("Authorization: Basic dXNlcjpwdw==", "Authorization: Basic (removed)"),
        ("https://hooks.example.net/services/T0/B1/secret", "https://hooks.example.net/(removed)"),
        ("https://hooks.example.net?key=sesame&x=1 or", "https://hooks.example.net?(removed) or"),
        ("https://hooks.example.net#sesame", "https://hooks.example.net#(removed)"),
        ("https://user:pw@example.net", "https://(removed)@example.net"),
        ("HTTP://user:p/w?#@example.net:8/x", "HTTP://(removed)@example.net:8/(removed)"),
        ("GET /stream?access_token=sesame&x=1", "GET /stream?access_token=(removed)&x=1"),
        ("Environment=API_TOKEN=sesame PSK=1", "Environment=API_TOKEN=(removed) PSK=1"),
        ('{"password": "open \'sesame", "name": "a"}', '{"password": "(removed)", "name": "a"}'),
        ("net.ipv6.conf.all.stable_secret = 1:2", "net.ipv6.conf.all.stable_secret = (removed)"),
        (
            "secret_file = '/c'; portal.token[0].name: \"a\" is taken",
            "secret_file = '/c'; portal.token[0].name: \"a\" is taken",
        ),
        ("is mpq://site/ship2, see https://example.net/", "is mpq://site/ship2, see https://example.net/"),
        ('{"drops": {"limit": 3, "token": 12}}', '{"drops": {"limit": 3, "token": 12}}'),
        (
            '{\n  "token": 12,\n  "cookie": null,\n  "hash": -1.5e3\n}',
            '{\n  "token": 12,\n  "cookie": null,\n  "hash": -1.5e3\n}',
        ),
        ("net.core.txrehash = 1", "net.core.txrehash = 1"),
        ("token = 123456", "token = (removed)"),
        (r'{"password": "say \"sesame\"", "n": 1}', '{"password": "(removed)", "n": 1}'),
        (r'{"text": "\"https://h.example/T0\" told"}', r'{"text": "\"https://h.example/(removed)\" told"}'),
        (r'{"text": "\"Bearer abc\" and token=abc\""}', r'{"text": "\"Bearer (removed)\" and token=(removed)\""}'),
        ("the word is swordfish", "the word is (removed)"),
        ("10.200.10.1 via wan4, https://example.net", "10.200.10.1 via wan4, https://example.net"),
    ],
)
def test_what_is_left(text: str, left: str) -> None:
    assert scrub(text, ["swordfish"]) == left


def test_which_files_hold_secrets() -> None:
    text = 'key = \'/a/b.key\'\n[portal.webhook]\n"secret_file" = """/c"""\nbroken = ['
    assert secret_files(text) == ["/a/b.key", "/c"]


def test_what_is_secret_of_an_address_is_known_without_it() -> None:
    text = 'url = "https://u:p@hooks.example.net/T0/very-secret?key=open-sesame"'
    assert {"very-secret", "open-sesame"} <= {*secret_addresses(text)}
    assert "hooks.example.net" not in "".join(secret_addresses(text))
    assert "misspelt" in secret_addresses("url='htps:/T0/misspelt'")


def test_pieces_of_a_secret_file() -> None:
    assert pieces(PEM) == ["MC4CAQAwBQYDK2Vw", "abcdefgh"]
    assert pieces("one\n  swordfish \n") == ["swordfish"]
