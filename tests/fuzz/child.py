"""`python -m tests.fuzz.child TARGET [libFuzzer's options]`: one target under atheris, until libFuzzer ends."""

from __future__ import annotations

import sys

import atheris


def main() -> None:
    with atheris.instrument_imports(include=["mpq_worker", "mpq_supervisor", "aioquic"]):
        from tests.fuzz.targets import TARGETS

        target = TARGETS[sys.argv[1]]()

    def one(data: bytes) -> None:
        if data:
            target(data)

    atheris.Setup([sys.argv[0], *sys.argv[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
