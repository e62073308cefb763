"""Reading aggregates back: a snapshot and the log behind it, folded, and checked as it is.

A log that is not whole, or that a newer program has written, is refused and never guessed at. A
snapshot is only a cache: one that cannot be used is deleted, and the log folded from its start.
"""

from collections.abc import AsyncGenerator, Sequence

from aetheris.server.v1 import log_pb2
from aetheris_server.errors import BrokenLogError, RunUnreadableError, StorageUnavailableError
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.index import IndexEntry
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.kind import Kind
from aetheris_server.history.aggregates.kinds import Kinds
from aetheris_server.history.aggregates.own_time import OwnTime
from aetheris_server.history.aggregates.records import decode_record
from aetheris_server.history.times import from_timestamp
from aetheris_server.storage.database import Database
from aetheris_server.storage.log import RunRecord, load_run, load_runs
from aetheris_server.storage.snapshots import SnapshotRow, delete_snapshot, load_snapshots
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_REFUSED_SNAPSHOTS = counter(
    "refused_snapshots", "Snapshots that could not be used, though the log behind them was whole."
)

_MAX_PART_BYTES = 16 * 1024 * 1024


async def load_one(db: Database, kind: Kind, shard_id: int, key: AggregateKey) -> Aggregate | None:
    """Fold an aggregate from its newest snapshot and the records behind it; None if there is none
    of that key in the shard.

    Raises:
        BrokenLogError: What is stored of it does not fit together.
        UnknownRecordError: A newer program wrote some of it.
        StorageUnavailableError: Postgres does not answer.
    """
    place = (shard_id, key.id)
    entry = next(iter(await kind.index.load(db, [place])), None)
    if entry is None or entry.key != key:
        return None
    snapshot = next(iter(await load_snapshots(db, [place])), None)
    records = await load_run(db, shard_id, key.id, _after_seq(snapshot))
    return await _assemble(db, kind, entry, snapshot, records)


async def load_several(
    db: Database, kinds: Kinds, wanted: Sequence[tuple[int, AggregateKey]]
) -> AsyncGenerator[list[Aggregate]]:
    """Fold several aggregates, given by shard and key, in parts that are each three statements.

    A part has at most as many bytes as are good to have in memory at once, and at least one of
    them. One that is not there, or that cannot be folded, is left out: `load_one` says why.

    Raises:
        StorageUnavailableError: Postgres does not answer.
    """
    for kind in kinds.all():
        of_kind = [(shard_id, key.id) for shard_id, key in wanted if key.kind == kind.name]
        if not of_kind:
            continue
        part: list[tuple[int, str]] = []
        byte_count = 0
        for shard_id, id_, weight in await kind.index.weigh(db, of_kind):
            if part and byte_count + weight > _MAX_PART_BYTES:
                yield await _load_part(db, kind, part)
                part, byte_count = [], 0
            part.append((shard_id, id_))
            byte_count += weight
        if part:
            yield await _load_part(db, kind, part)


async def _load_part(db: Database, kind: Kind, ids: Sequence[tuple[int, str]]) -> list[Aggregate]:
    entries = await kind.index.load(db, ids)
    snapshots = {snapshot.run_id: snapshot for snapshot in await load_snapshots(db, ids)}
    records = await load_runs(
        db, [(shard_id, id_, _after_seq(snapshots.get(id_))) for shard_id, id_ in ids]
    )
    aggregates: list[Aggregate] = []
    for entry in entries:
        id_ = entry.key.id
        try:
            aggregates.append(
                await _assemble(db, kind, entry, snapshots.get(id_), records.get(id_, []))
            )
        except RunUnreadableError:
            # Who asks for this one alone is told.
            continue
        except StorageUnavailableError:
            raise
        except Exception:  # noqa: BLE001 - logged whole
            # One at fault must not keep the others from being loaded.
            _log.exception("an aggregate cannot be folded", kind=kind.name, id=id_)
    return aggregates


def _after_seq(snapshot: SnapshotRow | None) -> int:
    # With the record that the snapshot was made at, which says whether the two belong together.
    return snapshot.run_seq - 1 if snapshot is not None else 0


async def _assemble(
    db: Database,
    kind: Kind,
    entry: IndexEntry,
    snapshot: SnapshotRow | None,
    records: Sequence[RunRecord],
) -> Aggregate:
    """Fold an aggregate; where its snapshot is at fault, from the start of the log.

    A snapshot made at a record that the log does not have is no such fault: it tells that records
    have been lost.
    """
    if snapshot is None:
        return _fold_entry(kind, entry, None, records)
    try:
        return _fold_entry(kind, entry, snapshot, records)
    except Exception as error:
        whole = await load_run(db, entry.shard_id, entry.key.id)
        aggregate = _fold_entry(kind, entry, None, whole)
        if aggregate.seq < snapshot.run_seq:
            raise
        _log.warning(
            "a snapshot is refused, and its aggregate folded from the start of the log",
            kind=kind.name,
            id=entry.key.id,
            seq=snapshot.run_seq,
            exc_info=error,
        )
    _REFUSED_SNAPSHOTS.inc()
    # Otherwise it would be refused at every load until a newer one took its place.
    await delete_snapshot(db, snapshot)
    return aggregate


def _fold_entry(
    kind: Kind, entry: IndexEntry, snapshot: SnapshotRow | None, records: Sequence[RunRecord]
) -> Aggregate:
    aggregate = fold(kind, entry.key, entry.shard_id, snapshot, records)
    _check_entry(aggregate, entry)
    aggregate.wake_time = entry.wake_time
    return aggregate


def fold(
    kind: Kind,
    key: AggregateKey,
    shard_id: int,
    snapshot: SnapshotRow | None,
    records: Sequence[RunRecord],
) -> Aggregate:
    """An aggregate from a snapshot, or from nothing, and its log.

    Args:
        kind: Its kind.
        key: Its key.
        shard_id: Its shard.
        snapshot: Its snapshot, if it has one.
        records: All from the one on that the snapshot was made at; without one, all.

    Raises:
        BrokenLogError: A record is missing, altered or out of place.
        UnknownRecordError: A newer program wrote one.
    """
    newest: log_pb2.LogRecord | None = None
    if snapshot is not None:
        _check_snapshot(snapshot, records)
        aggregate = kind.restore(key, shard_id, snapshot.run_seq, snapshot.hash, snapshot.state)
        newest = decode_record(key.id, snapshot.run_seq, records[0].record)
        records = records[1:]
    else:
        aggregate = _begin(kind, key, shard_id, records)
    aggregate.note_snapshot()
    for record in records:
        newest = fold_record(aggregate, record)
    if newest is not None:
        aggregate.time = OwnTime(from_timestamp(newest.time))
    aggregate.note_on_disk(aggregate.next_event_id)
    return aggregate


def _check_snapshot(snapshot: SnapshotRow, records: Sequence[RunRecord]) -> None:
    found = next(((record.run_seq, record.hash) for record in records), None)
    if found != (snapshot.run_seq, snapshot.hash):
        raise BrokenLogError(
            snapshot.run_id,
            snapshot.run_seq,
            f"hash {snapshot.hash.hex()}, as its snapshot says",
            f"record {found[0]} with {found[1].hex()}" if found is not None else "no record",
        )


def _begin(kind: Kind, key: AggregateKey, shard_id: int, records: Sequence[RunRecord]) -> Aggregate:
    if not records or records[0].run_seq != 1:
        found = f"record {records[0].run_seq}" if records else "no record"
        raise BrokenLogError(key.id, 1, "record 1", found)
    return kind.begin(key, shard_id, decode_record(key.id, 1, records[0].record))


def fold_record(aggregate: Aggregate, stored: RunRecord) -> log_pb2.LogRecord:
    """Fold the next record into an aggregate, and return it.

    Raises:
        BrokenLogError: It is not the next, or was altered; the state is spoilt.
        UnknownRecordError: A newer program wrote it; the state is spoilt.
    """
    id_, seq = aggregate.key.id, aggregate.seq + 1
    if stored.run_seq != seq:
        raise BrokenLogError(id_, seq, f"record {seq}", f"record {stored.run_seq}")
    record = decode_record(id_, seq, stored.record)
    _check_events(aggregate, record, stored)
    try:
        aggregate.apply(record, stored.record)
    except RunUnreadableError:
        raise
    except Exception as error:
        found = f"one that does not fit those before it: {error!r}"
        raise BrokenLogError(id_, seq, "a record of this log", found) from error
    if aggregate.hash != stored.hash:
        raise BrokenLogError(id_, seq, f"hash {aggregate.hash.hex()}", f"hash {stored.hash.hex()}")
    return record


def _check_events(aggregate: Aggregate, record: log_pb2.LogRecord, stored: RunRecord) -> None:
    first_id = aggregate.next_event_id
    found = [event.event_id for event in record.events]
    numbered = list(range(first_id, first_id + len(found)))
    if found != numbered or (stored.first_event_id, stored.event_count) != (first_id, len(found)):
        raise BrokenLogError(
            aggregate.key.id,
            aggregate.seq + 1,
            f"{len(found)} events from {first_id} on",
            f"{found}, and {stored.event_count} from {stored.first_event_id} on by its row",
        )


def _check_entry(aggregate: Aggregate, entry: IndexEntry) -> None:
    """Check that the log does not end before what its row, an index of it, says."""
    event_count = aggregate.next_event_id - 1
    is_behind = event_count < entry.event_count
    if is_behind or (aggregate.is_open and not entry.is_open):
        raise BrokenLogError(
            aggregate.key.id,
            aggregate.seq + 1,
            f"{entry.event_count} events, {_openness(entry.is_open)}, as its row says",
            f"the log's end after {event_count} events, {_openness(aggregate.is_open)}",
        )


def _openness(is_open: bool) -> str:
    return "open" if is_open else "closed"
