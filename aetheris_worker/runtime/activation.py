"""Cuts a history into activations: the events that workflow code sees at once.

An activation ends with the start of a workflow task that was completed, or of the one in hand: the
code runs once per activation. The events of a task that failed or timed out belong to the
activation of the next one, since nothing that the code did then is in the history.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from aetheris.api.v1 import history_pb2
from aetheris.api.v1.history_pb2 import HistoryEvent, UpdateRequest


@dataclass(frozen=True, slots=True)
class Activation:
    """Events that workflow code sees at once.

    Attributes:
        events: In order; for every activation but the first they begin with the end of the task
            before and the events of its commands.
        started: The start of the task in which the code sees them: the last of the events. None in
            the last activation of a history that does not end in a task: the code does not see it.
        is_replay: The task was completed before, so its commands are in the history.
        updates: Those that the code accepted then.
    """

    events: Sequence[HistoryEvent]
    started: HistoryEvent | None
    is_replay: bool
    _history: Sequence[HistoryEvent]
    _end: int
    updates: list[UpdateRequest] = field(default_factory=list[UpdateRequest])

    @property
    def last_event_id(self) -> int:
        """The id of the last of the events."""
        return self.events[-1].event_id

    @property
    def build_id(self) -> str:
        """Of a task that was completed before: whose worker did it; empty where it said none."""
        completed = self._history[self._end]
        return completed.workflow_task_completed_event_attributes.worker_version

    def markers_ahead(self) -> Iterator[HistoryEvent]:
        """The markers that the code gave in the task, when it was completed."""
        for event in itertools.islice(self._history, self._end, None):
            if event.event_type == history_pb2.EVENT_TYPE_WORKFLOW_TASK_STARTED:
                return
            if event.event_type == history_pb2.EVENT_TYPE_MARKER_RECORDED:
                yield event


def activations_of(events: Sequence[HistoryEvent]) -> Sequence[Activation]:
    """Cut events that begin with the first of a run, or right after an activation cut before."""
    activations: list[Activation] = []
    begin = 0
    last = len(events) - 1
    for index, event in enumerate(events):
        kind = event.event_type
        if kind == history_pb2.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED and activations:
            accepted = event.workflow_execution_update_accepted_event_attributes
            activations[-1].updates.append(accepted.accepted_request)
        if kind != history_pb2.EVENT_TYPE_WORKFLOW_TASK_STARTED:
            continue
        is_last = index == last
        if is_last or _completes(events[index + 1]):
            activations.append(
                Activation(events[begin : index + 1], event, not is_last, events, index + 1)
            )
            begin = index + 1
    if begin <= last:
        activations.append(Activation(events[begin:], None, True, events, len(events)))
    return activations


def _completes(event: HistoryEvent) -> bool:
    return event.event_type == history_pb2.EVENT_TYPE_WORKFLOW_TASK_COMPLETED
