"""RespondWorkflowTaskCompleted and -Failed: a decision, or word that none could be made."""

from collections.abc import Mapping

from aetheris.api.v1 import worker_service_pb2
from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.errors import InvalidArgumentError, TaskNotFoundError, UnavailableError
from aetheris_server.history.aggregates.transition import Transition
from aetheris_server.history.api.query_workflow import settle_queries
from aetheris_server.history.runs.by_token import load_by_token
from aetheris_server.history.runs.eager import (
    Given,
    build_workflow_task,
    given_back_on_failure,
    may_take,
    take_again,
    take_workflow_task,
    withdraw_tasks,
)
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.runs.task_start import (
    mark_activity_started,
    to_activity_task,
)
from aetheris_server.history.runs.updates import take_judged, tell
from aetheris_server.history.state.command_pass import Decision
from aetheris_server.history.state.commands import (
    NO_NAMESPACES,
    decide_workflow_task_completed,
    named_namespaces,
)
from aetheris_server.history.state.inflight import Sticky, TaskTaker
from aetheris_server.history.state.machines.workflow_task.ending import (
    decide_flush,
    decide_workflow_task_failed,
    require_started,
)
from aetheris_server.history.state.machines.workflow_task.tasks import STICKY_TIMEOUT
from aetheris_server.history.state.machines.workflow_task.values import StartedWorkflowTask
from aetheris_server.history.times import from_duration
from aetheris_server.storage.namespaces import find_namespace_ids

Request = worker_service_pb2.RespondWorkflowTaskCompletedRequest
Response = worker_service_pb2.RespondWorkflowTaskCompletedResponse


async def respond_workflow_task_completed(
    runs: Runs, token: TaskToken, request: Request
) -> Response:
    """Record a decision; answer, when it is on disk, with the tasks that the worker may go on with.

    Raises:
        TaskNotFoundError: The task is stale.
        InvalidArgumentError: A command was refused; the workflow task has failed because of it.
    """
    namespaces = await _find_namespaces(runs, request)
    run = await load_by_token(runs, token)
    try:
        started = require_started(run.state, run.inflight, token.start_id)
    except TaskNotFoundError:
        if (repeated := await _repeat(runs, run, token.start_id, request)) is None:
            raise
        return repeated
    if started.is_speculative and request.is_discardable and not request.commands:
        return await _discard(runs, run, started, request)
    taker = started.taker
    decision = decide_workflow_task_completed(
        run.state,
        run.inflight,
        request,
        token.start_id,
        runs.time_of(run),
        runs.limits_of(run),
        namespaces,
    )
    cancelled = runs.notices.of(run, decision.cancelled_event_ids)
    _bind_sticky(run, request, is_refused=decision.refused is not None or decision.is_overdue)
    transition = runs.commit(run, decision.record)
    run.inflight.heartbeat_since = decision.heartbeat_since
    rejected = (
        [] if decision.refused else take_judged(run, started.updates, request.update_rejections)
    )
    runs.updates.offer(run)
    given = Given()
    if decision.refused is None and not decision.is_overdue:
        next_taker = _next_taker(request, taker.worker_instance_id)
        _take_eager_activities(runs, run, request, decision, transition, next_taker, given)
        if request.return_new_workflow_task and may_take(runs, run, request.worker_version):
            given.workflow_task = take_workflow_task(runs, run, transition, next_taker)
    with given_back_on_failure(runs, run, given):
        await transition.ticket.wait()
        runs.notices.send(cancelled)
        tell(run, rejected)
        settle_queries(runs, run, started.query_ids, request.query_results)
        if decision.refused is not None:
            raise InvalidArgumentError(decision.refused.field, decision.refused.description)
        if decision.is_overdue:
            raise TaskNotFoundError(
                f"the workflow task timed out: for {runs.limits.max_heartbeat} its worker has said "
                "nothing but that it is at work"
            )
        return await _to_response(runs, run, given)


async def _find_namespaces(runs: Runs, request: Request) -> Mapping[str, str]:
    """The ids of the namespaces that the commands name, without those there are not."""
    names = named_namespaces(request)
    return await find_namespace_ids(runs.db, sorted(names)) if names else NO_NAMESPACES


async def _discard(
    runs: Runs, run: LoadedRun, started: StartedWorkflowTask, request: Request
) -> Response:
    """All updates of a speculative task are rejected: nothing is written of it.

    Events that came meanwhile get their ids, and a workflow task, which may go along.
    """
    run.inflight.workflow_task = None
    given = Given()
    record = decide_flush(run.state, run.inflight, runs.time_of(run))
    if record is not None:
        try:
            transition = runs.commit(run, record)
        except UnavailableError:
            run.inflight.workflow_task = started
            raise
        _bind_sticky(run, request)
        if request.return_new_workflow_task and may_take(runs, run, request.worker_version):
            taker = _next_taker(request, started.taker.worker_instance_id)
            given.workflow_task = take_workflow_task(runs, run, transition, taker)
    else:
        _bind_sticky(run, request)
    rejected = take_judged(run, started.updates, request.update_rejections)
    runs.updates.offer(run)
    with given_back_on_failure(runs, run, given):
        await run.wait_committed()
        tell(run, rejected)
        settle_queries(runs, run, started.query_ids, request.query_results)
        response = await _to_response(runs, run, given)
    response.is_discarded = True
    return response


async def _repeat(runs: Runs, run: LoadedRun, start_id: str, request: Request) -> Response | None:
    """The response to a decision that was taken before, whose worker asks for it again; None for
    any other, once what speaks against it is on disk.
    """
    is_newest = _is_newest_decision(run, start_id)
    given = take_again(runs, run, _next_taker(request, ""))
    with given_back_on_failure(runs, run, given):
        await run.wait_committed()
        if given.is_empty and not is_newest:
            return None
        return await _to_response(runs, run, given)


def _is_newest_decision(run: LoadedRun, start_id: str) -> bool:
    """As far as memory tells: it does not matter enough to read the log."""
    event_id = run.state.previous_started_event_id
    events = run.tail.try_slice(event_id, event_id + 1) if event_id else None
    if not events:
        return False
    return events[0].workflow_task_started_event_attributes.request_id == start_id


async def _to_response(runs: Runs, run: LoadedRun, given: Given) -> Response:
    response = Response(activity_tasks=given.activity_tasks)
    if given.workflow_task is not None:
        task = await build_workflow_task(runs, run, given.workflow_task)
        if task is not None:
            response.workflow_task.CopyFrom(task)
    return response


def _bind_sticky(run: LoadedRun, request: Request, *, is_refused: bool = False) -> None:
    sticky = request.sticky_attributes
    if is_refused or not sticky.worker_task_queue:
        run.inflight.sticky = None
        return
    timeout = from_duration(sticky.schedule_to_start_timeout) or STICKY_TIMEOUT
    run.inflight.sticky = Sticky(sticky.worker_task_queue, timeout, request.worker_version)


def _next_taker(request: Request, worker_instance_id: str) -> TaskTaker:
    return TaskTaker(
        identity=request.identity,
        worker_instance_id=request.worker_instance_id or worker_instance_id,
        sticky_task_queue=request.sticky_attributes.worker_task_queue,
        worker_version=request.worker_version,
        call_id=request.task_token,
    )


def _take_eager_activities(
    runs: Runs,
    run: LoadedRun,
    request: Request,
    decision: Decision,
    transition: Transition,
    taker: TaskTaker,
    given: Given,
) -> None:
    """Start, for the worker that decided, the activities that it would take along.

    An at-most-once activity is left to the queue: its start must be on disk first. Of a run that is
    paused none is given out.
    """
    if run.state.is_paused:
        return
    offered = set(request.capabilities)
    for event_id in decision.eager_event_ids:
        activity = run.state.activities.get(event_id)
        if (
            activity is None
            or activity.is_at_most_once
            or activity.scheduled.task_queue.name != run.state.task_queue
            or not offered.issuperset(activity.scheduled.capabilities)
        ):
            continue
        started = mark_activity_started(runs, run, activity, taker)
        given.add_activity(started, to_activity_task(runs, run, activity, started))
    event_ids = {started.scheduled_event_id for started in given.activities}
    withdraw_tasks(transition, event_ids)


async def respond_workflow_task_failed(
    runs: Runs,
    token: TaskToken,
    request: worker_service_pb2.RespondWorkflowTaskFailedRequest,
) -> worker_service_pb2.RespondWorkflowTaskFailedResponse:
    """Note that no decision could be made; the task is tried again.

    Raises:
        TaskNotFoundError: The task is stale.
    """
    run = await load_by_token(runs, token)
    try:
        started = require_started(run.state, run.inflight, token.start_id)
    except TaskNotFoundError:
        # What the refusal goes by may not be on disk yet.
        await run.wait_committed()
        raise
    record = decide_workflow_task_failed(
        run.state, run.inflight, request, token.start_id, runs.time_of(run)
    )
    run.inflight.sticky = None
    transition = runs.commit(run, record)
    await transition.ticket.wait()
    settle_queries(runs, run, started.query_ids, {})
    return worker_service_pb2.RespondWorkflowTaskFailedResponse()
