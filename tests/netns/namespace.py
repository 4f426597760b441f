"""Network namespaces without a name: they go with their last descriptor, so no test can leave one behind."""

from __future__ import annotations

import ctypes
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tools.setns import inside, switch

_CLONE_NEWNET = 0x40000000


class Namespace:
    """A new network namespace with `lo` up, forwarding on and no duplicate address detection."""

    def __init__(self) -> None:
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "unshare")
            self.fd = os.open("/proc/self/ns/net", os.O_RDONLY)
        finally:
            switch(home)
            os.close(home)
        with self.entered():
            run("ip link set lo up")
            for name, value in {
                "ipv4/ip_forward": 1,
                "ipv6/conf/all/forwarding": 1,
                "ipv6/conf/default/accept_dad": 0,
                "ipv6/conf/default/accept_ra": 2,
                "ipv4/conf/all/rp_filter": 2,
                "ipv4/conf/default/rp_filter": 2,
            }.items():
                Path("/proc/sys/net", name).write_text(str(value))

    @property
    def path(self) -> str:
        """For `ip link … netns`."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread, and what it starts, is inside."""
        with inside(self.fd):
            yield

    def close(self) -> None:
        """The kernel removes it and all that is in it."""
        os.close(self.fd)


def run(*commands: str) -> str:
    """Runs commands one after the other, in the namespace of the moment, and returns what they print."""
    return "".join(
        subprocess.run(shlex.split(c), check=True, capture_output=True, text=True, timeout=10).stdout
        for c in commands
    )
