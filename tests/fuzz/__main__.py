"""`python -m tests.fuzz SECONDS [TARGET…]`: coverage-guided fuzzing of `targets`; writes build/fuzz.json.

Each target gets its share of the time in a process of its own, one after the other, and begins with its corpus and
with what earlier runs have found, in build/fuzz. An input that breaks an invariant is kept as
build/fuzz/TARGET-crash-…; then the target begins again. A process that fails for any other reason, also before it
has run anything, is a finding too. Exit code 1 if there was one. Executions are added up over runs in
build/fuzz/executions.json (`fuzz.executions.ever`).

    python -m tests.fuzz --keep         instead: the smallest inputs of build/fuzz go into the corpora
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import msgspec

from tests.fuzz.corpus import CORPORA, inputs
from tests.fuzz.native import NAMES, fuzzer
from tools.results import Results

WORK = Path("build/fuzz")
EXECUTIONS = WORK / "executions.json"
WANTED = 10_000_000
"""Executions, over all targets and runs."""
MAX_INPUT = 4096
MAX_KEPT = 40
"""Inputs of a corpus, the smallest first; more would make `make test` slow."""
MAX_FINDINGS = 5


class Outcome(NamedTuple):
    """What one target has done; `coverage` is in edges of the instrumented code."""

    executions: int
    seconds: float
    coverage: int
    findings: int


def main() -> int:
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("seconds", type=float, nargs="?", default=300.0, help="in all (default: %(default)s)")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all")
    parser.add_argument("--keep", action="store_true", help="take what was found over into the corpora")
    options = parser.parse_args()
    known = [*TARGETS, *NAMES]
    names = options.targets or known
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no target {unknown[0]}; there are {', '.join(known)}")
    if options.keep:
        for name in names:
            keep(name)
        return 0
    results = Results.here()
    outcomes = {}
    for name in names:
        outcomes[name] = outcome = run(name, options.seconds / len(names))
        ever = add_up(EXECUTIONS, name, outcome.executions)
        results.add(f"fuzz.{name}.executions", [outcome.executions], "")
        results.add(f"fuzz.{name}.rate", [outcome.executions / outcome.seconds], "1/s")
        results.add(f"fuzz.{name}.coverage", [outcome.coverage], "edges")
        results.add(f"fuzz.{name}.findings", [outcome.findings], "", target=0)
    results.add("fuzz.executions", [sum(outcome.executions for outcome in outcomes.values())], "")
    results.add("fuzz.executions.ever", [sum(ever.values())], "", target=WANTED, better="higher")
    results.write(Path("build/fuzz.json"))
    print(results.table())
    return int(any(outcome.findings for outcome in outcomes.values()))


def run(name: str, seconds: float) -> Outcome:
    """Fuzz one target, beginning again after each finding while there is time."""
    found = WORK / name
    found.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    executions = coverage = findings = 0
    while findings < MAX_FINDINGS and (left := seconds - (time.monotonic() - begun)) > 0:
        options = [f"-max_total_time={max(1, round(left))}", f"-artifact_prefix={WORK}/{name}-"]
        code, log = _child(name, [*options, str(found), str(CORPORA / name)])
        executions += max(map(int, re.findall(r"^#(\d+)\t", log, re.MULTILINE)), default=0)
        coverage = max([coverage, *map(int, re.findall(r"\bcov: (\d+)", log))])
        if not code:
            break
        findings += 1
        (WORK / f"{name}-{findings}.log").write_text(log)
        print(f"{name}: finding {findings}, see {WORK}/{name}-{findings}.log", file=sys.stderr)
    return Outcome(executions, time.monotonic() - begun, coverage, findings)


def add_up(path: Path, name: str, executions: int) -> dict[str, int]:
    """Note what a target has done; the executions of every target so far, in all runs. Raises `ValueError` where the
    file is not ours."""
    ever = msgspec.json.decode(path.read_bytes(), type=dict[str, int]) if path.exists() else {}
    ever[name] = ever.get(name, 0) + executions
    path.write_bytes(msgspec.json.format(msgspec.json.encode(ever)) + b"\n")
    return ever


def keep(name: str) -> None:
    """Of what reached something new, the smallest inputs go into the corpus of `name`, in place of earlier ones."""
    corpus = CORPORA / name
    for path in inputs(name):
        if not path.name.startswith("seed-"):
            path.unlink()
    for path in sorted((WORK / name).iterdir(), key=lambda path: (path.stat().st_size, path.name))[:MAX_KEPT]:
        shutil.copy(path, corpus / path.name[:12])
    print(f"{name}: {len(inputs(name))} inputs")


def _child(name: str, options: list[str]) -> tuple[int, str]:
    """Runs libFuzzer on a target in a process of its own; its exit code (0: the time is over), and what it wrote."""
    program = [str(fuzzer(name))] if name in NAMES else [sys.executable, "-m", "tests.fuzz.child", name]
    command = [*program, f"-max_len={MAX_INPUT}", "-rss_limit_mb=2048", *options]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


if __name__ == "__main__":
    sys.exit(main())
