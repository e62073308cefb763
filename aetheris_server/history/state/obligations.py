"""What a run's state calls for outside the run: tasks to offer to workers, other runs to call.

`obligations` derives all of it from the state, so that nothing about dispatch has to be written:
after a crash it is derived again. `new_obligations` is the part of it that one record has brought.
A run that has closed owes no task; what it still owes other runs, its machines say apart.
"""

from datetime import datetime

from aetheris.server.v1 import log_pb2, matching_service_pb2
from aetheris_server.history.aggregates.obligation import Obligation
from aetheris_server.history.state.inflight import Inflight
from aetheris_server.history.state.registry import RUN_MACHINES, fact_name
from aetheris_server.history.state.run import RunState


def owes(state: RunState) -> bool:
    """Whether a crash now would leave something to offer again."""
    for is_owing in RUN_MACHINES.owes if state.is_open else RUN_MACHINES.closed_owes:
        if is_owing(state):
            return True
    return False


def obligations(state: RunState, inflight: Inflight, now: datetime) -> list[Obligation]:
    """Everything that is due and that nobody has."""
    if not state.is_open:
        return _of_closed(state)
    return [
        owed for of_machine in RUN_MACHINES.obligations for owed in of_machine(state, inflight, now)
    ]


def _of_closed(state: RunState) -> list[Obligation]:
    return [owed for of_machine in RUN_MACHINES.closed_obligations for owed in of_machine(state)]


def new_obligations(
    state: RunState, inflight: Inflight, record: log_pb2.LogRecord, now: datetime
) -> list[Obligation]:
    """What a record, already applied, has brought and is due at once.

    The caller offers it: tasks do not back off from here on.
    """
    if not state.is_open and record.events:
        # It has just closed.
        return _of_closed(state)
    owed: list[Obligation] = []
    by_event = RUN_MACHINES.event_obligations
    for event in record.events:
        brought = by_event.get(event.event_type)
        if brought is not None:
            owed.extend(brought(state, inflight, event, now))
    for fact in record.facts:
        name = fact_name(fact)
        brought = RUN_MACHINES.fact_obligations.get(name) if name is not None else None
        if brought is not None:
            owed.extend(brought(state, inflight, fact, now))
    return owed


def take_due_retries(
    state: RunState, inflight: Inflight, now: datetime
) -> list[matching_service_pb2.TaskRef]:
    """The tasks that backed off until now. The caller offers them: from here on they do not."""
    return [ref for take in RUN_MACHINES.take_due for ref in take(state, inflight, now)]
