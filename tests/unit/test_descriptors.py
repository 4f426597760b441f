"""A process from which `chaos` takes its descriptors opens none, whatever holes its table has."""

from __future__ import annotations

import subprocess
import sys

from tools.chaos.descriptors import none_left

HOLES = """
import os

def ask():
    try:
        return str(os.dup(0))
    except OSError as error:
        return os.strerror(error.errno)

for fd in [os.dup(0) for _ in range(16)]:
    if fd % 2:
        os.close(fd)
while input() == "open":
    print(ask(), flush=True)
"""


def test_no_hole_is_filled_until_it_is_over() -> None:
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", HOLES], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def opened() -> str:
            print("open", file=child.stdin, flush=True)
            return child.stdout.readline().strip()  # type: ignore[union-attr]  # a pipe

        first = int(opened())
        with none_left(child.pid):
            assert opened() == "Too many open files"
        assert int(opened()) == first + 2
        print("end", file=child.stdin, flush=True)
