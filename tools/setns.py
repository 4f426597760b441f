"""Going into a network namespace and back, by thread: what it opens meanwhile stays there."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(namespace: int) -> Iterator[None]:
    """This thread, and what it starts, is in the network namespace of that descriptor."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        switch(namespace)
        yield
    finally:
        switch(home)
        os.close(home)


def switch(namespace: int) -> None:
    """This thread goes there for good. Raises OSError."""
    if _libc.setns(namespace, _CLONE_NEWNET):  # os.setns came with Python 3.12
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
