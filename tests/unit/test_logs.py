"""The journal's prefix, only when it is the journal."""

from __future__ import annotations

import logging
import os

from mpq_supervisor.logs import JournalFormatter, is_journal


def test_journal_is_known_by_its_descriptor() -> None:
    read, write = os.pipe()
    status = os.fstat(write)
    assert is_journal(f"{status.st_dev}:{status.st_ino}", write)
    assert not is_journal("", write)
    assert not is_journal("1:2", write)
    os.close(read)
    os.close(write)


def test_every_line_has_its_level() -> None:
    record = logging.LogRecord("n", logging.WARNING, "f", 1, "one\n%s", ("two",), None)
    assert JournalFormatter("%(message)s").format(record) == "<4>one\n<4>two"
