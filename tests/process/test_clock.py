"""A wall clock of one's own: only that jumps, and for all children too."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tools.chaos.clock import LIBRARY, Clock

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="needs build/clock.so, which `make test` makes")
_TELL = """
import datetime, os, sys, time
for _ in sys.stdin:
    print(time.time(), datetime.datetime.now().timestamp(), time.monotonic(), flush=True)
"""
_FORK = "import os, sys\nif os.fork():\n    os.wait()\n    sys.exit()\n"


@pytest.mark.parametrize("program", [_TELL, _FORK + _TELL])
def test_only_the_wall_clock_jumps_and_only_there(tmp_path: Path, program: str) -> None:
    clock = Clock(tmp_path / "clock")
    argv, environment = [sys.executable, "-I", "-c", program], {**os.environ, **clock.environment}
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=environment) as teller:
        assert teller.stdin
        assert teller.stdout
        for wrong in (0.0, 86_400.0, -1_800.5, 0.0):
            clock.set(wrong)
            teller.stdin.write("\n")
            wall, date, monotonic = map(float, teller.stdout.readline().split())
            assert abs(wall - time.time() - wrong) < 20
            assert abs(date - wall) < 20
            assert abs(monotonic - time.monotonic()) < 20
        teller.stdin.close()
