"""Takes secrets out of text that is given away: what looks like one, and what is known to be one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

REMOVED = "(removed)"
MIN_LENGTH = 6
"""Of a known secret: shorter ones would take half of the text along."""
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)
_LOOKS = (
    re.compile(r"(sha256:)[0-9a-fA-F]{16,}"),
    re.compile(r"(Bearer\s+)\S+", re.IGNORECASE),
    re.compile(r"(https?://[^/\s\"']+/)[^\s\"']+"),  # receivers of webhooks often have their secret in the path
    re.compile(r"(https?://)[^/@\s\"']+@"),
)
_FILES = re.compile(r"""\b(?:key|secret_file)\s*=\s*["']([^"']+)["']""")


def scrub(text: str, known: Iterable[str] = ()) -> str:
    """The text without private keys, hashes of tokens, bearer tokens, paths of URLs, and what is `known`."""
    text = _PEM.sub(REMOVED, text)
    for pattern in _LOOKS:
        text = pattern.sub(rf"\1{REMOVED}", text)
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, REMOVED)
    return text


def secret_files(configuration: str) -> list[str]:
    """The files that a configuration names for what is secret in them; it may be broken."""
    return _FILES.findall(configuration)


def pieces(content: str) -> list[str]:
    """What to look for of a secret file's content: each of its lines that is long enough, but for a PEM's frame."""
    lines = (line.strip() for line in content.splitlines())
    return [line for line in lines if len(line) >= MIN_LENGTH and not line.startswith("-----")]
