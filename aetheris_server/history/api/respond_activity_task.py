"""RespondActivityTaskCompleted, -Failed, -Cancelled and RecordActivityTaskHeartbeat."""

from datetime import datetime

from aetheris.api.v1 import worker_service_pb2
from aetheris.server.v1 import token_pb2
from aetheris_server.history.by_token import load_by_token
from aetheris_server.history.engine import Engine
from aetheris_server.history.run import LoadedRun, Transition
from aetheris_server.history.state import activity as machine
from aetheris_server.history.state.inflight import Poller, StartedWorkflowTask
from aetheris_server.history.state.run import ActivityState
from aetheris_server.history.state.times import from_timestamp
from aetheris_server.history.tasks import (
    arm_activity,
    start_activity,
    start_workflow_task,
    to_workflow_task,
)

CompletedRequest = worker_service_pb2.RespondActivityTaskCompletedRequest
CompletedResponse = worker_service_pb2.RespondActivityTaskCompletedResponse


async def respond_activity_task_completed(
    engine: Engine, namespace_id: str, request: CompletedRequest
) -> CompletedResponse:
    """Record a result; answer, when it is on disk, with the workflow task that it caused, if asked.

    Raises:
        TaskNotFoundError: The attempt is over.
    """
    run, activity, token = await _load(engine, namespace_id, request.task_token)
    record = machine.decide_completed(
        run.state, run.inflight, activity, request, _started_time(token), engine.clock.now()
    )
    transition = engine.commit(run, record)
    task = _take_workflow_task(engine, run, transition, request)
    await transition.ticket.wait()
    response = CompletedResponse()
    if task is not None:
        response.workflow_task.CopyFrom(await to_workflow_task(engine, run, task))
    return response


def _take_workflow_task(
    engine: Engine, run: LoadedRun, transition: Transition, request: CompletedRequest
) -> StartedWorkflowTask | None:
    """Start the workflow task for the worker, if the worker has the run cached."""
    task, sticky = run.state.workflow_task, run.inflight.sticky
    if (
        task is None
        or task.is_transient
        or sticky is None
        or sticky.task_queue != request.sticky_task_queue
        or not any(ref.scheduled_event_id == task.scheduled_event_id for ref in transition.refs)
    ):
        return None
    transition.refs[:] = [
        ref for ref in transition.refs if ref.scheduled_event_id != task.scheduled_event_id
    ]
    poller = Poller(request.identity, request.worker_instance_id, request.sticky_task_queue)
    return start_workflow_task(engine, run, poller)


async def respond_activity_task_failed(
    engine: Engine,
    namespace_id: str,
    request: worker_service_pb2.RespondActivityTaskFailedRequest,
) -> worker_service_pb2.RespondActivityTaskFailedResponse:
    """Record a failure; whether it is tried again is the server's to decide.

    Raises:
        TaskNotFoundError: The attempt is over.
    """
    run, activity, token = await _load(engine, namespace_id, request.task_token)
    record = machine.decide_failed(
        run.state, run.inflight, activity, request, _started_time(token), engine.clock.now()
    )
    transition = engine.commit(run, record)
    await transition.ticket.wait()
    return worker_service_pb2.RespondActivityTaskFailedResponse()


async def respond_activity_task_cancelled(
    engine: Engine,
    namespace_id: str,
    request: worker_service_pb2.RespondActivityTaskCancelledRequest,
) -> worker_service_pb2.RespondActivityTaskCancelledResponse:
    """Record that the activity obeyed a request to cancel.

    Raises:
        TaskNotFoundError: The attempt is over.
        InvalidArgumentError: Nobody asked it to cancel.
    """
    run, activity, token = await _load(engine, namespace_id, request.task_token)
    record = machine.decide_cancelled(
        run.state, run.inflight, activity, request, _started_time(token), engine.clock.now()
    )
    transition = engine.commit(run, record)
    await transition.ticket.wait()
    return worker_service_pb2.RespondActivityTaskCancelledResponse()


async def record_activity_task_heartbeat(
    engine: Engine,
    namespace_id: str,
    request: worker_service_pb2.RecordActivityTaskHeartbeatRequest,
) -> worker_service_pb2.RecordActivityTaskHeartbeatResponse:
    """Note a sign of life; details are on disk when it answers.

    An attempt whose start this host does not know, because it restarted since, is taken up again,
    so that it is not given to a second worker.

    Raises:
        TaskNotFoundError: The attempt is over.
    """
    run, activity, token = await _load(engine, namespace_id, request.task_token)
    now = engine.clock.now()
    started = run.inflight.activities.get(activity.scheduled_event_id)
    if started is None:
        started = start_activity(engine, run, activity, Poller(request.identity))
        started.started_time = _started_time(token)
    started.last_heartbeat_time = now
    arm_activity(engine, run, activity, started)
    details = request.details if request.HasField("details") else None
    record = machine.decide_heartbeat(run.state, run.inflight, activity, details, now)
    if record is not None:
        engine.commit(run, record)
    cancel_requested = activity.cancel_requested_event_id != 0
    await run.wait_committed()
    return worker_service_pb2.RecordActivityTaskHeartbeatResponse(cancel_requested=cancel_requested)


async def _load(
    engine: Engine, namespace_id: str, task_token: bytes
) -> tuple[LoadedRun, ActivityState, token_pb2.TaskToken]:
    run, token = await load_by_token(engine, namespace_id, task_token)
    activity = machine.require_attempt(run.state, token.scheduled_event_id, token.attempt)
    return run, activity, token


def _started_time(token: token_pb2.TaskToken) -> datetime:
    return from_timestamp(token.started_time)
