"""StartTasks and ReleaseTasks: matching gives tasks to a poller, or takes them back."""

import asyncio
from collections.abc import Iterable, Sequence

from aetheris.api.v1 import task_queue_pb2
from aetheris.server.v1 import history_service_pb2, matching_service_pb2
from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.errors import RequestError, RunUnreadableError, UnavailableError
from aetheris_server.history.runs.eager import (
    Given,
    give_back,
    given_back_on_failure,
    release_activity,
    release_workflow_task,
)
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.runs.task_start import (
    mark_activity_started,
    mark_workflow_task_started,
    to_activity_task,
    to_query_task,
    to_workflow_task,
)
from aetheris_server.history.runs.updates import is_speculative_ref
from aetheris_server.history.state.inflight import TaskTaker
from aetheris_server.history.state.machines.activity import starting as activity_starting
from aetheris_server.history.state.machines.workflow_task import starting as task_starting
from aetheris_server.history.state.run_options import pinned_build_id
from aetheris_server.history.times import from_timestamp
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)

StartedTask = history_service_pb2.StartedTask
TaskRef = matching_service_pb2.TaskRef

_AllGiven = list[tuple[LoadedRun, Given]]
"""What one call has started so far, of all runs."""

_GONE = StartedTask(gone=history_service_pb2.TaskGone())
_RETRY = StartedTask(retry=history_service_pb2.TaskRetry())


async def start_tasks(
    runs: Runs, request: history_service_pb2.StartTasksRequest
) -> history_service_pb2.StartTasksResponse:
    """Start each task that still is what its reference says; one outcome each, in order."""
    taker = TaskTaker(
        identity=request.identity,
        worker_instance_id=request.worker_instance_id,
        sticky_task_queue=request.sticky_task_queue,
        worker_version=request.worker_version,
        call_id=request.request_id.encode(),
    )
    given: _AllGiven = []
    if len(request.tasks) == 1:
        outcomes: Iterable[StartedTask] = [
            await _start_or_retry(runs, request.tasks[0], taker, given)
        ]
    else:
        try:
            outcomes = await asyncio.gather(
                *(_start_or_retry(runs, ref, taker, given) for ref in request.tasks)
            )
        except BaseException:
            # Those that were ready are not answered either.
            for run, of_run in given:
                give_back(runs, run, of_run)
            raise
    return history_service_pb2.StartTasksResponse(tasks=outcomes)


async def _start_or_retry(
    runs: Runs, ref: TaskRef, taker: TaskTaker, given: _AllGiven
) -> StartedTask:
    try:
        return await _start(runs, ref, taker, given)
    except (RequestError, RunUnreadableError):
        # A run that cannot be read is not looked at every second: who can read it one day finds
        # out from the disk that it owes this.
        return _GONE
    except UnavailableError:
        return _RETRY
    except Exception:  # noqa: BLE001 - logged whole
        # A run at fault must not take along the tasks that are started with its own.
        _log.exception("a task could not be started", run_id=ref.run_id)
        return _RETRY


async def _start(runs: Runs, ref: TaskRef, taker: TaskTaker, given: _AllGiven) -> StartedTask:
    run = await runs.load(ref.namespace_id, ref.workflow_id, ref.run_id)
    if ref.query_id:
        waiting = run.queries.get(ref.query_id)
        if waiting is None or waiting.answer.done():
            return _GONE
        return StartedTask(workflow_task=await to_query_task(runs, run, waiting, taker))
    if taker.call_id:
        _release_repeated(runs, run, ref, taker)
    if ref.task_queue_type == task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW:
        return await _start_workflow_task(runs, run, ref, taker, given)
    return await _start_activity(runs, run, ref, taker, given)


def _release_repeated(runs: Runs, run: LoadedRun, ref: TaskRef, taker: TaskTaker) -> None:
    """Take back what this very call started before, when its response was lost, so that it is
    started anew: the first try, should it still be under way, takes back only what it started.
    """
    if ref.task_queue_type == task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW:
        task = run.inflight.workflow_task
        if task is not None and task.taker.is_repeated_by(taker):
            release_workflow_task(runs, run, task.start_id)
        return
    activity = run.inflight.activities.get(ref.scheduled_event_id)
    if activity is not None and activity.taker.is_repeated_by(taker):
        release_activity(runs, run, activity.scheduled_event_id, activity.started_time)


async def _start_workflow_task(
    runs: Runs, run: LoadedRun, ref: TaskRef, taker: TaskTaker, given: _AllGiven
) -> StartedTask:
    now = runs.time_of(run)
    if not task_starting.is_startable(
        run.state, run.inflight, ref.scheduled_event_id, ref.attempt, now
    ) and not is_speculative_ref(run, ref):
        return _GONE
    pinned = pinned_build_id(run.state)
    if pinned and pinned != taker.worker_version:
        # Offered before the run was moved; it has been offered to the other build since.
        return _GONE
    sticky = run.inflight.sticky
    if sticky is not None and sticky.task_queue != taker.sticky_task_queue:
        run.inflight.sticky = None
    started = mark_workflow_task_started(runs, run, taker)
    of_run = Given(workflow_task=started)
    with given_back_on_failure(runs, run, of_run, offers_on_fault=False):
        task = await to_workflow_task(runs, run, started)
    given.append((run, of_run))
    return StartedTask(workflow_task=task)


async def _start_activity(
    runs: Runs, run: LoadedRun, ref: TaskRef, taker: TaskTaker, given: _AllGiven
) -> StartedTask:
    now = runs.time_of(run)
    if not activity_starting.is_startable(
        run.state, run.inflight, ref.scheduled_event_id, ref.attempt, now
    ):
        return _GONE
    activity = run.state.activities[ref.scheduled_event_id]
    started = mark_activity_started(runs, run, activity, taker)
    of_run = Given(activities=[started])
    with given_back_on_failure(runs, run, of_run, offers_on_fault=False):
        task = to_activity_task(runs, run, activity, started)
        await run.wait_committed()
    given.append((run, of_run))
    return StartedTask(activity_task=task)


async def release_tasks(runs: Runs, tokens: Sequence[TaskToken]) -> None:
    """Take back tasks that were started for a poller that disappeared, and offer them again.

    Raises:
        UnavailableError: Some could not be taken back now; call again.
    """
    failure: UnavailableError | None = None
    for token in tokens:
        try:
            await _release(runs, token)
        except RequestError:
            # Closed: nobody owes the task any more.
            continue
        except UnavailableError as error:
            failure = error
    if failure is not None:
        raise failure


async def _release(runs: Runs, token: TaskToken) -> None:
    run = await runs.load(token.namespace_id, token.workflow_id, token.run_id)
    if token.start_id:
        release_workflow_task(runs, run, token.start_id)
    elif token.query_id:
        waiting = run.queries.get(token.query_id)
        if waiting is not None and not waiting.answer.done():
            runs.queries.offer(run, waiting)
    else:
        started_time = from_timestamp(token.started_time)
        release_activity(runs, run, token.scheduled_event_id, started_time)
