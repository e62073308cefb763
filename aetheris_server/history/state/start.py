"""How a run begins."""

from datetime import datetime

from google.protobuf import duration_pb2

from aetheris.api.v1 import history_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.draft import DEFAULT_TASK_TIMEOUT, Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.run import RunKey
from aetheris_server.history.state.times import from_duration, to_timestamp


def decide_started(
    key: RunKey, request: workflow_service_pb2.StartWorkflowRequest, now: datetime
) -> log_pb2.LogRecord:
    """The first record of a run: it started, and unless it is to wait its code is called."""
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
        attempt=1,
        priority=request.priority if request.HasField("priority") else None,
        first_execution_run_id=key.run_id,
        original_execution_run_id=key.run_id,
        first_workflow_task_backoff=_set_or_none(request.start_delay),
    )
    execution_timeout = from_duration(request.workflow_execution_timeout)
    if execution_timeout:
        expiration_time = now + from_duration(request.start_delay) + execution_timeout
        attributes.workflow_execution_expiration_time.CopyFrom(to_timestamp(expiration_time))
    draft = Draft(None, Inflight(), now)
    draft.add(history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED, attributes)
    if not from_duration(request.start_delay):
        draft.schedule_workflow_task()
    return draft.record


def _set_or_none(duration: duration_pb2.Duration) -> duration_pb2.Duration | None:
    return duration if duration.seconds or duration.nanos else None
