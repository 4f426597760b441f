"""The history where files suffer: a writer that is killed, a disk that is full; and the command that shows it."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from mpq_supervisor.__main__ import main
from mpq_supervisor.portal.history.query import History
from mpq_supervisor.portal.history.samples import Batch, Event, Row
from mpq_supervisor.portal.history.store import Store
from tests.process.killed_writer import kill_often

FULL_DISK = """
import os, shutil, sys
from pathlib import Path
from mpq_supervisor.portal.history.recorder import Recorder
from mpq_supervisor.portal.history.samples import Batch, Row

directory = Path(sys.argv[1])
rows = tuple(Row(f"t{n}", "tunnel", "w", "bulk", True, True, 1, 1, 0, 0, 1, 1, 0) for n in range(20))
recorder = Recorder(directory, 100)
recorder.record(Batch(1_800_000_000, rows, ()))
filler = os.open(directory / "filler", os.O_WRONLY | os.O_CREAT)
while True:
    try:
        os.write(filler, bytes(4096))
    except OSError:
        break
t = 1_800_000_000
while not recorder.lost:
    t += 1
    recorder.record(Batch(t, rows, ()))
os.unlink(directory / "filler")
os.close(filler)
for t in range(t + 1, t + 4):
    recorder.record(Batch(t, rows, ()))
print(recorder.lost)
shutil.copy(directory / "history.db", sys.argv[2] + "/history.db")
shutil.copy(directory / "history.db-wal", sys.argv[2] + "/history.db-wal")
"""


def test_no_committed_second_is_lost_however_often_the_writer_is_killed(tmp_path: Path) -> None:
    """A hundred times in tests/portal_full."""
    outcome = kill_often(tmp_path, kills=8, series=2, seed=3)
    assert outcome.told > 100
    assert (outcome.missing, outcome.wrong) == (0, 0)
    assert outcome.beside <= 8  # committed, and killed before it could be told


@pytest.mark.root
def test_a_full_disk_costs_a_gap_and_nothing_else(tmp_path: Path) -> None:
    disk, saved = tmp_path / "disk", tmp_path / "saved"
    disk.mkdir()
    saved.mkdir()
    script = 'mount -t tmpfs -o size=3m none "$1" && exec "$2" -c "$3" "$1" "$4"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", str(disk), sys.executable, FULL_DISK, str(saved)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if "permission denied" in done.stderr.lower():
        pytest.skip("needs root, to mount a small disk")
    assert done.returncode == 0, done.stderr
    lost = int(done.stdout)
    (event,) = History(saved).events(0, 2e9, 10)
    assert (event.reason, event.text) == ("gap", f"nothing is recorded of {lost} s")
    assert "database or disk is full" in done.stderr


def test_the_command_draws_and_exports(
    tmp_path: Path, pki_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.process.conftest import SITE

    config = tmp_path / "mpq.toml"
    config.write_text(SITE.format(pki=pki_directory) + f'[supervisor]\nstate_directory = "{tmp_path}"\n')
    assert main(["history", "-c", str(config), "br2"]) == 1
    assert "no history can be read" in capsys.readouterr().err
    (tmp_path / "portal").mkdir()
    store, now = Store(tmp_path / "portal", 16), int(time.time())
    link = Event(now - 50, "link", 30, "wan5 has no carrier", wan="wan5")
    for t in range(now - 120, now):
        row = Row("br2", "tunnel", "wan5", "bulk", True, True, 20_000 + t % 50, 1, 1000, None, 125_000, 1, 0)
        events = (Event(t, "state", 20, "br2: UP", "br2"), link) * 40 if t == now - 60 else ()
        store.add(Batch(t, (row,), events))
    assert main(["history", "-c", str(config), "br2", "--since", "2m"]) == 0
    drawn = capsys.readouterr().out
    assert "RTT" in drawn
    assert "1 Mbit/s" in drawn
    assert "br2: UP" in drawn
    assert "wan5 has no carrier" in drawn
    assert "50 earlier events are not shown" in drawn
    assert main(["history", "-c", str(config), "br2", "--csv"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.startswith("t,seconds,up,rtt,")
    assert len(lines) == 120
    assert main(["history", "-c", str(config), "br2", "--json"]) == 0
    exported = capsys.readouterr().out
    assert '"loss_tx":0.001' in exported
    assert exported.count('"br2: UP"') == 40
    assert main(["history", "-c", str(config), "br22"]) == 3
    assert '(did you mean "br2"?)' in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["history", "br2", "--since", "soon"])
    store.close()
