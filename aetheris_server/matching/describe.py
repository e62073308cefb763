"""A task queue as people see it."""

from collections import Counter
from collections.abc import Iterable, Sequence

from aetheris.api.v1.operator_service_pb2 import DescribeTaskQueueResponse
from aetheris.api.v1.task_queue_pb2 import BacklogInfo
from aetheris_server.build_ids import split_build
from aetheris_server.matching.backlog import SubQueueState
from aetheris_server.matching.match import Capabilities
from aetheris_server.matching.offers import QueuedTask
from aetheris_server.matching.queue import TaskQueue


def describe(
    queue: TaskQueue, backlog: Sequence[SubQueueState], wall_now: float
) -> DescribeTaskQueueResponse:
    """The pollers of a queue, and what waits in it: in memory and in the backlog given."""
    return DescribeTaskQueueResponse(
        pollers=queue.pollers.infos(),
        backlogs=_backlog_infos(backlog, queue.held(), wall_now),
        default_build_id=queue.default_build_id,
    )


def _backlog_infos(
    backlog: Sequence[SubQueueState], held: Iterable[QueuedTask], wall_now: float
) -> list[BacklogInfo]:
    """Sub-queues that differ in their sticky queue only are one to people."""
    waiting: Counter[Capabilities] = Counter()
    in_flight: Counter[Capabilities] = Counter()
    oldest: dict[Capabilities, float] = {}

    def note_score(capabilities: Capabilities, score: float) -> None:
        oldest[capabilities] = min(score, oldest.get(capabilities, score))

    for task in held:
        waiting[task.capabilities] += 1
        note_score(task.capabilities, task.score)
    for state in backlog:
        capabilities = state.sub_queue.capabilities
        waiting[capabilities] += state.waiting_count
        in_flight[capabilities] += state.in_flight_count
        if state.oldest_score is not None:
            note_score(capabilities, state.oldest_score)
    infos: list[BacklogInfo] = []
    for capabilities in sorted(waiting.keys() | in_flight.keys(), key=sorted):
        users_own, build_id = split_build(capabilities)
        info = BacklogInfo(
            capabilities=users_own,
            pinned_build_id=build_id,
            backlog_count=waiting[capabilities],
            in_flight_count=in_flight[capabilities],
        )
        if capabilities in oldest:
            age = max(0.0, wall_now - oldest[capabilities])
            info.oldest_age.FromNanoseconds(int(age * 1e9))
        infos.append(info)
    return infos
