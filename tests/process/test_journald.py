"""A line of the log in a real journal: systemd-journald in a mount namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mpq_supervisor.events import MESSAGE_ID, Kind

JOURNALD = Path("/lib/systemd/systemd-journald")
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a mount namespace"),
    pytest.mark.skipif(not JOURNALD.exists(), reason="needs systemd-journald"),
]

SCRIPT = """
mount -t tmpfs tmpfs /run
mkdir -p /run/log/journal /run/systemd/journal
{journald} 2>/dev/null & daemon=$!
until [ -S /run/systemd/journal/socket ]; do sleep 0.05; done
{python} -c '{program}' 2>/run/stderr
until journalctl -D /run/log/journal -q -o json --all MPQ_KIND=config | grep -q .; do sleep 0.05; done
journalctl -D /run/log/journal -q -o json --all SYSLOG_IDENTIFIER=mpq-supervisor
kill $daemon
cat /run/stderr
"""
PROGRAM = """
import logging, os
from mpq_supervisor import logs
from mpq_supervisor.events import Kind, Marks
status = os.fstat(2)
logs.set_up({"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
log = logging.getLogger("x")
log.warning("br2: UP → BACKOFF", extra={"marks": Marks(Kind.STATE, "br2", "wan5", "bulk", "killed")})
log.error("y" * 300_000, extra={"marks": Marks(Kind.CONFIG)})
"""


def test_lines_arrive_with_their_fields() -> None:
    script = SCRIPT.format(journald=JOURNALD, python=sys.executable, program=PROGRAM)
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "timeout", "20", "sh", "-ec", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    state, config = map(json.loads, done.stdout.splitlines())  # and nothing on stderr
    wanted = {
        "MESSAGE": "br2: UP → BACKOFF",
        "PRIORITY": "4",
        "MESSAGE_ID": MESSAGE_ID[Kind.STATE],
        "MPQ_TUNNEL": "br2",
        "MPQ_WAN": "wan5",
        "MPQ_CLASS": "bulk",
        "MPQ_REASON": "killed",
    }
    assert {name: state[name] for name in wanted} == wanted
    assert (config["MESSAGE"], config["PRIORITY"]) == ("y" * 300_000, "3")
