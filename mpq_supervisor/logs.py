"""Logging to stderr: with the journal's level prefix when stderr is the journal, with the time otherwise."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class JournalFormatter(logging.Formatter):
    """sd-daemon(3): `<N>` before every line."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).splitlines())


def set_up(environment: Mapping[str, str] = os.environ) -> None:
    """Configures the root logger."""
    handler = logging.StreamHandler()
    if is_journal(environment.get("JOURNAL_STREAM", ""), sys.stderr.fileno()):
        handler.setFormatter(JournalFormatter("%(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def is_journal(stream: str, fd: int) -> bool:
    """Whether JOURNAL_STREAM (device:inode, systemd.exec(5)) means this descriptor."""
    status = os.fstat(fd)
    return stream == f"{status.st_dev}:{status.st_ino}"
