"""RespondActivityTaskCompleted, -Failed, -Cancelled and RecordActivityTaskHeartbeat."""

from datetime import datetime

from aetheris.api.v1 import worker_service_pb2
from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.errors import InvalidArgumentError, TaskNotFoundError
from aetheris_server.history.runs.by_token import load_by_token
from aetheris_server.history.runs.eager import (
    Given,
    build_workflow_task,
    given_back_on_failure,
    may_take,
    take_again,
    take_workflow_task,
)
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.runs.task_start import (
    arm_activity,
    mark_activity_started,
)
from aetheris_server.history.state.inflight import TaskTaker
from aetheris_server.history.state.machines.activity import answers
from aetheris_server.history.state.machines.activity.values import ActivityState
from aetheris_server.history.times import from_timestamp

CompletedRequest = worker_service_pb2.RespondActivityTaskCompletedRequest
CompletedResponse = worker_service_pb2.RespondActivityTaskCompletedResponse


async def respond_activity_task_completed(
    runs: Runs, token: TaskToken, request: CompletedRequest
) -> CompletedResponse:
    """Record a result; answer, when it is on disk, with the workflow task that it caused, if asked.

    Raises:
        TaskNotFoundError: The attempt is over.
    """
    run = await _load_run(runs, token)
    try:
        activity = _require(run, token)
    except TaskNotFoundError:
        given = take_again(runs, run, _taker_of(request))
        response = await _respond_completed(runs, run, given)
        if given.is_empty:
            raise
        return response
    started_time = _started_time(runs, run, activity, token)
    record = answers.decide_activity_task_completed(
        run.state, run.inflight, activity, request, started_time, runs.time_of(run)
    )
    transition = runs.commit(run, record)
    given = Given()
    sticky = run.inflight.sticky
    # Only for the worker that has the run cached: another would need the whole history.
    if (
        sticky is not None
        and sticky.task_queue == request.sticky_task_queue
        and may_take(runs, run, sticky.worker_version)
    ):
        taker = _taker_of(request)
        given.workflow_task = take_workflow_task(runs, run, transition, taker)
    return await _respond_completed(runs, run, given)


def _taker_of(request: CompletedRequest) -> TaskTaker:
    return TaskTaker(
        identity=request.identity,
        worker_instance_id=request.worker_instance_id,
        sticky_task_queue=request.sticky_task_queue,
        call_id=request.task_token,
    )


async def _respond_completed(runs: Runs, run: LoadedRun, given: Given) -> CompletedResponse:
    """What the worker takes along, once all that has been decided is on disk."""
    response = CompletedResponse()
    with given_back_on_failure(runs, run, given):
        await run.wait_committed()
        if given.workflow_task is not None:
            task = await build_workflow_task(runs, run, given.workflow_task)
            if task is not None:
                response.workflow_task.CopyFrom(task)
        return response


async def respond_activity_task_failed(
    runs: Runs,
    token: TaskToken,
    request: worker_service_pb2.RespondActivityTaskFailedRequest,
) -> worker_service_pb2.RespondActivityTaskFailedResponse:
    """Record a failure; whether it is tried again is the server's to decide.

    Raises:
        TaskNotFoundError: The attempt is over.
    """
    run, activity, started_time = await _load(runs, token)
    record = answers.decide_activity_task_failed(
        run.state, run.inflight, activity, request, started_time, runs.time_of(run)
    )
    transition = runs.commit(run, record)
    await transition.ticket.wait()
    return worker_service_pb2.RespondActivityTaskFailedResponse()


async def respond_activity_task_cancelled(
    runs: Runs,
    token: TaskToken,
    request: worker_service_pb2.RespondActivityTaskCancelledRequest,
) -> worker_service_pb2.RespondActivityTaskCancelledResponse:
    """Record that the activity obeyed a request to cancel.

    Raises:
        TaskNotFoundError: The attempt is over.
        InvalidArgumentError: Nobody asked it to cancel.
    """
    run, activity, started_time = await _load(runs, token)
    record = answers.decide_activity_task_cancelled(
        run.state, run.inflight, activity, request, started_time, runs.time_of(run)
    )
    transition = runs.commit(run, record)
    await transition.ticket.wait()
    return worker_service_pb2.RespondActivityTaskCancelledResponse()


async def record_activity_task_heartbeat(
    runs: Runs,
    token: TaskToken,
    request: worker_service_pb2.RecordActivityTaskHeartbeatRequest,
) -> worker_service_pb2.RecordActivityTaskHeartbeatResponse:
    """Note a sign of life; details are on disk when it answers.

    An attempt whose start this host does not know, because it restarted since, is taken up again,
    so that it is not given to a second worker.

    Raises:
        TaskNotFoundError: The attempt is over.
    """
    run, activity, started_time = await _load(runs, token)
    now, at = runs.time_of(run), runs.clock.monotonic()
    started = run.inflight.activities.get(activity.scheduled_event_id)
    if started is None:
        if token.activity_id and activity.attempt_scheduled_time > now:
            raise TaskNotFoundError(f"attempt {activity.attempt} is not due yet")
        started = mark_activity_started(runs, run, activity, TaskTaker(request.identity))
        started.backdate(started_time, now, at)
    started.note_heartbeat(now, at)
    arm_activity(runs, run, started)
    details = request.details if request.HasField("details") else None
    record = answers.decide_heartbeat(run.state, run.inflight, activity, details, now)
    if record is not None:
        runs.commit(run, record)
    response = worker_service_pb2.RecordActivityTaskHeartbeatResponse(
        cancel_requested=activity.cancel_requested_event_id != 0,
        activity_paused=activity.pause is not None,
        activity_reset=activity.is_reset,
    )
    await run.wait_committed()
    return response


async def _load(runs: Runs, token: TaskToken) -> tuple[LoadedRun, ActivityState, datetime]:
    """The run, the activity whose current attempt the token names, and when that was started."""
    run = await _load_run(runs, token)
    try:
        activity = _require(run, token)
    except TaskNotFoundError:
        # What the refusal goes by may not be on disk yet.
        await run.wait_committed()
        raise
    return run, activity, _started_time(runs, run, activity, token)


async def _load_run(runs: Runs, token: TaskToken) -> LoadedRun:
    if token.start_id or token.query_id:
        raise InvalidArgumentError("task_token", "the token is of a workflow task")
    if token.activity_id:
        return await runs.load(token.namespace_id, token.workflow_id, token.run_id)
    return await load_by_token(runs, token)


def _require(run: LoadedRun, token: TaskToken) -> ActivityState:
    if token.activity_id:
        return answers.require_by_id(run.state, token.activity_id)
    return answers.require_attempt(run.state, token.scheduled_event_id, token.attempt)


def _started_time(
    runs: Runs, run: LoadedRun, activity: ActivityState, token: TaskToken
) -> datetime:
    """Deadlines count from it, so it is never ahead of the run's time, nor from before the
    attempt was due, whatever the clock of the host was that gave the task out.
    """
    started = run.inflight.activities.get(activity.scheduled_event_id)
    if token.activity_id and started is not None:
        given = started.started_time
    else:
        given = from_timestamp(token.started_time)
    return min(max(given, activity.attempt_scheduled_time), runs.time_of(run))
