"""What is known of runs, as plain values: lists give WorkflowInfo, describe gives
WorkflowDescription.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from aetheris.api.v1 import workflow_pb2
from aetheris.api.v1.common_pb2 import Payloads, WorkflowExecution
from aetheris.api.v1.workflow_service_pb2 import (
    DescribeWorkflowResponse,
    ListWorkflowsFilter,
    ResetInfo,
)
from aetheris_client import enums
from aetheris_client.activity_options import ActivityOptions
from aetheris_client.converter import DataConverter
from aetheris_client.enums import (
    ActivityChangeType,
    PendingActivityState,
    PendingChildState,
    PendingUpdateStage,
    PendingWorkflowTaskState,
    WaitKind,
    WorkflowStatus,
)
from aetheris_client.errors import FailureError
from aetheris_client.failure import from_failure
from aetheris_client.options import check_options
from aetheris_client.retry import RetryPolicy
from aetheris_client.search_attributes import from_search_attributes
from aetheris_client.times import read_duration, read_timestamp, to_timestamp

STATUS_PREFIX = "WORKFLOW_EXECUTION_STATUS_"


@dataclass(frozen=True, slots=True)
class ListFilter:
    """Conditions that all must hold; None, and no statuses, hold for every run."""

    workflow_id: str | None = None
    workflow_type: str | None = None
    statuses: Sequence[WorkflowStatus] = ()
    earliest_start_time: datetime | None = None
    latest_start_time: datetime | None = None

    def __post_init__(self) -> None:
        check_options(
            "ListFilter",
            workflow_id=self.workflow_id,
            workflow_type=self.workflow_type,
            statuses=self.statuses,
            earliest_start_time=self.earliest_start_time,
            latest_start_time=self.latest_start_time,
        )

    def to_proto(self) -> ListWorkflowsFilter:
        return ListWorkflowsFilter(
            workflow_id=self.workflow_id or "",
            workflow_type=self.workflow_type or "",
            statuses=[
                enums.to_proto(status, workflow_pb2.WorkflowExecutionStatus, STATUS_PREFIX)
                for status in self.statuses
            ],
            earliest_start_time=to_timestamp(self.earliest_start_time),
            latest_start_time=to_timestamp(self.latest_start_time),
        )


@dataclass(frozen=True, slots=True)
class RunReference:
    """Names one run."""

    workflow_id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class WorkflowInfo:
    """A run, as lists show it.

    Attributes:
        execution_time: When its code may first run.
        close_time: None while it is open.
        history_length: Events so far.
        first_execution_run_id: The first run of its chain of continuations.
        attempt: Of its chain, from 1; 0 in lists, which do not tell it, nor the two after it.
        continued_run_id: The run that it continues; None for none.
        new_run_id: The run that continues it; None for none.
    """

    workflow_id: str
    run_id: str
    workflow_type: str
    task_queue: str
    status: WorkflowStatus
    start_time: datetime | None
    execution_time: datetime | None
    close_time: datetime | None
    history_length: int
    history_bytes: int
    memo: Mapping[str, object]
    search_attributes: Mapping[str, object]
    parent: RunReference | None
    root: RunReference | None
    first_execution_run_id: str
    attempt: int
    continued_run_id: str | None
    new_run_id: str | None

    @classmethod
    def from_proto(
        cls, info: workflow_pb2.WorkflowExecutionInfo, converter: DataConverter
    ) -> "WorkflowInfo":
        return cls(
            workflow_id=info.execution.workflow_id,
            run_id=info.execution.run_id,
            workflow_type=info.workflow_type.name,
            task_queue=info.task_queue,
            status=status_from_proto(info.status),
            start_time=read_timestamp(info, "start_time"),
            execution_time=read_timestamp(info, "execution_time"),
            close_time=read_timestamp(info, "close_time"),
            history_length=info.history_length,
            history_bytes=info.history_bytes,
            memo={
                name: converter.from_payload_or_itself(payload)
                for name, payload in info.memo.fields.items()
            },
            search_attributes=from_search_attributes(info.search_attributes),
            parent=_reference(info.parent_execution),
            root=_reference(info.root_execution),
            first_execution_run_id=info.first_execution_run_id,
            attempt=info.attempt,
            continued_run_id=info.continued_execution_run_id or None,
            new_run_id=info.new_execution_run_id or None,
        )


@dataclass(frozen=True, slots=True)
class ActivityAttempt:
    """One failed attempt of an activity. `start_time` is None if no worker took it."""

    attempt: int
    start_time: datetime | None
    end_time: datetime | None
    identity: str
    failure: FailureError | None
    next_attempt_time: datetime | None


@dataclass(frozen=True, slots=True)
class Pause:
    """That a run, or an activity, is paused: since when, by whom and why."""

    pause_time: datetime | None
    identity: str
    reason: str


@dataclass(frozen=True, slots=True)
class ResetLinks:
    """Where a run was taken from, and what it was reset to.

    Attributes:
        base_workflow_id: Of the run that it was taken from; None, as the two after it, where it was
            not.
        base_event_id: Up to this event the two have the same.
        reset_run_id: The last run that it was reset to; None for none.
        reset_identity: Who asked for that.
    """

    base_workflow_id: str | None
    base_run_id: str | None
    base_event_id: int | None
    reset_run_id: str | None
    reset_time: datetime | None
    reset_identity: str
    reset_reason: str


@dataclass(frozen=True, slots=True)
class ActivityChange:
    """One thing that was done to an activity from outside."""

    type: ActivityChangeType
    time: datetime | None
    identity: str
    reason: str


@dataclass(frozen=True, slots=True)
class PendingActivity:
    """An activity that has not closed.

    Attributes:
        attempt: The current one, from 1.
        maximum_attempts: The policy's limit; 0 is none.
        expiration_time: When all attempts must be over; None is never.
        next_attempt_time: While it backs off, when it is tried again.
        attempts: Every failed one so far, oldest first.
        capabilities: What it requires of a worker.
        pause: None where it is not paused by itself.
        changes: What was done to it from outside, the last ones, oldest first.
        options: How it is given out and tried again now.
        is_reset: It was reset while a worker has the current attempt: the next one is the first.
    """

    activity_id: str
    activity_type: str
    task_queue: str
    state: PendingActivityState
    attempt: int
    maximum_attempts: int
    scheduled_event_id: int
    scheduled_time: datetime | None
    last_started_time: datetime | None
    last_heartbeat_time: datetime | None
    heartbeat_details: Sequence[object]
    expiration_time: datetime | None
    next_attempt_time: datetime | None
    last_failure: FailureError | None
    last_worker_identity: str
    attempts: Sequence[ActivityAttempt]
    capabilities: Sequence[str]
    pause: Pause | None
    changes: Sequence[ActivityChange]
    options: ActivityOptions
    is_reset: bool


@dataclass(frozen=True, slots=True)
class PendingTimer:
    """A timer that has not fired."""

    timer_id: str
    fire_time: datetime | None
    started_event_id: int


@dataclass(frozen=True, slots=True)
class PendingWorkflowTask:
    """A workflow task that has not closed; `attempt` grows with each failure in a row."""

    state: PendingWorkflowTaskState
    attempt: int
    scheduled_time: datetime | None
    started_time: datetime | None
    last_failure: FailureError | None


@dataclass(frozen=True, slots=True)
class PendingChild:
    """A child that has not closed. `run_id` is the first of its chain; empty until it starts."""

    namespace: str
    workflow_id: str
    run_id: str
    workflow_type: str
    state: PendingChildState
    initiated_event_id: int


@dataclass(frozen=True, slots=True)
class PendingExternalCall:
    """A signal to another run, or a request to cancel it, that has not come to anything yet.

    Attributes:
        signal_name: Empty for a request to cancel.
    """

    namespace: str
    workflow_id: str
    run_id: str
    signal_name: str
    initiated_event_id: int
    initiated_time: datetime | None


@dataclass(frozen=True, slots=True)
class PendingUpdate:
    """An update that has no outcome yet. `stage_time` is when it was admitted, or accepted."""

    update_id: str
    name: str
    stage: PendingUpdateStage
    stage_time: datetime | None


@dataclass(frozen=True, slots=True)
class WaitReason:
    """One thing that an open run waits for.

    Attributes:
        subject: Which activity, timer or other run; empty for the run itself.
        since_time: None where that is not known.
        until_time: At the latest; None where there is no such time.
        attempt: Of a task; 0 of anything else.
        identity: Who has it, or paused it.
        task_queue: Where a worker is missing.
        message: Why the attempt before failed, or why it is paused.
    """

    kind: WaitKind
    subject: str
    since_time: datetime | None
    until_time: datetime | None
    attempt: int
    identity: str
    task_queue: str
    message: str


@dataclass(frozen=True, slots=True)
class WorkflowDescription:
    """What is known of a run now. Timeouts are None where there is none.

    Attributes:
        retry_policy: How it is tried again if it fails; None is not at all.
        unhandled_signal_count: Signals that its code has no handler for, as of its last completed
            workflow task; they wait for one.
        pause: None while it is not paused.
        pending_external_calls: By initiated_event_id.
        wait_reasons: What it waits for; none where it has closed.
        pinned_build_id: The build that its workflow tasks go to; empty for whichever its task queue
            has.
        reset: None where it was not reset, nor made by a reset or a fork.
    """

    info: WorkflowInfo
    execution_timeout: timedelta | None
    run_timeout: timedelta | None
    task_timeout: timedelta | None
    retry_policy: RetryPolicy | None
    cancel_requested: bool
    unhandled_signal_count: int
    pending_activities: Sequence[PendingActivity]
    pending_timers: Sequence[PendingTimer]
    pending_workflow_task: PendingWorkflowTask | None
    pause: Pause | None
    pending_children: Sequence[PendingChild]
    pending_external_calls: Sequence[PendingExternalCall]
    pending_updates: Sequence[PendingUpdate]
    wait_reasons: Sequence[WaitReason]
    pinned_build_id: str
    reset: ResetLinks | None = None

    @property
    def status(self) -> WorkflowStatus:
        """The run's status."""
        return self.info.status

    @property
    def has_pending(self) -> bool:
        """Whether an activity, a timer, a child, a call of another run or an update is open."""
        return bool(
            self.pending_activities
            or self.pending_timers
            or self.pending_children
            or self.pending_external_calls
            or self.pending_updates
        )

    @classmethod
    def from_proto(
        cls, response: DescribeWorkflowResponse, converter: DataConverter
    ) -> "WorkflowDescription":
        config = response.execution_config
        return cls(
            info=WorkflowInfo.from_proto(response.workflow_execution_info, converter),
            execution_timeout=read_duration(config, "workflow_execution_timeout"),
            run_timeout=read_duration(config, "workflow_run_timeout"),
            task_timeout=read_duration(config, "workflow_task_timeout"),
            retry_policy=(
                RetryPolicy.from_proto(config.retry_policy)
                if config.HasField("retry_policy")
                else None
            ),
            cancel_requested=response.cancel_requested,
            unhandled_signal_count=response.unhandled_signal_count,
            pending_activities=tuple(
                _activity(activity, converter) for activity in response.pending_activities
            ),
            pending_timers=tuple(_timer(timer) for timer in response.pending_timers),
            pending_workflow_task=(
                _workflow_task(response.pending_workflow_task, converter)
                if response.HasField("pending_workflow_task")
                else None
            ),
            pause=_pause(response.pause_info) if response.HasField("pause_info") else None,
            pending_children=tuple(_child(child) for child in response.pending_children),
            pending_external_calls=_external_calls(response),
            pending_updates=tuple(_update(update) for update in response.pending_updates),
            wait_reasons=tuple(_wait_reason(reason) for reason in response.wait_reasons),
            pinned_build_id=response.pinned_build_id,
            reset=_reset(response.reset_info) if response.HasField("reset_info") else None,
        )


def status_from_proto(status: workflow_pb2.WorkflowExecutionStatus.ValueType) -> WorkflowStatus:
    """The status for its number."""
    return enums.from_proto(
        WorkflowStatus, workflow_pb2.WorkflowExecutionStatus, status, STATUS_PREFIX
    )


def _activity(
    activity: workflow_pb2.PendingActivityInfo, converter: DataConverter
) -> PendingActivity:
    return PendingActivity(
        activity_id=activity.activity_id,
        activity_type=activity.activity_type.name,
        task_queue=activity.task_queue,
        state=enums.from_proto(
            PendingActivityState,
            workflow_pb2.PendingActivityState,
            activity.state,
            "PENDING_ACTIVITY_STATE_",
        ),
        attempt=activity.attempt,
        maximum_attempts=activity.maximum_attempts,
        scheduled_event_id=activity.scheduled_event_id,
        scheduled_time=read_timestamp(activity, "scheduled_time"),
        last_started_time=read_timestamp(activity, "last_started_time"),
        last_heartbeat_time=read_timestamp(activity, "last_heartbeat_time"),
        heartbeat_details=_values(activity.heartbeat_details, converter),
        expiration_time=read_timestamp(activity, "expiration_time"),
        next_attempt_time=read_timestamp(activity, "next_attempt_time"),
        last_failure=from_failure(activity.last_failure, converter)
        if activity.HasField("last_failure")
        else None,
        last_worker_identity=activity.last_worker_identity,
        attempts=tuple(_attempt(attempt, converter) for attempt in activity.attempts),
        capabilities=tuple(activity.capabilities),
        pause=_pause(activity.pause_info) if activity.HasField("pause_info") else None,
        changes=tuple(_change(change) for change in activity.changes),
        options=ActivityOptions.from_proto(activity.options),
        is_reset=activity.is_reset,
    )


def _change(change: workflow_pb2.ActivityChange) -> ActivityChange:
    return ActivityChange(
        type=enums.from_proto(
            ActivityChangeType,
            workflow_pb2.ActivityChangeType,
            change.type,
            "ACTIVITY_CHANGE_TYPE_",
        ),
        time=read_timestamp(change, "time"),
        identity=change.identity,
        reason=change.reason,
    )


def _attempt(attempt: workflow_pb2.ActivityAttempt, converter: DataConverter) -> ActivityAttempt:
    return ActivityAttempt(
        attempt=attempt.attempt,
        start_time=read_timestamp(attempt, "start_time"),
        end_time=read_timestamp(attempt, "end_time"),
        identity=attempt.identity,
        failure=from_failure(attempt.failure, converter) if attempt.HasField("failure") else None,
        next_attempt_time=read_timestamp(attempt, "next_attempt_time"),
    )


def _timer(timer: workflow_pb2.PendingTimerInfo) -> PendingTimer:
    return PendingTimer(timer.timer_id, read_timestamp(timer, "fire_time"), timer.started_event_id)


def _workflow_task(
    task: workflow_pb2.PendingWorkflowTaskInfo, converter: DataConverter
) -> PendingWorkflowTask:
    return PendingWorkflowTask(
        state=enums.from_proto(
            PendingWorkflowTaskState,
            workflow_pb2.PendingWorkflowTaskState,
            task.state,
            "PENDING_WORKFLOW_TASK_STATE_",
        ),
        attempt=task.attempt,
        scheduled_time=read_timestamp(task, "scheduled_time"),
        started_time=read_timestamp(task, "started_time"),
        last_failure=from_failure(task.last_failure, converter)
        if task.HasField("last_failure")
        else None,
    )


def _pause(info: workflow_pb2.PauseInfo) -> Pause:
    return Pause(read_timestamp(info, "pause_time"), info.identity, info.reason)


def _child(child: workflow_pb2.PendingChildInfo) -> PendingChild:
    return PendingChild(
        namespace=child.namespace,
        workflow_id=child.workflow_execution.workflow_id,
        run_id=child.workflow_execution.run_id,
        workflow_type=child.workflow_type.name,
        state=enums.from_proto(
            PendingChildState,
            workflow_pb2.PendingChildState,
            child.state,
            "PENDING_CHILD_STATE_",
        ),
        initiated_event_id=child.initiated_event_id,
    )


def _external_calls(response: DescribeWorkflowResponse) -> tuple[PendingExternalCall, ...]:
    calls = [
        _external_call(call, getattr(call, "signal_name", ""))
        for call in (*response.pending_external_signals, *response.pending_external_cancels)
    ]
    return tuple(sorted(calls, key=lambda call: call.initiated_event_id))


def _external_call(
    call: workflow_pb2.PendingExternalSignalInfo | workflow_pb2.PendingExternalCancelInfo,
    signal_name: str,
) -> PendingExternalCall:
    return PendingExternalCall(
        namespace=call.namespace,
        workflow_id=call.workflow_execution.workflow_id,
        run_id=call.workflow_execution.run_id,
        signal_name=signal_name,
        initiated_event_id=call.initiated_event_id,
        initiated_time=read_timestamp(call, "initiated_time"),
    )


def _update(update: workflow_pb2.PendingUpdateInfo) -> PendingUpdate:
    return PendingUpdate(
        update_id=update.update_id,
        name=update.name,
        stage=enums.from_proto(
            PendingUpdateStage, workflow_pb2.UpdateStage, update.stage, "UPDATE_STAGE_"
        ),
        stage_time=read_timestamp(update, "stage_time"),
    )


def _wait_reason(reason: workflow_pb2.WaitReason) -> WaitReason:
    return WaitReason(
        kind=enums.from_proto(WaitKind, workflow_pb2.WaitKind, reason.kind, "WAIT_KIND_"),
        subject=reason.subject,
        since_time=read_timestamp(reason, "since_time"),
        until_time=read_timestamp(reason, "until_time"),
        attempt=reason.attempt,
        identity=reason.identity,
        task_queue=reason.task_queue,
        message=reason.message,
    )


def _values(payloads: Payloads, converter: DataConverter) -> tuple[object, ...]:
    return tuple(converter.from_payload_or_itself(payload) for payload in payloads.payloads)


def _reference(execution: WorkflowExecution) -> RunReference | None:
    if not execution.workflow_id:
        return None
    return RunReference(execution.workflow_id, execution.run_id)


def _reset(info: ResetInfo) -> ResetLinks:
    return ResetLinks(
        info.base_workflow_id or None,
        info.base_run_id or None,
        info.base_event_id or None,
        info.reset_run_id or None,
        read_timestamp(info, "reset_time"),
        info.reset_identity,
        info.reset_reason,
    )
