"""Brings tasks to the backlog, and waits for Redis only as long as it can be expected to answer.

Who offers tasks has room for so many calls at a time. A Redis that hangs must not fill it, for a
task that meets a waiting poll needs no Redis: so nobody waits for long, and while Redis is in doubt
one push at a time finds out whether it is back. What was refused is still owed by its caller.
"""

import asyncio
from collections.abc import Mapping, Sequence

from aetheris_server.errors import StorageUnavailableError
from aetheris_server.matching.backlog import Backlog, Pushed
from aetheris_server.matching.offers import QueuedTask, QueueKey

_PATIENCE = 0.5

_Outcome = Mapping[QueueKey, Pushed] | Exception


class Pusher:
    """Pushes tasks for all queues of a host."""

    def __init__(self, backlog: Backlog, group: asyncio.TaskGroup) -> None:
        """Args:
        group: Of what outlasts a call; each push has a deadline of its own.
        """
        self._backlog = backlog
        self._group = group
        self._under_way = 0
        self._is_in_doubt = False

    async def push(
        self, tasks: Mapping[QueueKey, Sequence[QueuedTask]]
    ) -> Mapping[QueueKey, Pushed]:
        """See `Backlog.push`.

        Raises:
            StorageUnavailableError: Redis does not answer, or not soon: it may still take them.
        """
        if self._is_in_doubt and self._under_way:
            raise StorageUnavailableError("redis", "it has not answered lately")
        self._under_way += 1
        push = self._group.create_task(self._try_push(tasks))
        done, _ = await asyncio.wait([push], timeout=_PATIENCE)
        if not done:
            self._is_in_doubt = True
            raise StorageUnavailableError("redis", f"no answer within {_PATIENCE} s")
        outcome = push.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def _try_push(self, tasks: Mapping[QueueKey, Sequence[QueuedTask]]) -> _Outcome:
        """Never raises: nobody may be waiting for it any more."""
        try:
            pushed = await self._backlog.push(tasks)
        except Exception as error:  # noqa: BLE001 - the caller's, if it still waits
            self._is_in_doubt = True
            return error
        finally:
            self._under_way -= 1
        self._is_in_doubt = False
        return pushed
