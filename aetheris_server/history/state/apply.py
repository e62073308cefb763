"""The only way that a `RunState` changes.

`apply(state, record)` is the same on the way to the log and on the way back from it. What each
event and fact changes is its machine's. An event that was buffered is applied twice, when it is
buffered and when it gets its id; each machine bears that. What this program does not know it
refuses: a state that leaves something out is a wrong state.
"""

from aetheris.api.v1 import history_pb2
from aetheris.server.v1 import log_pb2
from aetheris_server.errors import UnknownRecordError
from aetheris_server.history.aggregates.records import chain_hash
from aetheris_server.history.state.machine import unknown_record
from aetheris_server.history.state.registry import RUN_MACHINES, fact_name
from aetheris_server.history.state.run import RunState


def apply(state: RunState, record: log_pb2.LogRecord, stored: bytes) -> None:
    """Take one record into the state.

    Args:
        state: Changed in place.
        record: The run's next record.
        stored: Its bytes, as they are or will be in the log.

    Raises:
        UnknownRecordError: It has something that a newer program has written; the state is spoilt.
    """
    changes = RUN_MACHINES.events
    for event in record.events:
        state.next_event_id = event.event_id + 1
        change = changes.get(event.event_type)
        if change is None:
            raise _unknown_event(state, event)
        change(state, event)
    for fact in record.facts:
        _apply_fact(state, fact, record)
    if state.close_event is not None:
        for close in RUN_MACHINES.close:
            close(state)
    state.run_seq += 1
    state.hash = chain_hash(state.hash, stored)
    state.history_bytes += len(stored)


def _unknown_event(state: RunState, event: history_pb2.HistoryEvent) -> UnknownRecordError:
    return unknown_record(state, f"an event of type {event.event_type}")


def _apply_fact(state: RunState, fact: log_pb2.Fact, record: log_pb2.LogRecord) -> None:
    """The buffer is no machine's: events of all of them wait in it."""
    name = fact_name(fact)
    if name == "event_buffered":
        _buffer(state, fact.event_buffered)
    elif name == "buffer_flushed":
        state.buffered_events.clear()
        state.buffered_bytes = 0
    elif name is not None and (change := RUN_MACHINES.facts.get(name)) is not None:
        change(state, fact, record.time)
    else:
        raise unknown_record(state, f"the fact {name}")


def _buffer(state: RunState, event: history_pb2.HistoryEvent) -> None:
    state.buffered_events.append(event)
    state.buffered_bytes += event.ByteSize()
    change = RUN_MACHINES.events.get(event.event_type)
    if change is None:
        raise _unknown_event(state, event)
    change(state, event)
