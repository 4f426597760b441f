"""Every input kept for the native targets breaks nothing under AddressSanitizer and UBSan."""

from __future__ import annotations

import subprocess

import pytest

from tests.fuzz.corpus import inputs
from tests.fuzz.native import NAMES, replayer


@pytest.mark.parametrize("name", NAMES)
def test_corpus(name: str) -> None:
    paths = inputs(name)
    assert len(paths) >= 3
    done = subprocess.run([replayer(name), *paths], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
