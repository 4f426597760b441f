"""`make sanitize`: the native loop, built with AddressSanitizer and UBSan, under the tests that use it.

    python -m tools.sanitize [pytest arguments]

Not the handshake: greenlet, which waits for a signature in the middle of it, moves the stack, and AddressSanitizer
does not know.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest

BUILD = Path("build/sanitized")
MODULE = "mpq_worker._datapath"
TESTS = [
    "tests/unit/test_segment.py",
    "tests/unit/test_coalesce.py",
    "tests/unit/test_datapath.py",
    "tests/fuzz/test_corpora.py::test_corpus[datagrams]",
    "tests/fuzz/test_corpora.py::test_corpus[mutations]",
    "tests/fuzz/test_corpora.py::test_corpus[frames]",
    "tests/fuzz/test_corpora.py::test_corpus[payloads]",
    "tests/fuzz/test_corpora.py::test_corpus[tun_packets]",
    "tests/fuzz/test_native.py",
]
_SANITIZERS = "-fsanitize=address,undefined"


def build() -> Path:
    """The module as sanitizers want it; where it is."""
    flags = f"{_SANITIZERS} -fno-sanitize-recover=all -fno-omit-frame-pointer -O1 -g"
    where = ["--build-lib", str(BUILD), "--build-temp", str(BUILD / "objects")]
    command = [sys.executable, "setup.py", "-q", "build_ext", *where]
    subprocess.run(command, env={**os.environ, "CFLAGS": flags, "LDFLAGS": _SANITIZERS}, check=True)
    (module,) = (BUILD / "mpq_worker").glob("_datapath*.so")
    return module


def run(module: str, arguments: list[str]) -> int:
    """In the process that has the sanitizers' libraries loaded before all others: pytest with that module."""
    spec = spec_from_loader(MODULE, ExtensionFileLoader(MODULE, module))
    assert spec is not None
    assert spec.loader is not None
    sys.modules[MODULE] = loaded = module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return pytest.main(["-q", "-p", "no:cacheprovider", *arguments])


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["--module"]:
        return run(arguments[1], arguments[2:])
    library = subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    # Python itself frees not all that it takes, and what it takes by its own allocator the sanitizer cannot see.
    options = {
        "LD_PRELOAD": library.stdout.strip(),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",
    }
    command = [sys.executable, "-m", "tools.sanitize", "--module", str(build()), *(arguments or TESTS)]
    return subprocess.run(command, env={**os.environ, **options}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
