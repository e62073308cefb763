"""A state as bytes and back.

The fold of a run's log from a snapshot on equals the fold from its start.
"""

from google.protobuf.message import DecodeError

from aetheris.server.v1 import state_pb2
from aetheris_server.errors import BrokenLogError, UnknownRecordError
from aetheris_server.history.aggregates.records import find_unknown
from aetheris_server.history.state.registry import RUN_MACHINES
from aetheris_server.history.state.run import RunKey, RunState
from aetheris_server.history.times import from_timestamp, to_timestamp

SNAPSHOT_VERSION = 1
"""Of the form that is written. It grows when a program from before could not read it right."""


def to_snapshot(state: RunState) -> bytes:
    """Everything of a state but its key, its run_seq and its hash, which are stored beside."""
    snapshot = state_pb2.RunSnapshot(
        started=state.started,
        start_time=to_timestamp(state.start_time),
        next_event_id=state.next_event_id,
        history_bytes=state.history_bytes,
        buffered_events=state.buffered_events,
        version=SNAPSHOT_VERSION,
    )
    for save in RUN_MACHINES.save:
        save(state, snapshot)
    for name, save_part in RUN_MACHINES.save_parts.items():
        data = save_part(state)
        if data is not None:
            snapshot.parts.add(machine=name, data=data)
    return snapshot.SerializeToString(deterministic=True)


def from_snapshot(key: RunKey, run_seq: int, hash_: bytes, data: bytes) -> RunState:
    """The state that `to_snapshot` was given.

    Raises:
        BrokenLogError: These are not the bytes of a snapshot.
        UnknownRecordError: A newer program wrote it.
    """
    try:
        snapshot = state_pb2.RunSnapshot.FromString(data)
    except DecodeError as error:
        found = f"{len(data)} bytes: {error}"
        raise BrokenLogError(key.run_id, run_seq, "a snapshot", found) from None
    unknown = _find_unknown(snapshot)
    if unknown is not None:
        raise UnknownRecordError(key.run_id, run_seq, f"in the snapshot, {unknown}")
    state = RunState(
        key=key,
        started=snapshot.started,
        start_time=from_timestamp(snapshot.start_time),
        first_task_time=None,
        run_deadline_time=None,
        run_seq=run_seq,
        hash=hash_,
        next_event_id=snapshot.next_event_id,
        history_bytes=snapshot.history_bytes,
        buffered_events=list(snapshot.buffered_events),
        buffered_bytes=sum(event.ByteSize() for event in snapshot.buffered_events),
    )
    for load in RUN_MACHINES.load:
        load(state, snapshot)
    for part in snapshot.parts:
        RUN_MACHINES.load_parts[part.machine](state, part.data)
    return state


def _find_unknown(snapshot: state_pb2.RunSnapshot) -> str | None:
    if snapshot.version > SNAPSHOT_VERSION:
        return f"version {snapshot.version}"
    for find_in_machine in RUN_MACHINES.find_unknown:
        if (unknown := find_in_machine(snapshot)) is not None:
            return unknown
    for part in snapshot.parts:
        if part.machine not in RUN_MACHINES.load_parts:
            return f"the part of a machine {part.machine!r}"
        if (unknown := find_unknown(part)) is not None:
            return unknown
    return find_unknown(snapshot)
