"""What matching counts. Labelled by the side of the queue, so all series are made once.

Counts of the hot path gather in plain integers and are published about once a second: a counter's
lock and checks cost more than a match.
"""

from dataclasses import dataclass, fields

from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris_server.telemetry import counter, gauge

_LABELS = ("task_queue_type",)
_LABEL_VALUES = {TASK_QUEUE_TYPE_WORKFLOW: "workflow", TASK_QUEUE_TYPE_ACTIVITY: "activity"}

_COUNTERS = {
    "sync_matches": counter(
        "matching_sync_matches", "Tasks that went to a poller without touching Redis", _LABELS
    ),
    "pushes": counter("matching_backlog_pushes", "Tasks put into the backlog", _LABELS),
    "pops": counter("matching_backlog_pops", "Tasks taken from the backlog", _LABELS),
    "repairs": counter(
        "matching_backlog_repairs",
        "Tasks that were offered again because they should have been there, and were not",
        _LABELS,
    ),
    "redeliveries": counter(
        "matching_redeliveries",
        "Tasks that came back to the backlog because their lease expired",
        _LABELS,
    ),
}

backlog_losses = counter("matching_backlog_losses", "Times that Redis was found to have lost tasks")
backlog_gaps = counter(
    "matching_backlog_gaps", "Times that a queue was found to have lost a part of its backlog"
)
queues = gauge("matching_task_queues", "Sides of task queues that are in memory")
polls = gauge("matching_polls", "Polls that are being served")
held_tasks = gauge("matching_held_tasks", "Tasks that wait in memory for a poll")


@dataclass(slots=True)
class Counts:
    """What has been counted on one side of task queues since the last `publish`."""

    sync_matches: int = 0
    pushes: int = 0
    pops: int = 0
    repairs: int = 0
    redeliveries: int = 0


_counts = {queue_type: Counts() for queue_type in _LABEL_VALUES}


def counts(task_queue_type: int) -> Counts:
    """The counts of the side of a queue, to be added to."""
    if task_queue_type == TASK_QUEUE_TYPE_WORKFLOW:
        return _counts[TASK_QUEUE_TYPE_WORKFLOW]
    return _counts[TASK_QUEUE_TYPE_ACTIVITY]


def publish() -> None:
    """Bring the metrics up to the counts."""
    for queue_type, counted in _counts.items():
        for field in fields(counted):
            if amount := getattr(counted, field.name):
                _COUNTERS[field.name].labels(_LABEL_VALUES[queue_type]).inc(amount)
                setattr(counted, field.name, 0)
