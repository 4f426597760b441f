"""A memory cgroup run empty: the kernel kills the victim, and nobody else in the group."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tools.chaos.memory import MemoryGroup
from tools.wait import Held

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

_HOLD = "import sys; x = b'x' * (8 << 20); print('ready', flush=True); sys.stdin.read()"


def test_only_the_victim_is_killed() -> None:
    with MemoryGroup(f"mpqtest{os.getpid()}") as group:
        processes = []
        for _ in range(3):
            argv = ["sh", "-c", 'read go; exec "$0" -c "$1"', sys.executable, _HOLD]
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            processes.append(process)
            group.take(process.pid)  # before it has memory, so that this is charged here
            assert process.stdin
            assert process.stdout
            process.stdin.write(b"go\n")
            process.stdin.flush()
            assert process.stdout.readline() == b"ready\n"
        victim = processes.pop(1)
        try:
            with Held(victim.pid) as held:
                group.exhaust(held)
        finally:
            states = [process.poll() for process in processes]
            for process in (victim, *processes):
                process.kill()
                process.communicate()
        assert victim.returncode == -9
        assert states == [None, None]
