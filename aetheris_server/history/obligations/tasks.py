"""Tasks that are owed go to matching; so do queries, which no state calls for."""

from collections.abc import Callable, Collection, Hashable, Sequence
from math import inf

from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.clock import Clock
from aetheris_server.history.times import from_timestamp
from aetheris_server.ids import shard_of
from aetheris_server.rpc.peers import MatchingPeer

LocateTask = Callable[[TaskRef], str | None]
"""The address of the host that a task goes to; None is this one."""


class TaskCarrier:
    """A `Carrier` of tasks. Offering one twice does no harm."""

    kind = "task"

    def __init__(
        self, matching: MatchingPeer, clock: Clock, locate: LocateTask, shard_count: int
    ) -> None:
        """Args:
        matching: Takes the tasks of a lane in one call.
        clock: Of this host.
        locate: Where a task goes.
        shard_count: Of the cluster.
        """
        self._matching = matching
        self._clock = clock
        self._locate = locate
        self._shard_count = shard_count
        # Until when a query is waited for, by the clock for intervals.
        self._query_deadlines: dict[str, float] = {}

    def locate(self, owed: TaskRef) -> str | None:
        return self._locate(owed)

    def shard_of(self, owed: TaskRef) -> int:
        return shard_of(owed.namespace_id, owed.workflow_id, self._shard_count)

    def group_of(self, owed: TaskRef) -> Hashable:
        return (owed.namespace_id, owed.task_queue, owed.task_queue_type)

    def is_derived(self, owed: TaskRef) -> bool:
        # Queries are few: somebody waits for each.
        return not owed.query_id

    def admit(self, owed: TaskRef) -> bool:
        if owed.query_id:
            left = from_timestamp(owed.expire_time) - self._clock.now()
            deadline = self._clock.monotonic() + left.total_seconds()
            self._query_deadlines[owed.query_id] = deadline
        return True

    def release(self, owed: TaskRef) -> None:
        if owed.query_id:
            self._query_deadlines.pop(owed.query_id, None)

    def is_over(self, owed: TaskRef) -> bool:
        if not owed.query_id:
            return False
        return self._query_deadlines.get(owed.query_id, inf) <= self._clock.monotonic()

    async def send(self, batch: Sequence[TaskRef]) -> Collection[TaskRef]:
        await self._matching.add_tasks(batch)
        return ()
