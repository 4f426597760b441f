"""Takes secrets out of text that is given away: what looks like one, and what is known to be one. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

REMOVED = "(removed)"
MIN_LENGTH = 6
"""Of a known secret: shorter ones would take half of the text along."""
_PEM = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY[A-Z ]*-----.*?(-----END [A-Z ]*PRIVATE KEY|\Z)[A-Z ]*-*", re.DOTALL)
_LOOKS = (
    re.compile(r"(sha256[:=])[0-9a-fA-F]{16,}"),
    re.compile(
        r"(\bBearer\s+|\bAuthorization[\"']?\s*[:=]\s*[\"']?(?:Basic\s+)?)(?!Bearer\b)(?:[^\s\"'\\]|\\(?![\"']))+",
        re.IGNORECASE,
    ),
    # a value under a name that says it is secret: token=…, "password": "…", PROXY_SECRET=…, hash = "…"; not what is
    # counted under one, as in "drops": {"token": 12}
    re.compile(
        r"((?<![\w-])(?:[\w-]*(?:token|secret|passw(?:or)?d|passphrase|api_?key|cookie)|(?:[\w-]*[_-])?hash)"
        r"[\"']?\s*(?:=|(?<=[\"']):)\s*(?P<quote>[\"'])?)(?(quote)(?:(?!(?P=quote))(?:\\.|.))+|"
        r"(?!(?:-?\d[\d.eE+-]*|true|false|null)\s*[,}\]])[^\s\"'&,;\[{(\\](?:[^\s\"'&,;\\]|\\(?![\"']))*)",
        re.IGNORECASE,
    ),
)
_BEHIND = r"(?:[^\s\"'<>\\]|\\(?![\"']))*"  # a quote that is escaped ends it: JSON stays JSON
_URL = re.compile(
    rf"\b(?!mpq:)([a-z][a-z0-9+.-]{{0,30}}://)({_BEHIND}@)?([^\s\"'<>/?#\\]*)({_BEHIND})",
    re.IGNORECASE,
)
_FILES = re.compile(r"""\b(?:key|secret_file)["']?\s*=\s*["']+([^"'\n]+)["']""")
_ADDRESSES = re.compile(r"""\burl["']?\s*=\s*["']+([^"'\n]+)["']""")


def scrub(text: str, known: Iterable[str] = ()) -> str:
    """The text without private keys, hashes of tokens, bearer tokens, values whose names say that they are secret,
    all of URLs but scheme and host, and what is `known`."""
    for secret in sorted(known, key=len, reverse=True):
        text = text.replace(secret, REMOVED)
    text = _URL.sub(_host_only, _PEM.sub(REMOVED, text))
    for pattern in _LOOKS:
        text = pattern.sub(rf"\1{REMOVED}", text)
    return text


def secret_files(configuration: str) -> list[str]:
    """The files that a configuration names for what is secret in them; it may be broken."""
    return _FILES.findall(configuration)


def secret_addresses(configuration: str) -> list[str]:
    """What a configuration's URLs say behind the host, whole and in part: messages quote them without it."""
    found = []
    for url in _ADDRESSES.findall(configuration):
        behind = re.sub(r"^[a-z]+:/*[^/?#@]*(?:@[^/?#]*)?", "", url, flags=re.IGNORECASE)
        found += [behind, *re.split(r"[/?#&=]", behind)]
    return [piece for piece in found if len(piece) >= MIN_LENGTH]


def pieces(content: str) -> list[str]:
    """What to look for of a secret file's content: each of its lines that is long enough, but for a PEM's frame."""
    lines = (line.strip() for line in content.splitlines())
    return [line for line in lines if len(line) >= MIN_LENGTH and not line.startswith("-----")]


def _host_only(url: re.Match[str]) -> str:
    """Receivers of webhooks often have their secret in the path or the query, proxies theirs before the host."""
    scheme, user, host, behind = url.groups()
    left = f"{scheme}{f'{REMOVED}@' if user else ''}{host}"
    return f"{left}{behind[:1]}{REMOVED}" if len(behind) > 1 else f"{left}{behind}"
