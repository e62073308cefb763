"""How a run begins, and what it is from then on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

from google.protobuf import duration_pb2

from aetheris.api.v1 import common_pb2, history_pb2, workflow_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.draft import DEFAULT_TASK_TIMEOUT, Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.machines.lifecycle.successor import find_next_run_id
from aetheris_server.history.state.retry import fill_policy
from aetheris_server.history.state.run import RunKey, RunState
from aetheris_server.history.times import from_duration, from_timestamp, to_timestamp


@dataclass(frozen=True, slots=True)
class Parent:
    """Who starts a child.

    Attributes:
        namespace: The name of its namespace.
        initiated_event_id: Its event that initiated the child.
        root: Its topmost ancestor, or itself.
    """

    namespace_id: str
    namespace: str
    execution: common_pb2.WorkflowExecution
    initiated_event_id: int
    root: common_pb2.WorkflowExecution


def decide_started(
    key: RunKey,
    request: workflow_service_pb2.StartWorkflowRequest,
    now: datetime,
    append_first: Callable[[Draft], None] | None = None,
    parent: Parent | None = None,
) -> log_pb2.LogRecord:
    """The first record of a run: it started, and unless it is to wait its code is called.

    Args:
        key: With a new run id.
        request: What it is started with.
        now: Its start.
        append_first: Appends what its code is to find when it is first called.
        parent: Who starts it as a child.
    """
    attributes = history_pb2.WorkflowExecutionStartedEventAttributes(
        workflow_id=key.workflow_id,
        workflow_type=request.workflow_type,
        task_queue=request.task_queue,
        input=request.input if request.HasField("input") else None,
        workflow_run_timeout=_set_or_none(request.workflow_run_timeout),
        workflow_execution_timeout=_set_or_none(request.workflow_execution_timeout),
        workflow_task_timeout=(
            _set_or_none(request.workflow_task_timeout)
            or duration_pb2.Duration(seconds=int(DEFAULT_TASK_TIMEOUT.total_seconds()))
        ),
        identity=request.identity,
        request_id=request.request_id,
        header=request.header if request.HasField("header") else None,
        memo=request.memo if request.HasField("memo") else None,
        search_attributes=(
            request.search_attributes if request.HasField("search_attributes") else None
        ),
        retry_policy=(
            fill_policy(request.retry_policy) if request.HasField("retry_policy") else None
        ),
        attempt=1,
        priority=request.priority if request.HasField("priority") else None,
        first_execution_run_id=key.run_id,
        original_execution_run_id=key.run_id,
        first_workflow_task_backoff=_set_or_none(request.start_delay),
        pinned_build_id=request.pinned_build_id,
    )
    if parent is not None:
        attributes.parent_namespace_id = parent.namespace_id
        attributes.parent_namespace = parent.namespace
        attributes.parent_workflow_execution.CopyFrom(parent.execution)
        attributes.parent_initiated_event_id = parent.initiated_event_id
        attributes.root_workflow_execution.CopyFrom(parent.root)
    execution_timeout = from_duration(request.workflow_execution_timeout)
    if execution_timeout:
        expiration_time = now + from_duration(request.start_delay) + execution_timeout
        attributes.workflow_execution_expiration_time.CopyFrom(to_timestamp(expiration_time))
    draft = Draft(None, Inflight(), now)
    draft.add(history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED, attributes)
    if append_first is not None:
        append_first(draft)
    if not from_duration(request.start_delay):
        draft.schedule_workflow_task()
    return draft.record


def _set_or_none(duration: duration_pb2.Duration) -> duration_pb2.Duration | None:
    return duration if duration.seconds or duration.nanos else None


def new_state(key: RunKey, record: log_pb2.LogRecord) -> RunState:
    """The state before a run's first record, which begins with its started event.

    The run starts when that is written. The event may be older: of a run that was taken from
    another one it is the other's.
    """
    started = record.events[0].workflow_execution_started_event_attributes
    start_time = from_timestamp(record.time)
    first_task_time = start_time + from_duration(started.first_workflow_task_backoff)
    run_timeout = from_duration(started.workflow_run_timeout)
    run_deadline = first_task_time + run_timeout if run_timeout else None
    if started.HasField("workflow_execution_expiration_time"):
        expiration = from_timestamp(started.workflow_execution_expiration_time)
        run_deadline = min(run_deadline, expiration) if run_deadline else expiration
    return RunState(
        key=key,
        started=started,
        start_time=start_time,
        first_task_time=first_task_time,
        run_deadline_time=run_deadline,
    )


def deadlines(state: RunState) -> Iterator[datetime]:
    """When the run must be over, and when its first workflow task is due; each only if it is."""
    if state.run_deadline_time is not None:
        yield state.run_deadline_time
    if state.first_task_time is not None:
        yield state.first_task_time


def describe(
    state: RunState, _inflight: Inflight, response: workflow_service_pb2.DescribeWorkflowResponse
) -> None:
    """What the run is, and what it was started with."""
    response.workflow_execution_info.CopyFrom(_to_info(state))
    response.execution_config.CopyFrom(_to_config(state.started))


def _to_info(state: RunState) -> workflow_pb2.WorkflowExecutionInfo:
    started = state.started
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
        attempt=started.attempt,
        continued_execution_run_id=started.continued_execution_run_id,
        new_execution_run_id=(
            find_next_run_id(state.close_event) if state.close_event is not None else ""
        ),
    )
    if started.HasField("parent_workflow_execution"):
        info.parent_execution.CopyFrom(started.parent_workflow_execution)
        info.root_execution.CopyFrom(started.root_workflow_execution)
    info.execution.workflow_id = state.key.workflow_id
    info.execution.run_id = state.key.run_id
    return info


def _to_config(
    started: history_pb2.WorkflowExecutionStartedEventAttributes,
) -> workflow_pb2.WorkflowExecutionConfig:
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
        retry_policy=started.retry_policy if started.HasField("retry_policy") else None,
    )
