"""A target that was not run is not one without findings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import __main__ as fuzz
from tests.fuzz.native import NAMES


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in libFuzzer's place, to be written."""
    program = tmp_path / "fuzzer"
    program.touch(0o755)
    monkeypatch.setattr(fuzz, "fuzzer", lambda name: program)
    monkeypatch.setattr(fuzz, "WORK", tmp_path)
    return program


def test_a_run_to_the_end_of_its_time_counts(program: Path) -> None:
    program.write_text("#!/bin/sh\nprintf '#2\\tINITED cov: 3\\n#70\\tDONE cov: 5\\n'\n")
    outcome = fuzz.run(NAMES[0], 60)
    assert (outcome.executions, outcome.coverage, outcome.findings) == (70, 5, 0)


@pytest.mark.parametrize(
    "script", ["echo 'ImportError: no target'; exit 1", "kill -9 $$", "echo '==7== ERROR: libFuzzer'; exit 77"]
)
def test_one_that_fails_is_a_finding(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    assert fuzz.run(NAMES[0], 60).findings == fuzz.MAX_FINDINGS
    assert (program.parent / f"{NAMES[0]}-1.log").exists()
