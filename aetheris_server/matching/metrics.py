"""What matching counts. Labelled by the side of the queue, so all series are made once."""

from prometheus_client import Counter, Gauge

from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris_server.telemetry import counter, gauge

_LABELS = ("task_queue_type",)
_NAMES = {TASK_QUEUE_TYPE_WORKFLOW: "workflow", TASK_QUEUE_TYPE_ACTIVITY: "activity"}

_sync_matches = counter(
    "matching_sync_matches", "Tasks that went to a poller without touching Redis", _LABELS
)
_pushes = counter("matching_backlog_pushes", "Tasks put into the backlog", _LABELS)
_pops = counter("matching_backlog_pops", "Tasks taken from the backlog", _LABELS)
_redeliveries = counter(
    "matching_redeliveries",
    "Tasks that came back to the backlog because their lease expired",
    _LABELS,
)
_polls = gauge("matching_polls", "Polls that are being served", _LABELS)

backlog_losses = counter("matching_backlog_losses", "Times that Redis was found to have lost tasks")
queues = gauge("matching_task_queues", "Sides of task queues that are in memory")


class QueueMetrics:
    """The series of one side of task queues."""

    def __init__(self, name: str) -> None:
        self.sync_matches: Counter = _sync_matches.labels(name)
        self.pushes: Counter = _pushes.labels(name)
        self.pops: Counter = _pops.labels(name)
        self.redeliveries: Counter = _redeliveries.labels(name)
        self.polls: Gauge = _polls.labels(name)


_by_type = {queue_type: QueueMetrics(name) for queue_type, name in _NAMES.items()}


def queue_metrics(task_queue_type: int) -> QueueMetrics:
    """The series of the side of a queue."""
    return _by_type[TASK_QUEUE_TYPE_WORKFLOW if task_queue_type == 1 else TASK_QUEUE_TYPE_ACTIVITY]
