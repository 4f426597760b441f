"""What the host's interfaces have carried, by the kernel's own count: whoever sent it, with every header."""

from __future__ import annotations

from pathlib import Path

import msgspec

_FILE = Path("/proc/self/net/dev")


class WanCounters(msgspec.Struct, frozen=True):
    """Of a WAN: its interface, and the bytes that this has received and sent since it came to be."""

    interface: str
    received: int
    sent: int


def read() -> dict[str, tuple[int, int]]:
    """Bytes received and sent by interface, in the network namespace of this process."""
    return parse(_FILE.read_text())


def parse(text: str) -> dict[str, tuple[int, int]]:
    """Of proc_net_dev(5): two lines of titles, then `NAME: RECEIVED … SENT …`, eight columns each way."""
    lines = (line.rpartition(":") for line in text.splitlines()[2:])
    return {name.strip(): (int(columns[0]), int(columns[8])) for name, _, rest in lines if (columns := rest.split())}
