"""Reading runs back: a snapshot and the log behind it, folded, and checked as it is.

A log that is not whole, or that a newer program has written, is refused and never guessed at. A
snapshot is only a cache: one that cannot be used is deleted, and the log folded from its start.
"""

from collections.abc import AsyncGenerator, Sequence

from aetheris.server.v1 import log_pb2
from aetheris_server.errors import (
    BrokenLogError,
    RunUnreadableError,
    StorageUnavailableError,
    WorkflowNotFoundError,
)
from aetheris_server.history.run import LoadedRun
from aetheris_server.history.run_time import RunTime
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.machines.lifecycle.start import new_state
from aetheris_server.history.state.records import decode_record
from aetheris_server.history.state.run import RunKey, RunState
from aetheris_server.history.state.snapshot import from_snapshot
from aetheris_server.history.state.times import from_timestamp
from aetheris_server.storage.database import Database
from aetheris_server.storage.execution_rows import ExecutionRow
from aetheris_server.storage.executions import load_execution, load_executions, weigh_runs
from aetheris_server.storage.log import RunRecord, load_run, load_runs
from aetheris_server.storage.snapshots import SnapshotRow, delete_snapshot, load_snapshots
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_REFUSED_SNAPSHOTS = counter(
    "refused_snapshots", "Snapshots that could not be used, though the log behind them was whole."
)

_MAX_PART_BYTES = 16 * 1024 * 1024


async def load_run_state(db: Database, shard_id: int, namespace_id: str, run_id: str) -> LoadedRun:
    """Fold a run from its newest snapshot and the records behind it.

    Raises:
        WorkflowNotFoundError: The namespace has no such run in this shard.
        BrokenLogError: What is stored of it does not fit together.
        UnknownRecordError: A newer program wrote some of it.
        StorageUnavailableError: Postgres does not answer.
    """
    row = await load_execution(db, shard_id, namespace_id, run_id)
    if row is None:
        raise WorkflowNotFoundError("", run_id)
    snapshot = next(iter(await load_snapshots(db, [(shard_id, run_id)])), None)
    records = await load_run(db, shard_id, run_id, _after_seq(snapshot))
    return await _assemble(db, row, snapshot, records)


async def load_run_states(
    db: Database, wanted: Sequence[tuple[int, RunKey]]
) -> AsyncGenerator[list[LoadedRun]]:
    """Fold several runs, given by shard and key, in parts that are each three statements.

    A part has at most as many bytes as are good to have in memory at once, and at least one run.
    One that is not there, or that cannot be folded, is left out: `load_run_state` says why.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    weights = await weigh_runs(db, [(shard_id, key.run_id) for shard_id, key in wanted])
    part: list[tuple[int, str]] = []
    byte_count = 0
    for shard_id, run_id, weight in weights:
        if part and byte_count + weight > _MAX_PART_BYTES:
            yield await _load_part(db, part)
            part, byte_count = [], 0
        part.append((shard_id, run_id))
        byte_count += weight
    if part:
        yield await _load_part(db, part)


async def _load_part(db: Database, ids: Sequence[tuple[int, str]]) -> list[LoadedRun]:
    rows = await load_executions(db, ids)
    snapshots = {snapshot.run_id: snapshot for snapshot in await load_snapshots(db, ids)}
    records = await load_runs(
        db,
        [(shard_id, run_id, _after_seq(snapshots.get(run_id))) for shard_id, run_id in ids],
    )
    runs: list[LoadedRun] = []
    for row in rows:
        try:
            snapshot = snapshots.get(row.run_id)
            runs.append(await _assemble(db, row, snapshot, records.get(row.run_id, [])))
        except RunUnreadableError:
            # Who asks for this one alone is told.
            continue
        except StorageUnavailableError:
            raise
        except Exception:  # noqa: BLE001 - logged whole
            # One run at fault must not keep the others from being loaded.
            _log.exception("a run cannot be folded", run_id=row.run_id)
    return runs


def _after_seq(snapshot: SnapshotRow | None) -> int:
    # With the record that the snapshot was made at, which says whether the two belong together.
    return snapshot.run_seq - 1 if snapshot is not None else 0


async def _assemble(
    db: Database, row: ExecutionRow, snapshot: SnapshotRow | None, records: Sequence[RunRecord]
) -> LoadedRun:
    """Fold a run; where its snapshot is at fault, from the start of the log.

    A snapshot made at a record that the log does not have is no such fault: it tells that records
    have been lost.
    """
    if snapshot is None:
        return _fold_row(row, None, records)
    try:
        return _fold_row(row, snapshot, records)
    except Exception as error:
        run = _fold_row(row, None, await load_run(db, row.shard_id, row.run_id))
        if run.state.run_seq < snapshot.run_seq:
            raise
        _log.warning(
            "a snapshot is refused, and its run folded from the start of the log",
            run_id=row.run_id,
            run_seq=snapshot.run_seq,
            exc_info=error,
        )
    _REFUSED_SNAPSHOTS.inc()
    # Otherwise it would be refused at every load until a newer one took its place.
    await delete_snapshot(db, snapshot)
    return run


def _fold_row(
    row: ExecutionRow, snapshot: SnapshotRow | None, records: Sequence[RunRecord]
) -> LoadedRun:
    key = RunKey(row.namespace_id, row.workflow_id, row.run_id)
    run = fold(key, row.shard_id, snapshot, records)
    _check_row(run.state, row)
    run.wake_time = row.wake_time
    return run


def fold(
    key: RunKey, shard_id: int, snapshot: SnapshotRow | None, records: Sequence[RunRecord]
) -> LoadedRun:
    """A run from a snapshot, or from nothing, and its log.

    The events behind the snapshot are kept in the run's tail.

    Args:
        key: The run's.
        shard_id: The run's.
        snapshot: The run's, if it has one.
        records: All from the one on that the snapshot was made at; without one, all.

    Raises:
        BrokenLogError: A record is missing, altered or out of place.
        UnknownRecordError: A newer program wrote one.
    """
    newest: log_pb2.LogRecord | None = None
    if snapshot is not None:
        state = _restore(key, snapshot, records)
        newest = decode_record(key.run_id, snapshot.run_seq, records[0].record)
        records = records[1:]
    else:
        state = _begin(key, records)
    run = LoadedRun(shard_id, state)
    run.note_snapshot()
    for record in records:
        newest = _fold_record(run, record)
    if newest is not None:
        run.time = RunTime(from_timestamp(newest.time))
    run.committed_event_id = state.next_event_id
    return run


def _restore(key: RunKey, snapshot: SnapshotRow, records: Sequence[RunRecord]) -> RunState:
    found = next(((record.run_seq, record.hash) for record in records), None)
    if found != (snapshot.run_seq, snapshot.hash):
        raise BrokenLogError(
            key.run_id,
            snapshot.run_seq,
            f"hash {snapshot.hash.hex()}, as its snapshot says",
            f"record {found[0]} with {found[1].hex()}" if found is not None else "no record",
        )
    return from_snapshot(key, snapshot.run_seq, snapshot.hash, snapshot.state)


def _begin(key: RunKey, records: Sequence[RunRecord]) -> RunState:
    if not records or records[0].run_seq != 1:
        found = f"record {records[0].run_seq}" if records else "no record"
        raise BrokenLogError(key.run_id, 1, "record 1", found)
    events = decode_record(key.run_id, 1, records[0].record).events
    if not events or not events[0].HasField("workflow_execution_started_event_attributes"):
        raise BrokenLogError(
            key.run_id, 1, "the event that starts the run", f"{len(events)} events"
        )
    return new_state(key, events[0])


def _fold_record(run: LoadedRun, stored: RunRecord) -> log_pb2.LogRecord:
    state, run_id, run_seq = run.state, run.key.run_id, run.state.run_seq + 1
    if stored.run_seq != run_seq:
        raise BrokenLogError(run_id, run_seq, f"record {run_seq}", f"record {stored.run_seq}")
    record = decode_record(run_id, run_seq, stored.record)
    _check_events(run_id, record, stored, state)
    try:
        apply(state, record, stored.record)
    except RunUnreadableError:
        raise
    except Exception as error:
        found = f"one that does not fit those before it: {error!r}"
        raise BrokenLogError(run_id, run_seq, "a record of this run", found) from error
    if state.hash != stored.hash:
        raise BrokenLogError(
            run_id, run_seq, f"hash {state.hash.hex()}", f"hash {stored.hash.hex()}"
        )
    run.tail.extend(list(record.events))
    return record


def _check_events(
    run_id: str, record: log_pb2.LogRecord, stored: RunRecord, state: RunState
) -> None:
    first_id = state.next_event_id
    found = [event.event_id for event in record.events]
    numbered = list(range(first_id, first_id + len(found)))
    if found != numbered or (stored.first_event_id, stored.event_count) != (first_id, len(found)):
        raise BrokenLogError(
            run_id,
            state.run_seq + 1,
            f"{len(found)} events from {first_id} on",
            f"{found}, and {stored.event_count} from {stored.first_event_id} on by its row",
        )


def _check_row(state: RunState, row: ExecutionRow) -> None:
    """Check that the log does not end before what the run's row, an index of it, says."""
    event_count = state.next_event_id - 1
    is_behind = event_count < row.history_length
    if is_behind or (row.close_time is not None and state.is_open):
        raise BrokenLogError(
            state.key.run_id,
            state.run_seq + 1,
            f"{row.history_length} events and status {row.status}, as the run's row says",
            f"the log's end after {event_count} events with status {state.status}",
        )
