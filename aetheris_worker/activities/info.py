"""What an activity can know about its own attempt."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from aetheris.api.v1 import workflow_pb2
from aetheris.api.v1.worker_service_pb2 import ActivityTask
from aetheris_client.converter import DataConverter


@dataclass(frozen=True, slots=True)
class ActivityInfo:
    """One attempt of an activity.

    Attributes:
        attempt: From 1.
        heartbeat_details: Of the last heartbeat of an earlier attempt, decoded without type hints.
        scheduled_time: When the workflow asked for it; all times in UTC.
        attempt_scheduled_time: When this attempt was due.
        started_time: When this attempt was given to the worker.
        is_local: It runs beside its workflow task: the server knows nothing of it yet, and its
            heartbeats go nowhere.
        is_at_most_once: No other attempt gets this one's work.
    """

    task_token: bytes
    namespace: str
    workflow_id: str
    run_id: str
    workflow_type: str
    activity_id: str
    activity_type: str
    task_queue: str
    attempt: int
    heartbeat_details: tuple[object, ...]
    scheduled_time: datetime
    attempt_scheduled_time: datetime
    started_time: datetime
    schedule_to_close_timeout: timedelta | None
    start_to_close_timeout: timedelta | None
    heartbeat_timeout: timedelta | None
    is_at_most_once: bool
    is_local: bool


def read_info(
    task: ActivityTask,
    namespace: str,
    task_queue: str,
    converter: DataConverter,
    *,
    is_local: bool,
) -> ActivityInfo:
    """From the task."""
    return ActivityInfo(
        task_token=task.task_token,
        namespace=task.namespace or namespace,
        workflow_id=task.workflow_execution.workflow_id,
        run_id=task.workflow_execution.run_id,
        workflow_type=task.workflow_type.name,
        activity_id=task.activity_id,
        activity_type=task.activity_type.name,
        task_queue=task_queue,
        attempt=max(1, task.attempt),
        heartbeat_details=tuple(converter.from_payloads(task.heartbeat_details)),
        scheduled_time=_time(task.scheduled_time),
        attempt_scheduled_time=_time(task.current_attempt_scheduled_time),
        started_time=_time(task.started_time),
        schedule_to_close_timeout=_timeout(task.schedule_to_close_timeout),
        start_to_close_timeout=_timeout(task.start_to_close_timeout),
        heartbeat_timeout=_timeout(task.heartbeat_timeout),
        is_at_most_once=task.delivery == workflow_pb2.ACTIVITY_DELIVERY_AT_MOST_ONCE,
        is_local=is_local,
    )


def seconds_of(duration: Duration) -> float:
    """A timeout; 0 where it is unset. Each attempt asks for some, and `ToTimedelta` takes long."""
    return duration.seconds + duration.nanos * 1e-9


def _timeout(duration: Duration) -> timedelta | None:
    return duration.ToTimedelta() or None


def _time(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(UTC)
