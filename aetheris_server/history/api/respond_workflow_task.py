"""RespondWorkflowTaskCompleted and -Failed: a decision, or word that none could be made."""

from aetheris.api.v1 import worker_service_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.api.query_workflow import settle_queries
from aetheris_server.history.by_token import load_by_token
from aetheris_server.history.engine import Engine
from aetheris_server.history.notices import CancellationNotices
from aetheris_server.history.run import LoadedRun, Transition
from aetheris_server.history.state.commands import Decision, decide_completed
from aetheris_server.history.state.inflight import Poller, StartedActivity, Sticky
from aetheris_server.history.state.obligations import STICKY_TIMEOUT
from aetheris_server.history.state.run import ActivityState
from aetheris_server.history.state.times import from_duration
from aetheris_server.history.state.workflow_task import decide_failed, require_started
from aetheris_server.history.tasks import (
    start_activity,
    start_workflow_task,
    to_activity_task,
    to_workflow_task,
)

Request = worker_service_pb2.RespondWorkflowTaskCompletedRequest
Response = worker_service_pb2.RespondWorkflowTaskCompletedResponse


async def respond_workflow_task_completed(
    engine: Engine, notices: CancellationNotices, namespace_id: str, request: Request
) -> Response:
    """Record a decision; answer, when it is on disk, with the tasks that the worker may go on with.

    Raises:
        TaskNotFoundError: The task is stale.
        InvalidArgumentError: A command was refused; the workflow task has failed because of it.
    """
    run, token = await load_by_token(engine, namespace_id, request.task_token)
    started = require_started(run.state, run.inflight, token.start_id)
    poller = started.poller
    decision = decide_completed(
        run.state,
        run.inflight,
        request,
        token.start_id,
        engine.clock.now(),
        engine.settings.limits,
    )
    cancelled = notices.of(run, decision.cancelled_event_ids)
    query_ids = started.query_ids
    _bind_sticky(run, request, decision)
    transition = engine.commit(run, decision.record)
    response = Response()
    activities = _take_eager_activities(engine, run, request, decision, transition, poller)
    next_task = None
    if request.return_new_workflow_task and _take_workflow_task(run, transition):
        next_task = start_workflow_task(engine, run, _next_poller(request, poller))
    await transition.ticket.wait()
    notices.send(cancelled)
    settle_queries(engine, run, query_ids, request.query_results)
    if decision.refused is not None:
        raise InvalidArgumentError("commands", str(decision.refused))
    if activities:
        await run.wait_committed()
        response.activity_tasks.extend(
            to_activity_task(run, activity, given) for activity, given in activities
        )
    if next_task is not None:
        response.workflow_task.CopyFrom(await to_workflow_task(engine, run, next_task))
    return response


def _bind_sticky(run: LoadedRun, request: Request, decision: Decision) -> None:
    sticky = request.sticky_attributes
    if decision.refused is not None or not sticky.worker_task_queue:
        run.inflight.sticky = None
        return
    timeout = from_duration(sticky.schedule_to_start_timeout) or STICKY_TIMEOUT
    run.inflight.sticky = Sticky(sticky.worker_task_queue, timeout)


def _next_poller(request: Request, poller: Poller) -> Poller:
    return Poller(
        identity=request.identity,
        worker_instance_id=request.worker_instance_id or poller.worker_instance_id,
        sticky_task_queue=request.sticky_attributes.worker_task_queue,
        worker_version=request.worker_version,
    )


def _take_eager_activities(
    engine: Engine,
    run: LoadedRun,
    request: Request,
    decision: Decision,
    transition: Transition,
    poller: Poller,
) -> list[tuple[ActivityState, StartedActivity]]:
    """Start, for the worker that decided, the activities that it would take along.

    An at-most-once activity is left to the queue: its start must be on disk first.
    """
    if not decision.eager_event_ids or not run.state.is_open:
        return []
    offered = set(request.capabilities)
    wanted = set(decision.eager_event_ids)
    taken: list[tuple[ActivityState, StartedActivity]] = []
    for event_id in decision.eager_event_ids:
        activity = run.state.activities.get(event_id)
        if (
            activity is None
            or activity.is_at_most_once
            or activity.scheduled.task_queue.name != run.state.task_queue
            or not offered.issuperset(activity.scheduled.capabilities)
        ):
            wanted.discard(event_id)
            continue
        given = start_activity(engine, run, activity, _next_poller(request, poller))
        taken.append((activity, given))
    transition.refs[:] = [ref for ref in transition.refs if ref.scheduled_event_id not in wanted]
    return taken


def _take_workflow_task(run: LoadedRun, transition: Transition) -> bool:
    """Keep back the run's new workflow task, if it has one that is due, from being offered."""
    task = run.state.workflow_task
    if task is None or task.is_transient:
        return False
    before = len(transition.refs)
    transition.refs[:] = [
        ref for ref in transition.refs if ref.scheduled_event_id != task.scheduled_event_id
    ]
    return len(transition.refs) < before


async def respond_workflow_task_failed(
    engine: Engine,
    namespace_id: str,
    request: worker_service_pb2.RespondWorkflowTaskFailedRequest,
) -> worker_service_pb2.RespondWorkflowTaskFailedResponse:
    """Note that no decision could be made; the task is tried again.

    Raises:
        TaskNotFoundError: The task is stale.
    """
    run, token = await load_by_token(engine, namespace_id, request.task_token)
    started = require_started(run.state, run.inflight, token.start_id)
    record = decide_failed(run.state, run.inflight, request, token.start_id, engine.clock.now())
    query_ids = started.query_ids
    run.inflight.sticky = None
    transition = engine.commit(run, record)
    await transition.ticket.wait()
    settle_queries(engine, run, query_ids, {})
    return worker_service_pb2.RespondWorkflowTaskFailedResponse()
