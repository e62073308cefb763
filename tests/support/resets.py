"""New runs made of a run in a `RunDriver`, as a reset or a fork makes them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from aetheris.api.v1 import history_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.machines.lifecycle.start import new_state
from aetheris_server.history.state.reset.new_run import NewRun, NewRunBuilder
from aetheris_server.history.state.run import RunKey, RunState
from tests.support.runs import KEY, RunDriver

NEW_KEY = RunKey(KEY.namespace_id, KEY.workflow_id, "new-run")
FORK_KEY = RunKey(KEY.namespace_id, "fork", "new-run")


def carried_over(state: RunState) -> dict[str, Any]:
    """What of a state a new run has as well that begins with the same events."""
    return {
        "previous_started_event_id": state.previous_started_event_id,
        "last_completed_event_id": state.last_completed_event_id,
        "unhandled_signal_count": state.unhandled_signal_count,
        "activities": {id_: a.scheduled.activity_id for id_, a in state.activities.items()},
        "activity_ids": dict(state.activity_ids),
        "cancels": {
            id_: open_.cancel_requested_event_id for id_, open_ in state.activities.items()
        },
        "timers": {id_: (t.started_event_id, t.fire_time) for id_, t in state.timers.items()},
        "request_ids": set(state.request_ids),
        "signal_count": state.signal_count,
        "cancel_requested": state.cancel_requested,
        "cancel_request_id": state.cancel_request_id,
    }


def started_events(run: RunDriver) -> list[history_pb2.HistoryEvent]:
    """The starts of the workflow tasks that the history has."""
    type_ = history_pb2.EVENT_TYPE_WORKFLOW_TASK_STARTED
    return [event for event in run.history if event.event_type == type_]


class _Folded:
    """Folds the records of a new run, and keeps them."""

    def __init__(self, key: RunKey) -> None:
        self.records: list[log_pb2.LogRecord] = []
        self._key = key

    def take(self, record: log_pb2.LogRecord) -> RunState:
        self.records.append(record)
        return fold(self.records, self._key)


def builder_of(
    run: RunDriver,
    started_event_id: int,
    *excluded: "workflow_service_pb2.ReapplyExclude.ValueType",
    key: RunKey = NEW_KEY,
    later: Sequence[RunDriver] = (),
    folded: _Folded | None = None,
) -> NewRunBuilder:
    """One that has seen all of a run, and of those that follow it."""
    new_run = NewRun(key, KEY, started_event_id, excluded, "why", "who", "reset-1")
    builder = NewRunBuilder(
        new_run, run.now + timedelta(microseconds=1), (folded or _Folded(key)).take
    )
    for record in run.records:
        builder.take(record)
    for other in later:
        for record in other.records:
            builder.later.take(record, record.events, of_base=False)
    builder.later.end_run(is_buffer_flushed=False)
    return builder


def make_records(
    run: RunDriver, started_event_id: int, *excluded: Any, **options: Any
) -> list[log_pb2.LogRecord]:
    """The records of the new run."""
    folded = _Folded(options.get("key", NEW_KEY))
    builder = builder_of(run, started_event_id, *excluded, folded=folded, **options)
    last = builder.finish(builder.start_time)
    return [*folded.records, last]


def fold(records: Sequence[log_pb2.LogRecord], key: RunKey = NEW_KEY) -> RunState:
    """The state that a host gets from a log."""
    state = new_state(key, records[0])
    for record in records:
        apply(state, record, record.SerializeToString())
    return state


def names(events: Sequence[history_pb2.HistoryEvent]) -> list[str]:
    """The types of events, without their prefix."""
    return [
        history_pb2.EventType.Name(event.event_type).removeprefix("EVENT_TYPE_") for event in events
    ]
