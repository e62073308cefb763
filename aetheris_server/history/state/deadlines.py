"""When time alone changes a run, and what it changes.

Durable deadlines follow from the state, by the wall clock; they survive a crash through the
executions row's wake_time. Those of tasks in flight follow from `Inflight`, by the clock for
intervals, and die with it. Neither is ever a window of time that has passed: what is owed is what
the state says and has not been done, so that no step of the wall clock skips anything.
"""

from datetime import datetime

from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.draft import Draft
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.registry import RUN_MACHINES, fact_name
from aetheris_server.history.state.run import RunState


def next_deadline(state: RunState, inflight: Inflight, now: datetime) -> datetime | None:
    """The first durable deadline that nobody has met yet; None if there is none.

    Not later than `now` only where something is due.
    """
    if not state.is_open:
        return None
    moments: list[datetime] = []
    for deadlines in RUN_MACHINES.deadlines:
        moments.extend(deadlines(state, inflight, now))
    return min(moments, default=None)


def next_inflight_deadline(state: RunState, inflight: Inflight, at: float) -> float | None:
    """The first deadline later than `at` of what workers have, or may have had; None for none."""
    moments: list[float] = []
    for deadlines in RUN_MACHINES.inflight_deadlines:
        moments.extend(moment for moment in deadlines(state, inflight) if moment > at)
    return min(moments, default=None)


def decide_due(
    state: RunState, inflight: Inflight, now: datetime, at: float
) -> log_pb2.LogRecord | None:
    """Everything that is due, as one record; None if nothing is.

    An attempt whose backoff is over changes nothing: see `obligations.take_due_retries`.

    Args:
        state: The run's.
        inflight: What workers have of it.
        now: The time by the wall clock, for durable deadlines.
        at: The time by the clock for intervals, for those of tasks in flight.
    """
    if not state.is_open:
        return None
    draft = Draft(state, inflight, now)
    for decide in RUN_MACHINES.decide_due:
        decide(draft, state, inflight, at)
        if draft.is_closing:
            break
    return None if draft.is_empty else draft.record


def new_deadline(state: RunState, record: log_pb2.LogRecord) -> datetime | None:
    """The first durable deadline that a record, already applied, has brought.

    Costs by the record, not by the state: a run with thousands of timers pays for each once.

    Returns:
        It, or None if the record brought none.
    """
    moments: list[datetime] = []
    by_event = RUN_MACHINES.event_deadlines
    for event in record.events:
        brought = by_event.get(event.event_type)
        if brought is not None:
            moments.extend(brought(state, event))
    for fact in record.facts:
        name = fact_name(fact)
        brought = RUN_MACHINES.fact_deadlines.get(name) if name is not None else None
        if brought is not None:
            moments.extend(brought(state, fact))
    return min(moments, default=None)
