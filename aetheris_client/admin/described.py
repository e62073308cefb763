"""What `workflow describe` shows beside the server's description: how a closed run ended, and which
task queues of an open one nobody polls who could take its tasks. All by public calls.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aetheris.api.v1.common_pb2 import Payload
from aetheris_client.admin.plain import plain
from aetheris_client.client import Client
from aetheris_client.descriptions import WorkflowDescription
from aetheris_client.enums import PendingActivityState, PendingWorkflowTaskState, TaskQueueType
from aetheris_client.errors import RpcError, WorkflowContinuedAsNewError, WorkflowFailedError
from aetheris_client.operator_client import TaskQueueDescription

# A worker polls again within moments, unless it is busy.
_RECENT: Final = timedelta(seconds=30)
_OUTCOME_TIMEOUT: Final = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Unpolled:
    """A side of a task queue where a task of the run waits, or may soon, and nobody polls who could
    take it.

    Attributes:
        capabilities: What the task requires.
        build_id: The build that it goes to; empty for any.
        is_pinned: That is because the run is pinned, and not by default.
        last_poll_time: When somebody who could take it last polled; None if nobody did in the last
            minutes.
    """

    task_queue: str
    task_queue_type: TaskQueueType
    capabilities: tuple[str, ...]
    last_poll_time: datetime | None
    build_id: str = ""
    is_pinned: bool = False

    def __str__(self) -> str:
        able = f" with capabilities {', '.join(self.capabilities)}" if self.capabilities else ""
        if self.build_id:
            why = "which the run is pinned to" if self.is_pinned else "the queue's default"
            able += f" of build {self.build_id!r}, {why},"
        kind = self.task_queue_type.lower()
        text = f"no worker{able} polls {self.task_queue!r} for {kind} tasks"
        if self.last_poll_time is None:
            return text
        last = f"{self.last_poll_time:%H:%M:%S}Z"
        return f"{text} now: who did has stopped or is busy (last poll {last})"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run closed: what it returned, why it failed, or which run goes on.

    Attributes:
        result: The value, None also where it returned nothing.
    """

    result: object = None
    failure: BaseException | None = None
    new_run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Described:
    """A run, as `workflow describe` shows it.

    Attributes:
        outcome: None while it is open.
        warnings: What may hold it up, and what could not be found out.
    """

    run: WorkflowDescription
    outcome: Outcome | None
    warnings: Sequence[str]

    def to_plain(self) -> Mapping[str, object]:
        """For programs: the description's own fields, and beside them what was found."""
        described: dict[str, object] = {
            name: getattr(self.run, name) for name in WorkflowDescription.__slots__
        }
        if self.outcome is not None:
            described |= {"result": self.outcome.result, "failure": self.outcome.failure}
        return {**described, "warnings": self.warnings}


async def describe_run(client: Client, workflow_id: str, run_id: str | None) -> Described:
    """Everything about one run; the newest of the id where none is named."""
    description = await client.get_workflow_handle(workflow_id, run_id).describe()
    try:
        if description.info.close_time is not None:
            outcome = await _outcome(client, workflow_id, description.info.run_id)
            return Described(description, outcome, ())
        unpolled = await _unpolled(client, description)
    except RpcError as error:
        # What is known is shown all the same.
        return Described(description, None, [f"the server could not say more: {error}"])
    return Described(description, None, list(map(str, unpolled)))


async def _outcome(client: Client, workflow_id: str, run_id: str) -> Outcome:
    handle = client.get_workflow_handle(workflow_id, run_id, result_type=Payload)
    try:
        result: Any = await handle.result(timeout=_OUTCOME_TIMEOUT, follow_runs=False)
    except WorkflowContinuedAsNewError as error:
        return Outcome(new_run_id=error.new_run_id)
    except WorkflowFailedError as error:
        return Outcome(failure=error.cause)
    return Outcome(result=plain(result) if isinstance(result, Payload) else result)


async def _unpolled(client: Client, description: WorkflowDescription) -> Sequence[Unpolled]:
    queues: dict[tuple[str, TaskQueueType], TaskQueueDescription] = {}
    found: dict[Unpolled, None] = {}
    for need in _needs(description):
        key = need.task_queue, need.task_queue_type
        if key not in queues:
            queues[key] = await client.operator.describe_task_queue(*key)
        build_id = need.build_id or queues[key].default_build_id
        able = [
            poller
            for poller in queues[key].pollers
            if set(need.capabilities) <= set(poller.capabilities)
            and build_id in ("", poller.build_id)
        ]
        if not any(poller.waiting_poll_count for poller in able):
            times = [poller.last_access_time for poller in able if poller.last_access_time]
            last = max(times, default=None)
            if need.is_waiting or last is None or datetime.now(UTC) - last > _RECENT:
                is_pinned = bool(need.build_id)
                found[Unpolled(*key, need.capabilities, last, build_id, is_pinned)] = None
    return list(found)


@dataclass(frozen=True, slots=True)
class _Need:
    """Where a task of a run waits, or where one will."""

    task_queue: str
    task_queue_type: TaskQueueType
    capabilities: tuple[str, ...]
    is_waiting: bool
    build_id: str = ""


def _needs(description: WorkflowDescription) -> Iterator[_Need]:
    task = description.pending_workflow_task
    is_waiting = task is not None and task.state is PendingWorkflowTaskState.SCHEDULED
    # A run that waits for something else needs a worker as well once that has come.
    queue, build_id = description.info.task_queue, description.pinned_build_id
    yield _Need(queue, TaskQueueType.WORKFLOW, (), is_waiting, build_id)
    for activity in description.pending_activities:
        if activity.state is PendingActivityState.SCHEDULED:
            next_time = activity.next_attempt_time
            yield _Need(
                activity.task_queue,
                TaskQueueType.ACTIVITY,
                tuple(activity.capabilities),
                is_waiting=next_time is None or next_time <= datetime.now(UTC),
            )
