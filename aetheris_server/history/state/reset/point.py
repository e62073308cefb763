"""Which workflow task of a run a point names."""

from aetheris.api.v1 import history_pb2, workflow_service_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.aggregates.records import ATTRIBUTES

_STARTED = history_pb2.EVENT_TYPE_WORKFLOW_TASK_STARTED
_COMPLETED = history_pb2.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
_ENDS = frozenset(
    {
        _COMPLETED,
        history_pb2.EVENT_TYPE_WORKFLOW_TASK_FAILED,
        history_pb2.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT,
    }
)


class PointFinder:
    """Finds the task by its started event. It is shown the run's events from the first on."""

    def __init__(self, point: workflow_service_pb2.ResetPoint) -> None:
        self._point = point
        self._kind = point.WhichOneof("point")
        self._is_first = point.workflow_task == workflow_service_pb2.WORKFLOW_TASK_POINT_FIRST
        self._event_count = 0
        self._found: int | None = None
        # Of the first, or the last, task that was only started.
        self._started: int | None = None

    def take(self, event: history_pb2.HistoryEvent) -> bool:
        """Look at the next event.

        Returns:
            Whether no later one can change what is found.

        Raises:
            InvalidArgumentError: The point names this event, which is of no task that was started.
        """
        self._event_count = event.event_id
        if self._kind == "event_id":
            if event.event_id == self._point.event_id:
                self._found = _started_id_by_any(event)
            return self._found is not None
        if event.event_type == _STARTED:
            if self._started is None or not self._is_first:
                self._started = event.event_id
        elif event.event_type == _COMPLETED and self._takes(event):
            self._found = _started_id(event)
            return self._kind == "workflow_task" and self._is_first
        return False

    def find(self) -> int:
        """The id of the task's started event; all events have been shown that matter.

        Raises:
            InvalidArgumentError: The run has no such task.
        """
        if self._kind == "workflow_task":
            self._found = self._found or self._started
        if self._found is not None:
            return self._found
        match self._kind:
            case "event_id":
                field = "point.event_id"
                reason = (
                    f"found {self._point.event_id}, expected an event of the run, which has"
                    f" {self._event_count}"
                )
            case "build_id":
                field = "point.build_id"
                reason = f"no workflow task was completed by the build {self._point.build_id!r}"
            case _:
                field = "point"
                reason = "no workflow task of the run has ended yet"
        raise InvalidArgumentError(field, reason)

    def _takes(self, completed: history_pb2.HistoryEvent) -> bool:
        if self._kind != "build_id":
            return True
        attributes = completed.workflow_task_completed_event_attributes
        return attributes.worker_version == self._point.build_id


def _started_id_by_any(event: history_pb2.HistoryEvent) -> int:
    if event.event_type == _STARTED:
        return event.event_id
    started_id = _started_id(event) if event.event_type in _ENDS else 0
    if not started_id:
        name = history_pb2.EventType.Name(event.event_type).removeprefix("EVENT_TYPE_")
        raise InvalidArgumentError(
            "point.event_id",
            f"event {event.event_id} is {name}, expected the start or the end of a workflow task",
        )
    return started_id


def _started_id(end: history_pb2.HistoryEvent) -> int:
    return getattr(end, ATTRIBUTES[end.event_type]).started_event_id
