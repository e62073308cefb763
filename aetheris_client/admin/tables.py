"""Answers as people read them. Pure: views in, blocks out."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, TypeGuard

from rich.text import Text

from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_client.activity_options import ActivityOptions
from aetheris_client.admin.described import Described, Outcome
from aetheris_client.admin.layout import Block, Cell, Fields, Grid, Sentence
from aetheris_client.admin.plain import plain_event, to_json
from aetheris_client.admin.text import one_line, styled
from aetheris_client.descriptions import (
    Pause,
    PendingActivity,
    ResetLinks,
    WorkflowDescription,
    WorkflowInfo,
)
from aetheris_client.enums import ComponentStatus, WaitKind, WorkflowStatus
from aetheris_client.errors import ApplicationError
from aetheris_client.operator_client import ClusterHealth, NamespaceInfo, TaskQueueDescription

MAX_VALUE_CHARS: Final = 160
_MAX_CAUSES: Final = 50

_STATUS_STYLES: Mapping[WorkflowStatus, str] = {
    WorkflowStatus.RUNNING: "cyan",
    WorkflowStatus.COMPLETED: "green",
    WorkflowStatus.FAILED: "red",
    WorkflowStatus.TIMED_OUT: "red",
    WorkflowStatus.TERMINATED: "red",
    WorkflowStatus.CANCELLED: "yellow",
    WorkflowStatus.PAUSED: "yellow",
}
# Bookkeeping that every event of its kind has; `--output json` shows it.
_HIDDEN_ATTRIBUTES = frozenset(
    {
        "first_execution_run_id",
        "header",
        "original_execution_run_id",
        "request_id",
        "sdk_name",
        "sdk_version",
        "worker_version",
        "workflow_task_completed_event_id",
    }
)


def time_text(moment: datetime | None) -> str:
    """A time in UTC to the second; a dash for none."""
    return "-" if moment is None else f"{moment:%Y-%m-%d %H:%M:%S}Z"


def duration_text(interval: timedelta | None) -> str:
    """`1d2h`, `1m30s`, `250ms`; a dash for none."""
    if interval is None:
        return "-"
    seconds = interval.total_seconds()
    if seconds < 1:
        return f"{seconds * 1000:.3g}ms" if seconds else "0s"
    text = ""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        count, seconds = divmod(seconds, length)
        text += f"{count:.0f}{unit}" if count else ""
    return text + (f"{seconds:.3g}s" if seconds or not text else "")


def value_text(value: object) -> str:
    """A value in one line of JSON, cut if it is long; a string as it is."""
    text = one_line(value if isinstance(value, str) else to_json(value, indent=False))
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"


# Of each column of the list of runs, the width that is usual.
RUN_COLUMNS: Final = (
    ("Status", 10),
    ("Workflow id", 20),
    ("Run id", 36),
    ("Type", 12),
    ("Started", 20),
    ("Closed", 20),
)


def run_cells(run: WorkflowInfo) -> Sequence[Cell]:
    """A run in the columns of RUN_COLUMNS."""
    return (
        _status(run.status),
        run.workflow_id,
        run.run_id,
        run.workflow_type,
        time_text(run.start_time),
        time_text(run.close_time),
    )


def description_fields(described: Described) -> Fields:
    """What a run is, and how it ended."""
    description = described.run
    info = description.info
    rows: list[tuple[str, Cell]] = [
        ("Workflow id", info.workflow_id),
        ("Run id", info.run_id),
        ("Type", info.workflow_type),
        ("Status", _status(info.status)),
        ("Task queue", info.task_queue),
        ("Started", time_text(info.start_time)),
        ("Closed", time_text(info.close_time)),
        ("History", f"{_count(info.history_length, 'event')}, {info.history_bytes} bytes"),
        ("Execution timeout", duration_text(description.execution_timeout)),
        ("Run timeout", duration_text(description.run_timeout)),
        ("Task timeout", duration_text(description.task_timeout)),
    ]
    if info.execution_time and info.start_time and info.execution_time > info.start_time:
        rows.append(("Start delay", f"its code begins {time_text(info.execution_time)}"))
    rows += _chain_rows(description)
    if info.parent is not None:
        rows.append(("Parent", f"{info.parent.workflow_id} ({info.parent.run_id})"))
    if info.memo:
        rows.append(("Memo", value_text(info.memo)))
    if info.search_attributes:
        rows.append(("Search attributes", value_text(info.search_attributes)))
    rows += _steering_rows(description)
    rows += _task_rows(description)
    if described.outcome is not None:
        rows += _outcome_rows(described.outcome)
    return Fields(rows)


def _steering_rows(description: WorkflowDescription) -> list[tuple[str, Cell]]:
    """What others have asked of it."""
    rows: list[tuple[str, Cell]] = []
    if description.reset is not None:
        rows += _reset_rows(description.reset)
    if description.pause is not None:
        rows.append(("Paused", pause_text(description.pause)))
    if description.pinned_build_id:
        rows.append(("Pinned to build", description.pinned_build_id))
    if description.cancel_requested:
        rows.append(("Cancellation", "requested"))
    if description.unhandled_signal_count:
        count = description.unhandled_signal_count
        rows.append(
            ("Signals", f"{count} unhandled: no handler has the name, or can take what they carry")
        )
    return rows


def _task_rows(description: WorkflowDescription) -> list[tuple[str, Cell]]:
    """Its workflow task, if there is one."""
    task = description.pending_workflow_task
    if task is None:
        return []
    rows: list[tuple[str, Cell]] = [("Workflow task", f"{task.state}, attempt {task.attempt}")]
    if task.last_failure is not None:
        rows.append(("… last failed", value_text(str(task.last_failure))))
    return rows


def pause_text(pause: Pause) -> str:
    """Since when something is paused, by whom and why."""
    by = f" by {pause.identity}" if pause.identity else ""
    reason = f": {pause.reason}" if pause.reason else ""
    return value_text(f"since {time_text(pause.pause_time)}{by}{reason}")


def _chain_rows(description: WorkflowDescription) -> list[tuple[str, Cell]]:
    """Where it stands among the runs that continue each other."""
    info, policy = description.info, description.retry_policy
    rows: list[tuple[str, Cell]] = []
    if policy is not None:
        rows.append(("Attempt", f"{info.attempt} of {policy.maximum_attempts or 'any number'}"))
    if info.continued_run_id is not None:
        rows.append(("Continues run", info.continued_run_id))
        rows.append(("First run", info.first_execution_run_id))
    if info.new_run_id is not None and info.status is not WorkflowStatus.CONTINUED_AS_NEW:
        rows.append(("Tried again as run", info.new_run_id))
    return rows


def _outcome_rows(outcome: Outcome) -> list[tuple[str, Cell]]:
    if outcome.new_run_id is not None:
        return [("Goes on as run", outcome.new_run_id)]
    if outcome.failure is None:
        return [("Result", value_text(outcome.result))]
    first, *causes = _failure_chain(outcome.failure)
    return [("Failure", first), *(("… caused by", cause) for cause in causes)]


def warning_line(warning: str) -> Sentence:
    """What may hold a run up."""
    return Sentence(f"warning: {warning}", "yellow")


_WAIT_TEXTS: Mapping[WaitKind, str] = {
    WaitKind.PAUSED: "to be unpaused",
    WaitKind.START_DELAY: "the time of its delayed start",
    WaitKind.WORKFLOW_TASK_NOT_TAKEN: "a worker that takes its workflow task",
    WaitKind.WORKFLOW_TASK_RUNNING: "a worker that has its workflow task",
    WaitKind.WORKFLOW_TASK_BACKING_OFF: "the next attempt of its workflow task",
    WaitKind.ACTIVITY_NOT_TAKEN: "a worker that takes activity",
    WaitKind.ACTIVITY_RUNNING: "a worker that has activity",
    WaitKind.ACTIVITY_BACKING_OFF: "the next attempt of activity",
    WaitKind.ACTIVITY_PAUSED: "the unpause of activity",
    WaitKind.TIMER: "timer",
    WaitKind.CHILD_START: "the start of child",
    WaitKind.CHILD: "child",
    WaitKind.EXTERNAL_CALL: "an answer for its call of workflow",
    WaitKind.SIGNAL: "nothing but a signal, an update or a request to cancel",
    WaitKind.UNSPECIFIED: "something that this version does not know",
}


def waits_table(description: WorkflowDescription) -> Grid:
    """What an open run waits for."""
    table = Grid("Waits for", "Since", "Until", "Attempt", "Who", "Why", title="Waits")
    for reason in description.wait_reasons:
        where = f" on {reason.task_queue!r}" if reason.task_queue else ""
        subject = f" {reason.subject}" if reason.subject else ""
        table.add_row(
            f"{_WAIT_TEXTS[reason.kind]}{subject}{where}",
            time_text(reason.since_time),
            time_text(reason.until_time),
            str(reason.attempt or "-"),
            reason.identity or "-",
            value_text(reason.message) if reason.message else "-",
        )
    return table


def pending_table(description: WorkflowDescription) -> Grid:
    """All that is open of a run: activities, timers, children, calls of other runs, updates."""
    table = Grid(
        "Kind", "Id", "Type", "State", "Attempt", "Worker", "Next", "Last heartbeat",
        "Heartbeat details", "Last failure",
        title="Pending",
    )  # fmt: skip
    for activity in description.pending_activities:
        table.add_row(*_activity_cells(activity))
    for timer in description.pending_timers:
        table.add_row(
            "timer", timer.timer_id, "-", "-", "-", "-", time_text(timer.fire_time), "-", "-", "-"
        )
    for child in description.pending_children:
        table.add_row("child", child.workflow_id, child.workflow_type, child.state, *(["-"] * 6))
    for call in description.pending_external_calls:
        what = f"signal {call.signal_name}" if call.signal_name else "cancel"
        table.add_row("call", call.workflow_id, what, "-", *(["-"] * 6))
    for update in description.pending_updates:
        table.add_row("update", update.update_id, update.name, update.stage, *(["-"] * 6))
    return table


def _activity_cells(activity: PendingActivity) -> Sequence[Cell]:
    limit = f" of {activity.maximum_attempts}" if activity.maximum_attempts else ""
    failure, details = activity.last_failure, activity.heartbeat_details
    state: str = activity.state
    if activity.pause is not None:
        state += f", paused {pause_text(activity.pause)}"
    if activity.is_reset:
        state += ", reset"
    return (
        "activity",
        activity.activity_id,
        activity.activity_type,
        state,
        f"{activity.attempt}{limit}",
        activity.last_worker_identity or "-",
        time_text(activity.next_attempt_time),
        time_text(activity.last_heartbeat_time),
        " ".join(map(value_text, details)) or "-",
        "-" if failure is None else value_text(str(failure)),
    )


def activity_options_fields(options: ActivityOptions) -> Fields:
    """How an activity is given out and tried again."""
    return Fields(
        [
            ("Task queue", options.task_queue),
            ("Schedule to close", duration_text(options.schedule_to_close_timeout)),
            ("Schedule to start", duration_text(options.schedule_to_start_timeout)),
            ("Start to close", duration_text(options.start_to_close_timeout)),
            ("Heartbeat", duration_text(options.heartbeat_timeout)),
            ("Initial interval", duration_text(options.initial_interval)),
            ("Backoff coefficient", f"{options.backoff_coefficient:g}"),
            ("Maximum interval", duration_text(options.maximum_interval)),
            ("Maximum attempts", str(options.maximum_attempts or "-")),
            ("Not retried", ", ".join(options.non_retryable_error_types) or "-"),
        ]
    )


def event_heading() -> str:
    """The heading over event lines."""
    return f"{'Id':>5}  {'Time':<24}  {'Type':<42}  Attributes"


def event_line(event: HistoryEvent) -> str:
    """An event in one line: id, time, type, key attributes."""
    fields = plain_event(event)
    name = event_type_text(fields["event_type"])
    moment = event.event_time.ToDatetime()
    time = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}Z"
    return (
        f"{event.event_id:>5}  {time}  {name:<42}  {attributes_text(fields['attributes'])}".rstrip()
    )


def event_type_text(name: str) -> str:
    """`WORKFLOW_TASK_STARTED` as `WorkflowTaskStarted`."""
    return "".join(word.capitalize() for word in name.split("_"))


def attributes_text(attributes: Mapping[str, Any]) -> str:
    """An event's attributes in one line, without the bookkeeping."""
    return " ".join(
        f"{name}={_attribute(value)}"
        for name, value in attributes.items()
        if name not in _HIDDEN_ATTRIBUTES
    )


def failure_lines(error: BaseException) -> list[str]:
    """The causes of an error, a line each."""
    return [f"caused by {cause}" for cause in _failure_chain(error.__cause__)]


def _failure_chain(error: BaseException | None) -> list[str]:
    """A failure and its causes."""
    chain: list[str] = []
    while error is not None and len(chain) < _MAX_CAUSES:
        kind = type(error).__name__
        if isinstance(error, ApplicationError) and error.type:
            kind = one_line(error.type)
        chain.append(f"{kind}: {one_line(str(getattr(error, 'message', error)))}")
        error = error.__cause__
    return chain


def namespace_table(namespaces: Sequence[NamespaceInfo]) -> Block:
    """Namespaces, a line each."""
    table = Grid("Name", "Id", "Retention (not applied yet)", "Created", "Description")
    for info in namespaces:
        table.add_row(
            info.name,
            info.namespace_id,
            duration_text(info.retention_interval),
            time_text(info.create_time),
            info.description,
        )
    return _or_none(table, "namespaces")


def limits_table(info: NamespaceInfo) -> Block:
    """What a namespace is held to."""
    table = Grid("Limit", "Value", "Of", title="Limits")
    for name, value in info.limits.items():
        owner = "the namespace" if name in info.own_limits else "the server"
        table.add_row(name, str(value), owner)
    return _or_none(table, "limits")


def pollers_table(queues: Sequence[TaskQueueDescription]) -> Block:
    """Who polls."""
    table = Grid(
        "Queue", "Worker", "Build", "Last poll", "Waiting", "Capabilities", title="Pollers"
    )
    for queue in queues:
        for poller in queue.pollers:
            table.add_row(
                queue.task_queue_type,
                poller.identity,
                poller.build_id or "-",
                time_text(poller.last_access_time),
                str(poller.waiting_poll_count),
                _set(poller.capabilities),
            )
    return _or_none(table, "pollers in the last minutes")


def backlogs_table(queues: Sequence[TaskQueueDescription]) -> Block:
    """What waits."""
    table = Grid("Queue", "Requires", "Build", "Waiting", "Oldest", "Handed out", title="Backlog")
    for queue in queues:
        for backlog in queue.backlogs:
            table.add_row(
                queue.task_queue_type,
                _set(backlog.capabilities),
                backlog.pinned_build_id or _default_build(queue),
                str(backlog.backlog_count),
                duration_text(backlog.oldest_age),
                str(backlog.in_flight_count),
            )
    return _or_none(table, "backlog")


def _default_build(queue: TaskQueueDescription) -> str:
    return f"{queue.default_build_id} (default)" if queue.default_build_id else "-"


def builds_line(queues: Sequence[TaskQueueDescription]) -> Block:
    """Which build the queue prefers."""
    default = next((queue.default_build_id for queue in queues if queue.default_build_id), "")
    return Fields([("Default build", default or "any")])


def cluster_table(cluster: ClusterHealth) -> Block:
    """The cluster as a whole."""
    return Fields(
        [
            ("Server version", cluster.server_version),
            ("Shards", f"{cluster.owned_shard_count} of {cluster.shard_count} owned"),
            ("Health", _health(cluster)),
        ]
    )


def components_table(cluster: ClusterHealth) -> Block:
    """The parts of the cluster."""
    table = Grid("Component", "Status", "Latency", "Message", title="Components")
    for component in cluster.components:
        is_well = component.status is ComponentStatus.SERVING
        table.add_row(
            component.name,
            styled(component.status, "green" if is_well else "red"),
            duration_text(component.latency),
            component.message,
        )
    return table


def hosts_table(cluster: ClusterHealth) -> Block:
    """The live servers."""
    table = Grid("Host", "Address", "Shards", "Last heartbeat", title="Hosts")
    for host in cluster.hosts:
        table.add_row(
            host.host_id, host.address, str(host.shard_count), time_text(host.heartbeat_time)
        )
    return table


def _or_none(grid: Grid, what: str) -> Block:
    """The rows, or a sentence in place of none."""
    return grid if len(grid) else Sentence(f"No {what}.", "dim")


def _status(status: WorkflowStatus) -> Text:
    return styled(status, _STATUS_STYLES.get(status, ""))


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _health(cluster: ClusterHealth) -> Text:
    return styled("healthy", "green") if cluster.is_healthy else styled("unhealthy", "red")


def _set(items: Sequence[str]) -> str:
    return ", ".join(items) or "-"


def _attribute(value: object) -> str:
    if _is_failure(value):
        return _failure_attribute(value)
    text = value_text(value)
    return f'"{text}"' if isinstance(value, str) and re.search(r"\s", text) else text


def _is_failure(value: object) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(value, Mapping) and "message" in value


def _failure_attribute(failure: Mapping[str, Any]) -> str:
    """A recorded failure: the messages of its chain."""
    messages: list[str] = []
    link: Mapping[str, Any] | None = failure
    while link is not None:
        messages.append(str(link.get("message", "")))
        link = link.get("cause")
    return value_text(f'"{" ← ".join(messages)}"')


def _reset_rows(links: ResetLinks) -> list[tuple[str, Cell]]:
    rows: list[tuple[str, Cell]] = []
    if links.base_run_id is not None:
        base = f"{links.base_workflow_id} ({links.base_run_id})"
        rows.append(("Taken from", f"{base}, up to event {links.base_event_id}"))
    if links.reset_run_id is not None:
        why = f": {links.reset_reason}" if links.reset_reason else ""
        by = f" by {links.reset_identity}" if links.reset_identity else ""
        rows.append(("Reset to", f"{links.reset_run_id} {time_text(links.reset_time)}{by}{why}"))
    return rows
