"""The delay relay (`relay.c`) as an object: one process in the link namespace, told what to do line by line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec

BINARY = Path(__file__).resolve().parent.parent / "build" / "relay"


class LineStats(msgspec.Struct, frozen=True):
    """Counters of one line since its start: forwarded (`frames`, `bytes`), dropped (`overflow`, `refused`,
    `missed`: see `relay.c`); `held` is the number of bytes in flight now."""

    frames: int
    bytes: int
    reordered: int
    overflow: int
    refused: int
    missed: int
    held: int


class Line(msgspec.Struct, frozen=True):
    """Treatment of the frames that enter one port: delays in µs, reordering in parts per million."""

    delay_us: int = 0
    reorder_ppm: int = 0
    reorder_extra_us: int = 0


class Relay:
    """A running relay. `command` starts it, already inside its namespace: argv up to the relay's own path.

    Raises `RuntimeError` when it does not start or refuses a command.
    """

    def __init__(self, command: list[str], pairs: list[tuple[str, str]], seed: int) -> None:
        if not BINARY.exists():
            raise RuntimeError(f"{BINARY} is missing: run `make build/relay`")
        argv = [*command, str(BINARY), str(seed), *(f"{a}:{b}" for a, b in pairs)]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, process_group=0
        )
        self._lines = {port: Line() for pair in pairs for port in pair}
        self._expect("ready")

    @property
    def pid(self) -> int:
        """Process id, for its CPU time and affinity."""
        return self._process.pid

    def delay(self, port: str, microseconds: int) -> None:
        """Hold every frame that enters `port` this long."""
        self._set(port, msgspec.structs.replace(self._lines[port], delay_us=microseconds))

    def reorder(self, port: str, ppm: int, extra_us: int) -> None:
        """Hold one frame in `1e6 / ppm` that enters `port` longer, so that later ones overtake it."""
        line = self._lines[port]
        self._set(port, msgspec.structs.replace(line, reorder_ppm=ppm, reorder_extra_us=extra_us))

    def stats(self) -> dict[str, LineStats]:
        """Counters by port of entry."""
        return msgspec.json.decode(self._ask("stats"), type=dict[str, LineStats])

    def close(self) -> None:
        """End it (frames in flight are lost) and wait for its exit."""
        if self._process.stdin and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(timeout=5)
        if self._process.stdout:
            self._process.stdout.close()

    def _set(self, port: str, line: Line) -> None:
        self._lines[port] = line
        self._tell(f"set {port} {line.delay_us} {line.reorder_ppm} {line.reorder_extra_us}")
        self._expect("ok")

    def _ask(self, command: str) -> str:
        self._tell(command)
        return self._read()

    def _expect(self, word: str) -> None:
        answer = self._read()
        if answer != word:
            raise RuntimeError(f"relay: expected {word!r}, got {answer!r}")

    def _tell(self, command: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def _read(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()
