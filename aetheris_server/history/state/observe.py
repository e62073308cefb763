"""What workers have of a run, followed from record to record."""

from datetime import datetime

from aetheris.server.v1 import log_pb2
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.registry import RUN_MACHINES, fact_name
from aetheris_server.history.state.run import RunState


def observe(state: RunState, inflight: Inflight, record: log_pb2.LogRecord) -> None:
    """Forget the tasks that a record, already applied, has closed; note those that back off."""
    if not state.is_open:
        inflight.clear()
        return
    observers = RUN_MACHINES.event_observers
    for event in record.events:
        change = observers.get(event.event_type)
        if change is not None:
            change(inflight, event)
    for fact in record.facts:
        name = fact_name(fact)
        if name == "event_buffered":
            change = observers.get(fact.event_buffered.event_type)
            if change is not None:
                change(inflight, fact.event_buffered)
        elif name is not None and (change := RUN_MACHINES.fact_observers.get(name)) is not None:
            change(inflight, fact)


def restore_inflight(
    state: RunState, inflight: Inflight, now: datetime, at: float, taken_at: float | None = None
) -> None:
    """Take what the state says into `inflight` after a load.

    The durable starts; silence is counted from now on. And what backs off: which of it was offered
    before is not known, so that what is due is offered once more.

    Args:
        state: As loaded.
        inflight: Changed in place.
        now: The time.
        at: The same, by the clock for intervals.
        taken_at: When this host took the shard; None if nobody had it before.
    """
    inflight.taken_at = taken_at
    if state.is_open:
        for restore in RUN_MACHINES.restore:
            restore(state, inflight, now, at)
