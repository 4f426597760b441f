"""The kernel's counters of interfaces."""

from __future__ import annotations

from mpq_supervisor.traffic import parse, read

TEXT = """\
Inter-|   Receive    |  Transmit
 face |bytes packets |bytes packets
    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
 wan:0: 64300 2 0 0 0 0 0 0 5000000000 10 0 0 0 0 0 0
"""


def test_bytes_both_ways_by_interface() -> None:
    assert parse(TEXT) == {"lo": (1, 9), "wan:0": (64_300, 5_000_000_000)}


def test_the_kernel_says_so() -> None:
    assert "lo" in read()
