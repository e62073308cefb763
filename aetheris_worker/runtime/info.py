"""What a run knows about itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration

from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_client.converter import DataConverter
from aetheris_client.retry import RetryPolicy
from aetheris_client.search_attributes import from_search_attributes


@dataclass(frozen=True, slots=True)
class RunId:
    """Names a run."""

    namespace: str
    workflow_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class ParentInfo:
    """The run that started this one as a child."""

    namespace: str
    workflow_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class RootInfo:
    """The run at the top of all parents."""

    workflow_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """What a run was started with; the same whenever it is asked for.

    Attributes:
        first_execution_run_id: The first run of its chain of continuations.
        attempt: From 1; grows when the whole run is tried again.
        start_time: When the run was started, in UTC.
        execution_timeout: Limit on its chain of runs; None is none, as for the two after it.
        continued_run_id: The run that it continues; None for none.
        retry_policy: How it is tried again if it fails; None is not at all.
        memo, search_attributes: As it was started; `workflow.memo` has what has become of it since.
        root: The topmost ancestor; None for a run without a parent.
        pinned_build_id: The build that its workflow tasks were to go to; None for any. It may have
            been moved since; `build_id()` tells which one has the current task.
    """

    namespace: str
    workflow_id: str
    run_id: str
    first_execution_run_id: str
    workflow_type: str
    task_queue: str
    attempt: int
    start_time: datetime
    execution_timeout: timedelta | None
    run_timeout: timedelta | None
    task_timeout: timedelta | None
    continued_run_id: str | None
    cron_schedule: str | None
    parent: ParentInfo | None
    root: RootInfo | None
    retry_policy: RetryPolicy | None
    memo: Mapping[str, object]
    search_attributes: Mapping[str, object]
    pinned_build_id: str | None = None


def read_info(run: RunId, event: HistoryEvent, converter: DataConverter) -> WorkflowInfo:
    """From the run's first event; a value of the memo that cannot be decoded is a payload."""
    started = event.workflow_execution_started_event_attributes
    has_parent = started.HasField("parent_workflow_execution")
    parent = started.parent_workflow_execution
    root = started.root_workflow_execution
    read = converter.from_payload_or_itself
    return WorkflowInfo(
        namespace=run.namespace,
        workflow_id=run.workflow_id,
        run_id=run.run_id,
        first_execution_run_id=started.first_execution_run_id or run.run_id,
        workflow_type=started.workflow_type.name,
        task_queue=started.task_queue.name,
        attempt=max(1, started.attempt),
        start_time=event_datetime(event),
        execution_timeout=_timeout(started.workflow_execution_timeout),
        run_timeout=_timeout(started.workflow_run_timeout),
        task_timeout=_timeout(started.workflow_task_timeout),
        continued_run_id=started.continued_execution_run_id or None,
        cron_schedule=started.cron_schedule or None,
        parent=ParentInfo(started.parent_namespace, parent.workflow_id, parent.run_id)
        if has_parent
        else None,
        root=RootInfo(root.workflow_id, root.run_id) if root.run_id else None,
        retry_policy=RetryPolicy.from_proto(started.retry_policy)
        if started.HasField("retry_policy")
        else None,
        memo={name: read(payload) for name, payload in started.memo.fields.items()},
        search_attributes=from_search_attributes(started.search_attributes),
        pinned_build_id=started.pinned_build_id or None,
    )


def event_datetime(event: HistoryEvent) -> datetime:
    """When it happened, in UTC, in whole microseconds."""
    return to_datetime(event_seconds(event))


def event_seconds(event: HistoryEvent) -> float:
    """When it happened, in seconds since the epoch, in whole microseconds."""
    return event.event_time.seconds + event.event_time.nanos // 1_000 / 1_000_000


def to_datetime(seconds: float) -> datetime:
    """Seconds since the epoch as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def _timeout(value: Duration) -> timedelta | None:
    limit = value.ToTimedelta()
    return limit or None
