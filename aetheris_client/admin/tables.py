"""Answers as people read them. Pure: views in, renderables out."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeGuard

from rich.table import Table
from rich.text import Text

from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris_client.admin.plain import plain_event, to_json
from aetheris_client.enums import ComponentStatus, WorkflowStatus
from aetheris_client.errors import ApplicationError
from aetheris_client.operator_client import ClusterHealth, NamespaceInfo, TaskQueueDescription
from aetheris_client.views import WorkflowDescription, WorkflowInfo

MAX_VALUE_CHARS = 160

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
    text = value if isinstance(value, str) else to_json(value, indent=False)
    text = " ".join(text.split())
    return text if len(text) <= MAX_VALUE_CHARS else text[: MAX_VALUE_CHARS - 1] + "…"


def workflow_table(runs: Sequence[WorkflowInfo]) -> Table | Text:
    """Runs, a line each."""
    table = _table("Status", "Workflow id", "Run id", "Type", "Started", "Closed")
    for run in runs:
        table.add_row(
            _status(run.status),
            run.workflow_id,
            run.run_id,
            run.workflow_type,
            time_text(run.start_time),
            time_text(run.close_time),
        )
    return _or_none(table, "such runs")


def description_table(description: WorkflowDescription) -> Table:
    """What a run is."""
    info = description.info
    rows: dict[str, str | Text] = {
        "Workflow id": info.workflow_id,
        "Run id": info.run_id,
        "Type": info.workflow_type,
        "Status": _status(info.status),
        "Task queue": info.task_queue,
        "Started": time_text(info.start_time),
        "Closed": time_text(info.close_time),
        "History": f"{info.history_length} events, {info.history_bytes} bytes",
        "Execution timeout": duration_text(description.execution_timeout),
        "Run timeout": duration_text(description.run_timeout),
        "Task timeout": duration_text(description.task_timeout),
    }
    if info.parent is not None:
        rows["Parent"] = f"{info.parent.workflow_id} ({info.parent.run_id})"
    if info.memo:
        rows["Memo"] = value_text(info.memo)
    if info.search_attributes:
        rows["Search attributes"] = value_text(info.search_attributes)
    if description.cancel_requested:
        rows["Cancellation"] = "requested"
    task = description.pending_workflow_task
    if task is not None:
        failure = f", last failed: {task.last_failure}" if task.last_failure is not None else ""
        rows["Workflow task"] = f"{task.state}, attempt {task.attempt}{failure}"
    return key_value_table(rows)


def pending_activities_table(description: WorkflowDescription) -> Table:
    """The open activities of a run."""
    table = _table(
        "Activity id", "Type", "State", "Attempt", "Worker", "Next attempt", "Last failure",
        title="Pending activities",
    )  # fmt: skip
    for activity in description.pending_activities:
        limit = f" of {activity.maximum_attempts}" if activity.maximum_attempts else ""
        failure = activity.last_failure
        table.add_row(
            activity.activity_id,
            activity.activity_type,
            activity.state,
            f"{activity.attempt}{limit}",
            activity.last_worker_identity or "-",
            time_text(activity.next_attempt_time),
            "-" if failure is None else value_text(str(failure)),
        )
    return table


def pending_timers_table(description: WorkflowDescription) -> Table:
    """The open timers of a run."""
    table = _table("Timer id", "Fires", title="Pending timers")
    for timer in description.pending_timers:
        table.add_row(timer.timer_id, time_text(timer.fire_time))
    return table


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
    """A failure and its causes, a line each."""
    lines: list[str] = []
    link = error.__cause__
    while link is not None and len(lines) < 50:
        kind = type(link).__name__
        if isinstance(link, ApplicationError) and link.type:
            kind = link.type
        message = " ".join(str(getattr(link, "message", link)).split())
        lines.append(f"caused by {kind}: {message}")
        link = link.__cause__
    return lines


def namespace_table(namespaces: Sequence[NamespaceInfo]) -> Table | Text:
    """Namespaces, a line each."""
    table = _table("Name", "Id", "Retention", "Created", "Description")
    for info in namespaces:
        table.add_row(
            info.name,
            info.namespace_id,
            duration_text(info.retention_interval),
            time_text(info.create_time),
            info.description,
        )
    return _or_none(table, "namespaces")


def pollers_table(queues: Sequence[TaskQueueDescription]) -> Table | Text:
    """Who polls."""
    table = _table("Queue", "Worker", "Last poll", "Waiting", "Capabilities", title="Pollers")
    for queue in queues:
        for poller in queue.pollers:
            table.add_row(
                queue.task_queue_type,
                poller.identity,
                time_text(poller.last_access_time),
                str(poller.waiting_poll_count),
                _set(poller.capabilities),
            )
    return _or_none(table, "pollers in the last minutes")


def backlogs_table(queues: Sequence[TaskQueueDescription]) -> Table | Text:
    """What waits."""
    table = _table("Queue", "Requires", "Waiting", "Oldest", "Handed out", title="Backlog")
    for queue in queues:
        for backlog in queue.backlogs:
            table.add_row(
                queue.task_queue_type,
                _set(backlog.capabilities),
                str(backlog.backlog_count),
                duration_text(backlog.oldest_age),
                str(backlog.in_flight_count),
            )
    return _or_none(table, "backlog")


def cluster_table(cluster: ClusterHealth) -> Table:
    """The cluster as a whole."""
    return key_value_table(
        {
            "Server version": cluster.server_version,
            "Shards": f"{cluster.owned_shard_count} of {cluster.shard_count} owned",
            "Health": Text("healthy", "green") if cluster.is_healthy else Text("unhealthy", "red"),
        }
    )


def components_table(cluster: ClusterHealth) -> Table:
    """The parts of the cluster."""
    table = _table("Component", "Status", "Latency", "Message", title="Components")
    for component in cluster.components:
        is_well = component.status is ComponentStatus.SERVING
        table.add_row(
            component.name,
            Text(component.status, "green" if is_well else "red"),
            duration_text(component.latency),
            component.message,
        )
    return table


def hosts_table(cluster: ClusterHealth) -> Table:
    """The live servers."""
    table = _table("Host", "Address", "Shards", "Last heartbeat", title="Hosts")
    for host in cluster.hosts:
        table.add_row(
            host.host_id, host.address, str(host.shard_count), time_text(host.heartbeat_time)
        )
    return table


def key_value_table(rows: Mapping[str, str | Text]) -> Table:
    """Names and values, a line each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value if isinstance(value, Text) else Text(value))
    return table


def _or_none(table: Table, what: str) -> Table | Text:
    """The table, or a sentence in place of an empty one."""
    return table if table.row_count else Text(f"No {what}.", "dim")


def _table(*columns: str, title: str | None = None) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _status(status: WorkflowStatus) -> Text:
    return Text(status, _STATUS_STYLES.get(status, ""))


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
