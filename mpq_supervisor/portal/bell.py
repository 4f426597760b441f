"""Wakes whoever waits for news, all at once."""

from __future__ import annotations

import asyncio


class Bell:
    """`wait` returns at the next `ring`; once it is `ended`, nobody should wait again."""

    def __init__(self) -> None:
        self.ended = False
        self._rung: asyncio.Event | None = None

    def ring(self) -> None:
        """Something is new."""
        if self._rung is not None:
            self._rung.set()
            self._rung = None

    def end(self) -> None:
        """There will be no more news."""
        self.ended = True
        self.ring()

    async def wait(self) -> None:
        """Until something is."""
        if self._rung is None:
            self._rung = asyncio.Event()
        await self._rung.wait()
