"""Where lines go, with which fields, and how many of them."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import cast

import pytest

from mpq_supervisor import logs
from mpq_supervisor.events import MESSAGE_ID, Kind, Marks
from mpq_supervisor.journald import Journal
from mpq_supervisor.logs import Bounded, JournalHandler, PrefixFormatter, fields, is_journal

DOCUMENT = Path(__file__).parents[2] / "docs/operations.md"


class Target(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


class FakeJournal:
    def __init__(self) -> None:
        self.entries: list[dict[str, str]] = []
        self.problem: OSError | None = None

    def send(self, entry: dict[str, str]) -> None:
        if self.problem is not None:
            raise self.problem
        self.entries.append(entry)


def line(text: str, level: int = logging.WARNING, marks: Marks | None = None) -> logging.LogRecord:
    return logging.makeLogRecord({"levelno": level, "levelname": "", "msg": text, "marks": marks})


def test_journal_is_known_by_its_descriptor() -> None:
    read, write = os.pipe()
    status = os.fstat(write)
    assert is_journal(f"{status.st_dev}:{status.st_ino}", write)
    assert not is_journal("", write)
    assert not is_journal("1:2", write)
    os.close(read)
    os.close(write)


def test_a_line_stays_one_whatever_names_are_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr(logging, "_logRecordFactory", logging.getLogRecordFactory())  # is there again afterwards
    logs.set_up({})
    names = "br2\n2026-01-01 INFO control: uid 0: stop all", "\x1b[2J\x9b\u202e"
    for name, shown in zip(
        names, (r"br2\n2026-01-01 INFO control: uid 0: stop all", r"\x1b[2J\x9b\u202e"), strict=True
    ):
        record = logging.getLogger().makeRecord("x", logging.INFO, "", 0, "control: uid 1: stop %s", (name,), None)
        assert logging.Formatter().format(record) == f"control: uid 1: stop {shown}"


def test_every_line_of_text_has_its_level() -> None:
    assert PrefixFormatter("%(message)s").format(line("one\ntwo")) == "<4>one\n<4>two"


def test_the_journal_gets_fields() -> None:
    about = Marks(Kind.STATE, "br2", "wan5", "bulk", "killed")
    assert fields(line("br2: UP → BACKOFF", logging.ERROR, about), "br2: UP → BACKOFF") == {
        "MESSAGE": "br2: UP → BACKOFF",
        "PRIORITY": "3",
        "SYSLOG_IDENTIFIER": "mpq-supervisor",
        "MESSAGE_ID": MESSAGE_ID[Kind.STATE],
        "MPQ_KIND": "state",
        "MPQ_TUNNEL": "br2",
        "MPQ_WAN": "wan5",
        "MPQ_CLASS": "bulk",
        "MPQ_REASON": "killed",
    }
    assert fields(line("x"), "x").keys() == {"MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER"}


def test_every_kind_has_an_identity() -> None:
    assert set(MESSAGE_ID) == set(Kind)
    assert len(set(MESSAGE_ID.values())) == len(Kind)


def test_without_a_journal_the_text_goes_to_stderr() -> None:
    journal, text = FakeJournal(), Target()
    handler = JournalHandler(cast(Journal, journal), text)
    handler.handle(line("one"))
    journal.problem = ConnectionRefusedError()
    handler.handle(line("two"))
    assert ([entry["MESSAGE"] for entry in journal.entries], text.texts) == (["one"], ["two"])


def test_what_a_busy_journal_does_not_take_is_counted() -> None:
    journal, text = FakeJournal(), Target()
    handler = JournalHandler(cast(Journal, journal), text)
    journal.problem = BlockingIOError()
    handler.handle(line("one"))
    handler.handle(line("two"))
    journal.problem = None
    handler.handle(line("three"))
    assert [entry["MESSAGE"] for entry in journal.entries] == [
        "three", "2 lines before it lost: the journal did not take them",
    ]  # fmt: skip
    assert text.texts == []


def test_a_kind_that_says_too_much_is_cut_short_and_the_others_are_not() -> None:
    target = Target()
    bounded = Bounded(target)
    for _ in range(1000):
        bounded.handle(line("noise", marks=Marks(Kind.NOTICE)))
    bounded.handle(line("state", marks=Marks(Kind.STATE)))
    bounded.handle(line("plain"))
    bounded.close()
    passed = target.texts.count("noise")
    assert logs.BURST <= passed < 1000
    assert target.texts[passed:] == ["state", "plain", f"{1000 - passed} lines of kind notice left out"]


def test_the_documentation_knows_every_identity() -> None:
    text = DOCUMENT.read_text()
    for kind, identity in MESSAGE_ID.items():
        assert f"| `{kind}` |" in text
        assert f"`{identity}`" in text
