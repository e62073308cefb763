"""PauseActivity, UnpauseActivity, ResetActivity, UpdateActivityOptions: an open activity is changed
from outside.
"""

import random
from collections.abc import Callable
from datetime import timedelta

from google.protobuf import duration_pb2

from aetheris.api.v1 import common_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import RequestError
from aetheris_server.history.runs.notices import Reason
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.machines.activity import changes
from aetheris_server.history.state.machines.activity.options import to_options
from aetheris_server.history.state.machines.activity.values import ActivityState
from aetheris_server.history.times import from_duration

_Decide = Callable[[LoadedRun, ActivityState], log_pb2.LogRecord | None]


async def pause_activity(
    runs: Runs, namespace_id: str, request: workflow_service_pb2.PauseActivityRequest
) -> workflow_service_pb2.PauseActivityResponse:
    """Hold an activity; answer when that is on disk, and tell a worker that has it.

    Raises:
        WorkflowNotFoundError: There is no such run.
        WorkflowClosedError: The run has closed.
        ActivityNotFoundError: It has no such activity.
    """

    def decide(run: LoadedRun, activity: ActivityState) -> log_pb2.LogRecord | None:
        now = runs.time_of(run)
        return changes.decide_activity_paused(run.state, run.inflight, activity, request, now)

    await _change(
        runs,
        namespace_id,
        request.workflow_execution,
        request.activity_id,
        decide,
        worker_service_pb2.ACTIVITY_CANCELLATION_REASON_PAUSED,
    )
    return workflow_service_pb2.PauseActivityResponse()


async def unpause_activity(
    runs: Runs, namespace_id: str, request: workflow_service_pb2.UnpauseActivityRequest
) -> workflow_service_pb2.UnpauseActivityResponse:
    """Have an activity go on; answer when that is on disk.

    Raises:
        WorkflowNotFoundError: There is no such run.
        WorkflowClosedError: The run has closed.
        ActivityNotFoundError: It has no such activity.
    """
    delay = _draw(request.jitter)

    def decide(run: LoadedRun, activity: ActivityState) -> log_pb2.LogRecord | None:
        return changes.decide_activity_unpaused(
            run.state, run.inflight, activity, request, delay, runs.time_of(run)
        )

    execution = request.workflow_execution
    await _change(runs, namespace_id, execution, request.activity_id, decide)
    return workflow_service_pb2.UnpauseActivityResponse()


async def reset_activity(
    runs: Runs, namespace_id: str, request: workflow_service_pb2.ResetActivityRequest
) -> workflow_service_pb2.ResetActivityResponse:
    """Have an activity begin anew; answer when that is on disk, and tell a worker that has it.

    Raises:
        WorkflowNotFoundError: There is no such run.
        WorkflowClosedError: The run has closed.
        ActivityNotFoundError: It has no such activity.
    """
    delay = _draw(request.jitter)

    def decide(run: LoadedRun, activity: ActivityState) -> log_pb2.LogRecord | None:
        return changes.decide_activity_reset(
            run.state, run.inflight, activity, request, delay, runs.time_of(run)
        )

    await _change(
        runs,
        namespace_id,
        request.workflow_execution,
        request.activity_id,
        decide,
        worker_service_pb2.ACTIVITY_CANCELLATION_REASON_RESET,
    )
    return workflow_service_pb2.ResetActivityResponse()


async def update_activity_options(
    runs: Runs, namespace_id: str, request: workflow_service_pb2.UpdateActivityOptionsRequest
) -> workflow_service_pb2.UpdateActivityOptionsResponse:
    """Change an activity's options; answer with all of them when that is on disk.

    Raises:
        WorkflowNotFoundError: There is no such run.
        WorkflowClosedError: The run has closed.
        ActivityNotFoundError: It has no such activity.
        InvalidArgumentError: An activity could not be scheduled so.
    """
    response = workflow_service_pb2.UpdateActivityOptionsResponse()

    def decide(run: LoadedRun, activity: ActivityState) -> log_pb2.LogRecord | None:
        return changes.decide_options_updated(
            run.state, run.inflight, activity, request, runs.time_of(run)
        )

    execution = request.workflow_execution
    activity = await _change(runs, namespace_id, execution, request.activity_id, decide)
    response.activity_options.CopyFrom(to_options(activity))
    return response


async def _change(
    runs: Runs,
    namespace_id: str,
    execution: common_pb2.WorkflowExecution,
    activity_id: str,
    decide: _Decide,
    reason: Reason = worker_service_pb2.ACTIVITY_CANCELLATION_REASON_UNSPECIFIED,
) -> ActivityState:
    """Decide, and write what was decided; with a reason, tell the worker that has the activity."""
    run = await runs.load(namespace_id, execution.workflow_id, execution.run_id)
    try:
        activity = changes.require_activity(run.state, activity_id)
        record = decide(run, activity)
    except RequestError:
        # What the refusal goes by may not be on disk yet.
        await run.wait_committed()
        raise
    notices = runs.notices.of(run, [activity.scheduled_event_id], reason) if reason else []
    if record is not None:
        runs.commit(run, record)
    await run.wait_committed()
    if record is not None:
        runs.notices.send(notices)
    return activity


def _draw(jitter: duration_pb2.Duration) -> timedelta:
    return from_duration(jitter) * random.random()
