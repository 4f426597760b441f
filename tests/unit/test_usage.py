"""What a worker says of itself, compared with what it did."""

from __future__ import annotations

import os
import time

from mpq_worker.usage import INTERVAL, Usage, own_descriptors


def test_descriptors_are_counted() -> None:
    before = own_descriptors()
    ends = os.pipe()
    assert own_descriptors() == before + 2
    for fd in ends:
        os.close(fd)
    assert own_descriptors() == before


def test_cpu_is_told_at_once_and_memory_now_and_then() -> None:
    usage = Usage()
    first = usage.look(0.0)
    assert first["pss"] > 1_000_000
    end = time.process_time() + 0.01
    while time.process_time() < end:
        pass
    ends = os.pipe()
    second, third = usage.look(INTERVAL - 0.1), usage.look(INTERVAL)
    for fd in ends:
        os.close(fd)
    assert second["cpu"] >= first["cpu"] + 0.01
    assert (second["descriptors"], third["descriptors"]) == (first["descriptors"], first["descriptors"] + 2)
