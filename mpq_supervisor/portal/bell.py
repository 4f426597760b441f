"""Wakes whoever waits for news, all at once."""

from __future__ import annotations

import asyncio


class Bell:
    """`wait` returns at the next `ring`."""

    def __init__(self) -> None:
        self._rung: asyncio.Event | None = None

    def ring(self) -> None:
        """Something is new."""
        if self._rung is not None:
            self._rung.set()
            self._rung = None

    async def wait(self) -> None:
        """Until something is."""
        if self._rung is None:
            self._rung = asyncio.Event()
        await self._rung.wait()
