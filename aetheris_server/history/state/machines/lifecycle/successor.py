"""The run that continues another: whether there is one, its id, and its first record.

    the run closes by     the next run
    CONTINUED_AS_NEW      what its code asked for, attempt 1
    FAILED, TIMED_OUT     if its retry policy has another attempt: the same once more, attempt + 1
    any other event       none

All of it follows from the state of the run that closes and from the event that closes it. So
whoever decides that event (a worker's answer, a deadline, a request) need not know what it begins:
the engine asks, and writes both in one commit.
"""

import uuid
from datetime import datetime, timedelta

from aetheris.api.v1 import failure_pb2, history_pb2, workflow_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.failures import trim
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.properties import memo_of, search_attributes_of
from aetheris_server.history.state.retry import RetryDecision, decide_retry
from aetheris_server.history.state.run import RunKey, RunState
from aetheris_server.history.state.run_options import pinned_build_id
from aetheris_server.history.times import (
    ZERO,
    from_duration,
    from_timestamp,
    to_duration,
)

Started = history_pb2.WorkflowExecutionStartedEventAttributes

# Part of the stored format, as is what is hashed in it.
_NAMESPACE = uuid.UUID("6f1f2b0c-6f3f-5d2e-9a53-5f3a6a0c9e11")
# Runs of a workflow id are told apart by their start times.
_TICK = timedelta(microseconds=1)


def next_run_id(run_id: str) -> str:
    """The id of the run that continues one; the same however often it is asked for."""
    return str(uuid.uuid5(_NAMESPACE, f"{run_id}/next"))


def find_next_run_id(event: history_pb2.HistoryEvent) -> str:
    """The run that goes on, by the event that closes one; empty for none."""
    match event.WhichOneof("attributes"):
        case "workflow_execution_continued_as_new_event_attributes":
            attributes = event.workflow_execution_continued_as_new_event_attributes
            return attributes.new_execution_run_id
        case "workflow_execution_failed_event_attributes":
            return event.workflow_execution_failed_event_attributes.new_execution_run_id
        case "workflow_execution_timed_out_event_attributes":
            return event.workflow_execution_timed_out_event_attributes.new_execution_run_id
        case _:
            return ""


def decide_run_retry(state: RunState, failure: failure_pb2.Failure, now: datetime) -> RetryDecision:
    """Whether, and when, a run that fails now is tried again as a new one."""
    started = state.started
    if not started.HasField("retry_policy"):
        return RetryDecision(None, failure_pb2.RETRY_STATE_RETRY_POLICY_NOT_SET)
    return decide_retry(
        started.retry_policy,
        failure,
        started.attempt,
        expiration_time_of(state),
        state.cancel_requested,
        now,
    )


def expiration_time_of(state: RunState) -> datetime | None:
    """When the run's chain must be over; None for never."""
    started = state.started
    if not started.HasField("workflow_execution_expiration_time"):
        return None
    return from_timestamp(started.workflow_execution_expiration_time)


def timed_out_failure() -> failure_pb2.Failure:
    """What a run fails with whose deadline has passed."""
    return failure_pb2.Failure(
        message="workflow timed out",
        timeout_failure_info=failure_pb2.TimeoutFailureInfo(
            timeout_type=failure_pb2.TIMEOUT_TYPE_START_TO_CLOSE
        ),
    )


def decide_continued(
    state: RunState, event: history_pb2.HistoryEvent
) -> tuple[RunKey, log_pb2.LogRecord]:
    """The next run and its first record.

    Args:
        state: Of the run that has just closed.
        event: That closed it, and names the next run.
    """
    key = RunKey(state.key.namespace_id, state.key.workflow_id, find_next_run_id(event))
    if event.HasField("workflow_execution_continued_as_new_event_attributes"):
        attributes = _continue(state, event.workflow_execution_continued_as_new_event_attributes)
    elif event.HasField("workflow_execution_failed_event_attributes"):
        failure = event.workflow_execution_failed_event_attributes.failure
        attributes = _retry(state, failure, from_timestamp(event.event_time))
    else:
        attributes = _retry(state, timed_out_failure(), from_timestamp(event.event_time))
    attributes.request_id = key.run_id
    attributes.original_execution_run_id = key.run_id
    attributes.continued_execution_run_id = state.key.run_id
    now = max(from_timestamp(event.event_time), state.start_time + _TICK)
    draft = Draft(None, Inflight(), now)
    draft.add(history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED, attributes)
    if not from_duration(attributes.first_workflow_task_backoff):
        draft.schedule_workflow_task()
    return key, draft.record


def _carry_over(state: RunState) -> Started:
    """What all runs of a chain have in common, and the notes as they are now."""
    attributes = Started()
    attributes.CopyFrom(state.started)
    for name in ("continued_failure", "first_workflow_task_backoff", "memo", "search_attributes"):
        attributes.ClearField(name)
    memo, search_attributes = memo_of(state), search_attributes_of(state)
    if memo.fields:
        attributes.memo.CopyFrom(memo)
    if search_attributes.indexed_fields:
        attributes.search_attributes.CopyFrom(search_attributes)
    attributes.pinned_build_id = pinned_build_id(state)
    return attributes


def _retry(state: RunState, failure: failure_pb2.Failure, now: datetime) -> Started:
    """The same once more. A large failure is cut: with all else that the event carries over it
    would not fit in a message to a worker; the run that failed has all of it.
    """
    attributes = _carry_over(state)
    attributes.attempt += 1
    attributes.initiator = workflow_pb2.CONTINUE_AS_NEW_INITIATOR_RETRY
    attributes.continued_failure.CopyFrom(trim(failure))
    next_time = decide_run_retry(state, failure, now).next_attempt_time
    if next_time is not None and next_time > now:
        attributes.first_workflow_task_backoff.CopyFrom(to_duration(next_time - now))
    return attributes


def _continue(
    state: RunState, given: history_pb2.WorkflowExecutionContinuedAsNewEventAttributes
) -> Started:
    """What the event leaves out is as it was; the input is the event's in any case."""
    attributes = _carry_over(state)
    attributes.attempt = 1
    attributes.initiator = given.initiator
    attributes.ClearField("input")
    for name in (
        "workflow_type",
        "task_queue",
        "input",
        "workflow_run_timeout",
        "workflow_task_timeout",
        "retry_policy",
        "header",
        "memo",
        "search_attributes",
        "last_completion_result",
    ):
        if given.HasField(name):
            getattr(attributes, name).CopyFrom(getattr(given, name))
    if given.HasField("failure"):
        attributes.continued_failure.CopyFrom(trim(given.failure))
    if from_duration(given.backoff_start_interval) > ZERO:
        attributes.first_workflow_task_backoff.CopyFrom(given.backoff_start_interval)
    return attributes
