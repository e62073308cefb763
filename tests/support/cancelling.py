"""Cancels a task at an await of a test's choice, and turns the cancellation into something else.

That is what libraries do to it: a wait that ends together with the cancellation gives an error of
its own, or its result.
"""

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class Interruption:
    """What is done to one coroutine: at its n-th await it is cancelled and gets the error instead.

    Attributes:
        is_reached: Whether it got that far.
    """

    def __init__(self, position: int, error: Callable[[], BaseException]) -> None:
        self.is_reached = False
        self._position = position
        self._error = error

    async def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run the coroutine, as a task that is cancelled once."""
        await self._drive(work)

    @types.coroutine
    def _drive(self, work: Coroutine[Any, Any, None]) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task is not None
        error: BaseException | None = None
        count = 0
        while True:
            try:
                awaited = work.send(None) if error is None else work.throw(error)
            except StopIteration:
                return
            error = None
            count += 1
            if count == self._position:
                self.is_reached = True
                task.cancel()
            try:
                yield awaited
            except asyncio.CancelledError as raised:
                error = self._error() if count == self._position else raised
