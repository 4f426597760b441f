"""The native loop's own targets, in C: built with AddressSanitizer and UBSan, by gcc to replay, by clang to fuzz."""

from __future__ import annotations

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE.parents[2] / "mpq_worker/native"
BUILD = Path("build/fuzz-native")
NAMES = tuple(sorted(path.stem for path in HERE.glob("native_*.c")))
_FLAGS = ("-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Wno-unused-function", "-fno-sanitize-recover=all")


def replayer(name: str) -> Path:
    """A program that feeds files to the target `name` and ends at the first that breaks it."""
    return _build(name, "replay", "gcc", "address,undefined", HERE / "replay.c")


def fuzzer(name: str) -> Path:
    """libFuzzer with the target `name`."""
    return _build(name, "fuzz", "clang-14", "fuzzer,address,undefined")


def _build(name: str, kind: str, compiler: str, sanitizers: str, *more: Path) -> Path:
    program = BUILD / f"{name}-{kind}"
    sources = [HERE / f"{name}.c", *more, *(path for path in SOURCES.glob("*.c") if path.stem != "io")]
    newest = max(path.stat().st_mtime for path in (*sources, *SOURCES.glob("*.h"), HERE / "common.h"))
    if not program.exists() or program.stat().st_mtime < newest:
        BUILD.mkdir(parents=True, exist_ok=True)
        flags = [*_FLAGS, f"-fsanitize={sanitizers}", f"-I{SOURCES}", "-o", str(program)]
        subprocess.run([compiler, *flags, *map(str, sources), "-lcrypto", "-lm"], check=True)
    return program
