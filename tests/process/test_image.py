"""What a child gives back of the zygote's memory, and what it must keep; in processes of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_COMMON = """
import gc, os, sys, time
from mpq_worker._image import Image
PAGE, SIZE = 4096, 8 << 20
image = Image()

def private():
    lines = open("/proc/self/smaps_rollup").read().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))

def whole_pass():
    while not image.give_back(1 << 20):
        pass

def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
"""

GIVEN_BACK = """
data = bytearray(os.urandom(SIZE))
was = bytes(data)
image.take()
assert data == was
def work():
    before = private()
    for at in range(0, SIZE, PAGE):
        data[at] ^= 1
    copied = private() - before
    for at in range(PAGE, SIZE, PAGE):
        data[at] ^= 1
    whole_pass()
    assert copied >= SIZE >> 10, copied
    assert private() - before < 1024, private() - before
    assert data[0] == was[0] ^ 1 and data[1:] == was[1:]
    data[PAGE] ^= 1
    whole_pass()
    assert data[PAGE] == was[PAGE] ^ 1
in_child(work)
assert data == was
"""

UNMAPPED = """
data = bytearray(SIZE)
image.take()
def work():
    global data
    del data
    whole_pass()
    for fresh in [bytearray(SIZE) for _ in range(4)]:
        fresh[:] = bytes([7]) * SIZE
        whole_pass()
        assert fresh == bytes([7]) * SIZE
in_child(work)
"""

FREED = """
image.take()
def work():
    before = private()
    blocks = [bytearray(3000) for _ in range(4000)]
    last = bytearray(3000)
    del blocks
    assert private() - before > 10_000, private() - before
    whole_pass()
    assert private() - before < 1024, private() - before
in_child(work)
"""

SEALED = """
os.closerange(3, 64)
data = bytearray(SIZE)
image.take()
modes = {line.split()[1] for line in open("/proc/self/maps") if "/memfd:mpq-image" in line}
assert modes == {"r--p", "rw-p"}, modes
try:
    os.fstat(3)
except OSError:
    os._exit(0)
raise AssertionError("the file is still open")
"""

NOTHING = """
assert image.give_back(1 << 20)
"""

WORKER = """
from mpq_worker import driver, rehearsal, zygote
rehearsal.rehearse(time.time())
zygote.preload()
gc.collect()
gc.freeze()
image.take()
def work():
    rehearsal.warm()
    copied = private()
    whole_pass()
    print(copied, private())
    rehearsal.rehearse(time.time())
in_child(work)
"""


@pytest.mark.parametrize("script", [GIVEN_BACK, UNMAPPED, FREED, SEALED, NOTHING])
def test_image(script: str) -> None:
    _run(script)


def test_a_third_of_what_a_connection_copied_is_given_back() -> None:
    copied, kept = map(int, _run(WORKER).split())
    assert kept < copied * 2 / 3
    assert kept < 6000


def _run(script: str) -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", _COMMON + script], cwd=root, stdout=-1, text=True, check=True)
    return done.stdout
