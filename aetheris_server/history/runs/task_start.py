"""Giving tasks to workers: what is marked in memory, and the message that a worker gets."""

from aetheris.api.v1 import worker_service_pb2
from aetheris.server.v1 import token_pb2
from aetheris_server.history.runs.events import PAGE_SIZE, read_events
from aetheris_server.history.runs.run import LoadedRun, WaitingQuery
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.inflight import TaskTaker
from aetheris_server.history.state.machines.activity import starting as activity_starting
from aetheris_server.history.state.machines.activity.values import (
    ActivityState,
    StartedActivity,
    started_deadline,
)
from aetheris_server.history.state.machines.update.admitting import speculative_task
from aetheris_server.history.state.machines.workflow_task import starting as task_starting
from aetheris_server.history.state.machines.workflow_task.values import StartedWorkflowTask
from aetheris_server.history.times import to_timestamp
from aetheris_server.ids import new_run_id
from aetheris_server.rpc.tokens import LISTING_TASK_HISTORY


def mark_workflow_task_started(runs: Runs, run: LoadedRun, taker: TaskTaker) -> StartedWorkflowTask:
    """Mark the run's pending workflow task, or its speculative one, as taken, with the queries and
    updates that wait.

    Never awaits; the caller has checked that it is startable.
    """
    now = runs.time_of(run)
    updates = tuple(update.request for update in run.updates.values()) if run.updates else ()
    started = task_starting.start_workflow_task(
        run.state,
        run.inflight,
        taker,
        new_run_id(),
        now,
        runs.clock.monotonic(),
        runs.limits_of(run),
        tuple(run.queries),
        updates,
        speculative_task(run.state, now) if run.state.workflow_task is None else None,
    )
    runs.wakeups.schedule_inflight(run, started.deadline_at)
    return started


async def to_workflow_task(
    runs: Runs, run: LoadedRun, started: StartedWorkflowTask
) -> worker_service_pb2.WorkflowTask:
    """The message for a workflow task that has been started; waits until what it shows is on disk.

    Raises:
        UnavailableError: The state it was started from is not on disk.
    """
    state, taker = run.state, started.taker
    first_own_id = (started.scheduled_event or started.started_event).event_id
    previous_id = state.previous_started_event_id
    from_id = previous_id + 1 if _is_cached_by(run, taker) else 1
    task = worker_service_pb2.WorkflowTask(
        task_token=_workflow_task_token(runs, run, started),
        workflow_type=state.started.workflow_type,
        previous_started_event_id=previous_id,
        started_event_id=started.started_event.event_id,
        attempt=started.attempt,
        started_time=started.started_event.event_time,
        start_to_close_timeout=state.started.workflow_task_timeout,
        queries={
            query_id: run.queries[query_id].query
            for query_id in started.query_ids
            if query_id in run.queries
        },
        updates=started.updates,
        is_speculative=started.is_speculative,
    )
    task.workflow_execution.workflow_id = run.key.workflow_id
    task.workflow_execution.run_id = run.key.run_id
    if state.workflow_task is not None:
        task.scheduled_time.CopyFrom(to_timestamp(state.workflow_task.scheduled_time))
    elif started.scheduled_event is not None:
        task.scheduled_time.CopyFrom(started.scheduled_event.event_time)
    await run.wait_committed()
    await _fill_history(runs, run, task, from_id, first_own_id)
    if not task.next_page_token:
        own_events = (started.scheduled_event, started.started_event)
        task.history.events.extend(event for event in own_events if event is not None)
    return task


async def to_query_task(
    runs: Runs, run: LoadedRun, waiting: WaitingQuery, taker: TaskTaker
) -> worker_service_pb2.WorkflowTask:
    """The message for a query that is asked by itself.

    Raises:
        UnavailableError: The state that it is asked of is not on disk.
    """
    state = run.state
    await run.wait_committed()
    from_id = state.previous_started_event_id + 1 if _is_cached_by(run, taker) else 1
    token = token_pb2.TaskToken(
        namespace_id=run.key.namespace_id,
        workflow_id=run.key.workflow_id,
        run_id=run.key.run_id,
        query_id=waiting.query_id,
    )
    task = worker_service_pb2.WorkflowTask(
        task_token=runs.tokens.seal_task(token),
        workflow_type=state.started.workflow_type,
        previous_started_event_id=state.previous_started_event_id,
        query=waiting.query,
    )
    task.workflow_execution.workflow_id = run.key.workflow_id
    task.workflow_execution.run_id = run.key.run_id
    # The code is asked as of its last decision: events that it has not decided on are left out.
    await _fill_history(runs, run, task, from_id, run.committed_event_id)
    return task


async def _fill_history(
    runs: Runs,
    run: LoadedRun,
    task: worker_service_pb2.WorkflowTask,
    from_id: int,
    until_id: int,
) -> None:
    events = await read_events(runs.db, run, from_id, until_id, PAGE_SIZE)
    task.history.events.extend(events)
    next_id = from_id + len(events)
    if next_id < until_id:
        token = token_pb2.PageToken(
            listing=LISTING_TASK_HISTORY, run_id=run.key.run_id, next_event_id=next_id
        )
        task.next_page_token = runs.tokens.seal_page(token, run.key.namespace_id.encode())


def _is_cached_by(run: LoadedRun, taker: TaskTaker) -> bool:
    sticky = run.inflight.sticky
    return sticky is not None and sticky.task_queue == taker.sticky_task_queue


def _workflow_task_token(runs: Runs, run: LoadedRun, started: StartedWorkflowTask) -> bytes:
    return runs.tokens.seal_task(
        token_pb2.TaskToken(
            namespace_id=run.key.namespace_id,
            workflow_id=run.key.workflow_id,
            run_id=run.key.run_id,
            scheduled_event_id=started.scheduled_event_id,
            attempt=started.attempt,
            start_id=started.start_id,
        )
    )


def mark_activity_started(
    runs: Runs, run: LoadedRun, activity: ActivityState, taker: TaskTaker
) -> StartedActivity:
    """Mark an activity's current attempt as taken.

    Never awaits; the caller has checked that it is startable. An at-most-once attempt is also noted
    in the log, so what follows must wait for the run to be committed.

    Raises:
        UnavailableError: The disk is too far behind; nothing was marked.
    """
    now = runs.time_of(run)
    if activity.is_at_most_once:
        runs.commit(
            run,
            activity_starting.decide_attempt_started(run.state, run.inflight, activity, taker, now),
        )
    at = runs.clock.monotonic()
    started = activity_starting.start_activity(activity, run.inflight, taker, now, at)
    arm_activity(runs, run, started)
    return started


def arm_activity(runs: Runs, run: LoadedRun, started: StartedActivity) -> None:
    """See to it that a started attempt's own deadlines are looked at."""
    deadline = started_deadline(started)
    runs.wakeups.schedule_inflight(run, deadline[0] if deadline is not None else None)


def to_activity_task(
    runs: Runs, run: LoadedRun, activity: ActivityState, started: StartedActivity
) -> worker_service_pb2.ActivityTask:
    """The message for an attempt that has been started; may leave once the run is committed."""
    scheduled = activity.scheduled
    task = worker_service_pb2.ActivityTask(
        task_token=_activity_task_token(runs, run, started),
        workflow_type=run.state.started.workflow_type,
        activity_id=scheduled.activity_id,
        activity_type=scheduled.activity_type,
        header=scheduled.header if scheduled.HasField("header") else None,
        input=scheduled.input if scheduled.HasField("input") else None,
        heartbeat_details=activity.heartbeat_details,
        scheduled_time=to_timestamp(activity.scheduled_time),
        current_attempt_scheduled_time=to_timestamp(activity.attempt_scheduled_time),
        started_time=to_timestamp(started.started_time),
        attempt=activity.counted_attempt,
        attempt_number=activity.attempt,
        schedule_to_close_timeout=scheduled.schedule_to_close_timeout,
        start_to_close_timeout=scheduled.start_to_close_timeout,
        heartbeat_timeout=scheduled.heartbeat_timeout,
        retry_policy=scheduled.retry_policy,
        scheduled_event_id=activity.scheduled_event_id,
        priority=scheduled.priority if scheduled.HasField("priority") else None,
        delivery=scheduled.delivery,
    )
    task.workflow_execution.workflow_id = run.key.workflow_id
    task.workflow_execution.run_id = run.key.run_id
    return task


def _activity_task_token(runs: Runs, run: LoadedRun, started: StartedActivity) -> bytes:
    return runs.tokens.seal_task(
        token_pb2.TaskToken(
            namespace_id=run.key.namespace_id,
            workflow_id=run.key.workflow_id,
            run_id=run.key.run_id,
            scheduled_event_id=started.scheduled_event_id,
            attempt=started.attempt,
            started_time=to_timestamp(started.started_time),
        )
    )
