"""What one host knows of the backlog of one queue, so that Redis is asked only when it has tasks.

The knowledge may be old: another host may have pushed or popped since. Regular inspections mend it.
They also tell whether Redis has lost a part of the backlog: only pops take tasks away from it, so
there must be no fewer than before without those that were popped since.
"""

import asyncio
from collections.abc import Iterator, Sequence

from aetheris_server.errors import UnavailableError
from aetheris_server.matching.backlog import Backlog, Counts, Inspection, Popped
from aetheris_server.matching.lease_ender import Fate, LeaseEnder
from aetheris_server.matching.match import SubQueue
from aetheris_server.matching.offers import QueueKey
from aetheris_server.telemetry import get_logger

_NOTHING = Popped((), {})

_log = get_logger(__name__)


class BacklogView:
    """The sub-queues that have tasks, as far as is known; iterates over them.

    Attributes:
        is_known: An inspection has looked at all of them.
    """

    def __init__(
        self, queue: QueueKey, backlog: Backlog, lease_ender: LeaseEnder, group: asyncio.TaskGroup
    ) -> None:
        self._queue = queue
        self._backlog = backlog
        self._lease_ender = lease_ender
        self._group = group
        self._counts: dict[SubQueue, int] = {}
        self._in_flight_count = 0
        self._popped_count = 0
        self._popping_count = 0
        self._inspected_at = 0
        self._floor: int | None = None
        self.is_known = False

    def __iter__(self) -> Iterator[SubQueue]:
        return iter(self._counts)

    def __contains__(self, sub_queue: object) -> bool:
        return sub_queue in self._counts

    @property
    def is_pending(self) -> bool:
        """Whether tasks wait or may come back."""
        return bool(self._counts) or self._in_flight_count > 0

    def learn(self, counts: Counts) -> None:
        """Some sub-queues were looked at."""
        for sub_queue, count in counts.items():
            if count:
                self._counts[sub_queue] = count
            else:
                self._counts.pop(sub_queue, None)

    def begin_inspection(self) -> None:
        """All sub-queues are about to be looked at; `replace` or `forget` follows."""
        self._inspected_at = self._popped_count

    def replace(self, inspection: Inspection) -> bool:
        """All sub-queues were looked at; whether tasks are missing."""
        found = sum(inspection.counts.values())
        is_part_lost = self._floor is not None and found < self._floor - (
            self._popped_count + self._popping_count
        )
        # Pops that ran before the inspection and are heard of later only lower the floor.
        self._floor = found + self._inspected_at
        self._counts.clear()
        self._in_flight_count = inspection.in_flight_count
        self.is_known = True
        self.learn(inspection.counts)
        return is_part_lost

    def forget(self) -> None:
        """Nothing is known until the next inspection."""
        self._floor = None
        self._counts.clear()
        self._in_flight_count = 0
        self.is_known = False

    async def pop(self, sub_queues: Sequence[SubQueue], max_tasks: int) -> Popped:
        """Lease tasks of some sub-queues; none if Redis does not answer. If the caller is cancelled
        meanwhile, they go back.
        """
        pop = self._group.create_task(self._try_pop(sub_queues, max_tasks))
        try:
            popped = await asyncio.shield(pop)
        except asyncio.CancelledError:
            pop.add_done_callback(self._give_back)
            raise
        # Counted until the next inspection, so that there is one, also when nothing else waits.
        self._in_flight_count += len(popped.leased)
        return popped

    async def _try_pop(self, sub_queues: Sequence[SubQueue], max_tasks: int) -> Popped:
        self._popping_count += max_tasks
        try:
            popped = await self._backlog.pop(self._queue, sub_queues, max_tasks)
            self._popped_count += len(popped.leased)
            return popped
        except UnavailableError as error:
            _log.debug("backlog does not answer", error=str(error))
        except Exception:  # noqa: BLE001 - a fault in one queue's backlog must not end the others
            _log.exception("backlog cannot be read", task_queue=self._queue.task_queue)
        finally:
            self._popping_count -= max_tasks
        # What is not known is not asked for, so nobody asks again in a loop.
        self.forget()
        return _NOTHING

    def _give_back(self, pop: asyncio.Task[Popped]) -> None:
        if not pop.cancelled():
            for lease, _ in pop.result().leased:
                self._lease_ender.end_lease(self._queue, lease, Fate.RETURNED)
