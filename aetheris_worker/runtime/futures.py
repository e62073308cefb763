"""The futures and tasks of workflow code.

Invariant: the place of one in a set does not depend on its address in memory. asyncio keeps futures
and tasks in sets and iterates over them (wait, TaskGroup); with the default hash their order, and
so the order of commands, would differ between two replays. Equality stays identity.
"""

import asyncio
import contextvars
from collections.abc import Coroutine, Generator
from typing import Any, TypeVar, cast

T = TypeVar("T")


class WorkflowFuture(asyncio.Future[T]):
    """A future; the loop counts the hashes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, hash_value: int) -> None:
        super().__init__(loop=loop)
        self._hash = hash_value

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other


class WorkflowTask(asyncio.Task[T]):
    """A task; the loop counts the hashes. `context` is where its coroutine runs."""

    def __init__(
        self,
        coro: Generator[Any, Any, T] | Coroutine[Any, Any, T],
        *,
        loop: asyncio.AbstractEventLoop,
        hash_value: int,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> None:
        # The base class already hashes itself, into asyncio's set of all tasks.
        self._hash = hash_value
        self.context = contextvars.copy_context() if context is None else context
        # asyncio's own default name counts over the whole process.
        super().__init__(cast(Any, coro), loop=loop, name=name or "task", context=self.context)
        # An evicted run's tasks end pending, on purpose.
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other
