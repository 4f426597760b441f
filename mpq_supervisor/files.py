"""Files that are there wholly or not at all, and reading such as somebody else has named."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

MAX_SIZE = 4 << 20
"""Bytes; a configuration of a thousand sites and rules needs a tenth of it."""


def read_regular(path: Path) -> bytes:
    """The contents of a regular file of a sane size; a pipe or a device would never end. Raises OSError."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", str(path))
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise OSError(errno.EFBIG, f"longer than {MAX_SIZE >> 20} MiB", str(path))
    return data


@contextmanager
def reading_as(uid: int, gid: int, groups: Sequence[int] = ()) -> Iterator[None]:
    """For root: files are opened as somebody else may open them. Raises OSError."""
    before = os.getgroups()
    os.setgroups(groups)
    os.setegid(gid)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(before)


def write_atomically(path: Path, data: bytes, mode: int, *, durable: bool = False) -> None:
    """Replaces `path` by a file with these contents; a reader sees the old or the new, and where it is `durable`, so
    does whoever starts after a power cut. Raises OSError."""
    fd, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(data)
            if durable:
                file.flush()
                os.fsync(fd)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    if durable:
        _sync_directory(path.parent)


def remove_durably(path: Path) -> None:
    """Once this is back, the file is gone, also after a power cut; it need not have been there. Raises OSError."""
    path.unlink(missing_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    """fsync(2) of a file says nothing about its name."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
