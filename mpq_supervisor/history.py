"""`mpq-supervisor history NAME`: what was recorded of a tunnel or a class, drawn or exported."""

from __future__ import annotations

import argparse
import re
import shutil
import sqlite3
import sys
import time
from pathlib import Path

from mpq_supervisor.config import ConfigError, load
from mpq_supervisor.decode import nearest
from mpq_supervisor.plan import make_plan
from mpq_supervisor.portal.history.draw import chart, document, table
from mpq_supervisor.portal.history.layout import DAY, KEEP_DAYS
from mpq_supervisor.portal.history.query import History
from mpq_supervisor.portal_process import history_directory
from mpq_supervisor.printable import printable
from mpq_worker.contract import ExitCode

MARGIN = 14
EXPORT_POINTS = 100_000
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def add_arguments(parser: argparse.ArgumentParser, config: Path) -> None:
    """Those of the command."""
    parser.add_argument("name", metavar="NAME", help="a tunnel, a worker or a class")
    parser.add_argument("--since", type=duration, default=3600, metavar="TIME", help="2h, 30m, 7d (default: 1h)")
    parser.add_argument("-c", "--config", type=Path, default=config, help="default: %(default)s")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="for a spreadsheet, in the finest resolution there is")
    form.add_argument("--json", action="store_true", help="for programs")


def main(options: argparse.Namespace) -> int:
    """Returns 0; 78 for a configuration that cannot be read, 1 where there is no history, 3 for an unknown name."""
    try:
        history = History(history_directory(make_plan(load(options.config))))
    except ConfigError as error:
        return _complain(f"{options.config}: {error}", ExitCode.CONFIG)
    now = int(time.time())
    since = now - options.since
    drawn = not (options.csv or options.json)
    points = max(10, shutil.get_terminal_size().columns - MARGIN) if drawn else EXPORT_POINTS
    try:
        names = history.names()
        if options.name not in names:
            return _complain(f'no "{options.name}" in the history{nearest(options.name, names)}', 3)
        series = history.series(options.name, since, now, points, now)
        events = history.events(since, now + 1, name=options.name)
    except sqlite3.Error as error:
        return _complain(f"no history can be read: {error}", 1)
    if options.csv:
        sys.stdout.write(table(series))
    elif options.json:
        sys.stdout.buffer.write(document(series, events))
    else:
        print(chart(series, events, since, now))
    return ExitCode.OK


def duration(text: str) -> int:
    """Seconds of `90s`, `30m`, `2h` or `7d`; argparse says what is wrong with others."""
    match = re.fullmatch(r"([1-9]\d{0,6})([smhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 30m, 2h or 7d")
    seconds = int(match[1]) * _UNITS[match[2]]
    if seconds > KEEP_DAYS * DAY:
        raise argparse.ArgumentTypeError(f"{text} is longer than the {KEEP_DAYS}d that are kept")
    return seconds


def _complain(text: str, code: int) -> int:
    print(f"mpq-supervisor history: {printable(text)}", file=sys.stderr)
    return code
