"""Puts a table into nftables by the program nft, each time as one transaction, and reads its counters."""

from __future__ import annotations

import json
import os
import subprocess
from hashlib import sha256

from mpq_worker.errors import HostFault

_TIMEOUT = 10.0  # seconds; it takes some 10 ms
_PATH = "/usr/sbin:/sbin:/usr/bin:/bin"


class Table:
    """A table in the kernel, as this process last set it. The elements of its sets are part of it, unless packets
    put them there (`dynamic`)."""

    def __init__(self, name: str, *, dynamic: bool = False, seal: str = "") -> None:
        """`seal` is that of the process before, if there was one."""
        self.changes = 0
        self._seal = seal
        self._name = name
        self._list_options = ("--stateless", "--terse") if dynamic else ("--stateless",)
        self._text = ""
        self._listing = ""

    def apply(self, text: str) -> bool:
        """Replaces the whole table by `text`, at once, unless it is there as we left it. Returns whether it was to be
        there, and somebody else had changed or deleted it. Raises HostFault."""
        listing = self._list()
        if not self._text and listing and self._seal == _seal(text, listing):
            self._text, self._listing = text, listing  # another process of ours has left it
        damaged = bool(self._text) and self._listing != listing
        if text == self._text and not damaged:
            return False
        self.changes += 1
        _nft(["-f", "-"], f"table {self._name}\ndelete table {self._name}\n{text}")
        self._text, self._listing = text, self._list()
        return damaged

    def remove(self) -> None:
        """Removes the table; it may be gone already."""
        self.changes += 1
        _nft(["-f", "-"], f"table {self._name}\ndelete table {self._name}\n")
        self._text = self._listing = ""

    @property
    def seal(self) -> str:
        """Shows another process that the table is as it would make it itself."""
        return _seal(self._text, self._listing)

    def counters(self) -> dict[str, int]:
        """Packets that each named counter has seen. Raises HostFault."""
        listing = json.loads(_nft(["-j", "list", "counters", "table", *self._name.split()]))
        counters = [entry["counter"] for entry in listing["nftables"] if "counter" in entry]
        return {counter["name"]: counter["packets"] for counter in counters}

    def _list(self) -> str:
        """The table without its counters; empty if there is none."""
        try:
            return _nft([*self._list_options, "list", "table", *self._name.split()])
        except HostFault:
            return ""


def _seal(text: str, listing: str) -> str:
    return sha256(f"{text}\0{listing}".encode()).hexdigest()


def _nft(arguments: list[str], text: str = "") -> str:
    environment = {**os.environ, "PATH": _PATH, "LC_ALL": "C"}
    try:
        done = subprocess.run(
            ["nft", *arguments], input=text, capture_output=True, text=True, timeout=_TIMEOUT, env=environment
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostFault(f"nft: {error}") from error
    if done.returncode != 0:
        raise HostFault(f"nft: {done.stderr.strip()}")
    return done.stdout
