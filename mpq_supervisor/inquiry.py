"""Questions that the supervisor hands on to the portal, and the portal's answers.

ctl ─▶ control ─▶ feed ─▶ portal          an answer comes back among the portal's own requests, as `answer`
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count

import msgspec

from mpq_supervisor.portal.messages import Question
from mpq_supervisor.requests import Code, Request, Response

TIMEOUT = 5.0


class Inquiry:
    """`send` hands a question to the portal; False where there is none, or it does not read."""

    def __init__(self, send: Callable[[Question], bool]) -> None:
        self._send = send
        self._numbers = count(1)
        self._waiting: dict[int, asyncio.Future[Response]] = {}

    async def ask(self, request: Request) -> Response:
        """The portal's answer, or why there is none."""
        number = next(self._numbers)
        if not self._send(Question(number, request)):
            return Response(Code.FAILED, ("no portal listens: see [portal] in the configuration",))
        waiting: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._waiting[number] = waiting
        try:
            async with asyncio.timeout(TIMEOUT):
                return await waiting
        except TimeoutError:
            return Response(Code.FAILED, ("the portal does not answer",))
        finally:
            del self._waiting[number]

    def answer(self, request: Request) -> Response:
        """The portal's word for question `numbers[0]`, as JSON in `text`; what comes too late is for nobody."""
        try:
            (number,) = request.numbers
            response = msgspec.json.decode(request.text, type=Response)
        except (ValueError, msgspec.MsgspecError, RecursionError) as error:
            return Response(Code.USAGE, (f"not an answer: {error}",))
        waiting = self._waiting.get(number)
        if waiting is not None and not waiting.done():
            waiting.set_result(response)
        return Response(Code.OK)
