"""Messages of route netlink as the tests read them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from mpq_supervisor.netlink_socket import HEADER


def with_header(body: bytes) -> bytes:
    """A message as the kernel sends it; its type is not looked at."""
    return HEADER.pack(HEADER.size + len(body), 0, 0, 0, 0) + body


@lru_cache(4096)
def decoded(kind: Any, body: bytes) -> Any:
    """What pyroute2's class `kind` has of it."""
    message = kind(with_header(body))
    message.decode()
    return message
