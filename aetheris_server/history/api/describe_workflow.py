"""DescribeWorkflow: what is known of a run now."""

from aetheris.api.v1 import workflow_pb2, workflow_service_pb2
from aetheris_server.history.engine import Engine
from aetheris_server.history.run import LoadedRun
from aetheris_server.history.state.activity import expiration_time
from aetheris_server.history.state.run import ActivityState
from aetheris_server.history.state.times import from_duration, to_timestamp

Response = workflow_service_pb2.DescribeWorkflowResponse


async def describe_workflow(
    engine: Engine, namespace_id: str, request: workflow_service_pb2.DescribeWorkflowRequest
) -> Response:
    """Show a run as it is on disk, and which workers have its tasks.

    Raises:
        WorkflowNotFoundError: There is no such run.
    """
    execution = request.workflow_execution
    run = await engine.load(namespace_id, execution.workflow_id, execution.run_id)
    response = Response(
        workflow_execution_info=_to_info(run),
        execution_config=_to_config(run),
        pending_activities=[
            _to_pending_activity(run, activity) for activity in run.state.activities.values()
        ],
        pending_timers=[
            workflow_pb2.PendingTimerInfo(
                timer_id=timer.timer_id,
                fire_time=to_timestamp(timer.fire_time),
                started_event_id=timer.started_event_id,
            )
            for timer in run.state.timers.values()
        ],
        pending_workflow_task=_to_pending_task(run),
        cancel_requested=run.state.cancel_requested,
        unhandled_signal_count=run.state.unhandled_signal_count,
    )
    await run.wait_committed()
    return response


def _to_info(run: LoadedRun) -> workflow_pb2.WorkflowExecutionInfo:
    state, started = run.state, run.state.started
    backoff = from_duration(started.first_workflow_task_backoff)
    info = workflow_pb2.WorkflowExecutionInfo(
        workflow_type=started.workflow_type,
        task_queue=started.task_queue.name,
        status=state.status,
        start_time=to_timestamp(state.start_time),
        execution_time=to_timestamp(state.start_time + backoff),
        close_time=state.close_event.event_time if state.close_event is not None else None,
        history_length=state.next_event_id - 1,
        memo=started.memo if started.HasField("memo") else None,
        search_attributes=(
            started.search_attributes if started.HasField("search_attributes") else None
        ),
        history_bytes=state.history_bytes,
        priority=started.priority if started.HasField("priority") else None,
        first_execution_run_id=started.first_execution_run_id,
    )
    info.execution.workflow_id = run.key.workflow_id
    info.execution.run_id = run.key.run_id
    return info


def _to_config(run: LoadedRun) -> workflow_pb2.WorkflowExecutionConfig:
    started = run.state.started
    return workflow_pb2.WorkflowExecutionConfig(
        task_queue=started.task_queue,
        workflow_execution_timeout=(
            started.workflow_execution_timeout
            if started.HasField("workflow_execution_timeout")
            else None
        ),
        workflow_run_timeout=(
            started.workflow_run_timeout if started.HasField("workflow_run_timeout") else None
        ),
        workflow_task_timeout=started.workflow_task_timeout,
    )


def _to_pending_task(run: LoadedRun) -> workflow_pb2.PendingWorkflowTaskInfo | None:
    task, started = run.state.workflow_task, run.inflight.workflow_task
    if task is None:
        return None
    if started is None:
        state = workflow_pb2.PENDING_WORKFLOW_TASK_STATE_SCHEDULED
    else:
        state = workflow_pb2.PENDING_WORKFLOW_TASK_STATE_STARTED
    return workflow_pb2.PendingWorkflowTaskInfo(
        state=state,
        scheduled_time=to_timestamp(task.scheduled_time),
        started_time=to_timestamp(started.started_time) if started is not None else None,
        attempt=task.attempt,
        last_failure=task.last_failure,
    )


def _to_pending_activity(
    run: LoadedRun, activity: ActivityState
) -> workflow_pb2.PendingActivityInfo:
    scheduled = activity.scheduled
    started = run.inflight.activities.get(activity.scheduled_event_id)
    expiration = expiration_time(activity)
    backing_off = started is None and activity.attempt > 1
    info = workflow_pb2.PendingActivityInfo(
        activity_id=scheduled.activity_id,
        activity_type=scheduled.activity_type,
        state=workflow_pb2.PENDING_ACTIVITY_STATE_SCHEDULED,
        heartbeat_details=activity.heartbeat_details,
        attempt=activity.attempt,
        maximum_attempts=scheduled.retry_policy.maximum_attempts,
        scheduled_time=to_timestamp(activity.scheduled_time),
        expiration_time=to_timestamp(expiration) if expiration is not None else None,
        last_failure=activity.last_failure,
        last_worker_identity=activity.attempts[-1].identity if activity.attempts else "",
        next_attempt_time=to_timestamp(activity.attempt_scheduled_time) if backing_off else None,
        attempts=activity.attempts,
        task_queue=scheduled.task_queue.name,
        capabilities=scheduled.capabilities,
        scheduled_event_id=activity.scheduled_event_id,
    )
    if started is not None:
        info.state = (
            workflow_pb2.PENDING_ACTIVITY_STATE_CANCEL_REQUESTED
            if activity.cancel_requested_event_id
            else workflow_pb2.PENDING_ACTIVITY_STATE_STARTED
        )
        info.last_worker_identity = started.poller.identity
        info.last_started_time.CopyFrom(to_timestamp(started.started_time))
        if started.last_heartbeat_time > started.started_time:
            info.last_heartbeat_time.CopyFrom(to_timestamp(started.last_heartbeat_time))
    return info
