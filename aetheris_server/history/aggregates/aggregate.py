"""An aggregate in memory: what the engine, recovery and the cache need of any kind.

A kind says what differs by the methods that it overrides; all of them are pure but for what they
change of the aggregate itself, and none awaits. What it leaves out costs nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime

from aetheris.server.v1 import log_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall, CallOutcome
from aetheris_server.history.aggregates.awaited import Awaited
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.obligation import Obligation
from aetheris_server.history.aggregates.own_time import OwnTime
from aetheris_server.storage.aggregate_rows import (
    INSERT_AGGREGATES,
    UPDATE_AGGREGATES,
    AggregateRow,
    AggregateUpdate,
)
from aetheris_server.storage.row_changes import RowChanges

FIXED_BYTES = 4096
"""What an aggregate takes in memory whatever its state is, about."""

# So much of a log is written between snapshots at most, or twice the snapshot where that is more.
_SNAPSHOT_MIN_BYTES = 16 * 1024 * 1024
# Well below what a column takes. An aggregate with a larger state has no snapshots.
_SNAPSHOT_MAX_BYTES = 64 * 1024 * 1024


class Aggregate(Awaited, ABC):
    """One aggregate in the cache of the host that has its shard.

    Attributes:
        time: Its own, which all that happens to it goes by.
        wake_time: Its row's, as far as is known: never later than the truth calls for.
        snapshot_seq: The `seq` of the newest snapshot; 0 for none.
        snapshot_bytes: The `log_bytes` of the newest snapshot; 0 for none.
        weight: What the cache has counted for it, in bytes.
        is_dropped: No longer in the cache: load it again.
    """

    __slots__ = (
        "is_dropped",
        "key",
        "shard_id",
        "snapshot_bytes",
        "snapshot_seq",
        "time",
        "wake_time",
        "weight",
    )

    def __init__(self, key: AggregateKey, shard_id: int, time: datetime) -> None:
        """Args:
        key: Of it.
        shard_id: Of its name.
        time: One that it has been at.
        """
        super().__init__()
        self.key = key
        self.shard_id = shard_id
        self.time = OwnTime(time)
        self.wake_time: datetime | None = None
        self.snapshot_seq = 0
        self.snapshot_bytes = 0
        self.weight = 0
        self.is_dropped = False

    # The fold of its log.

    @property
    @abstractmethod
    def seq(self) -> int:
        """Records so far; the next one is seq + 1."""

    @property
    @abstractmethod
    def hash(self) -> bytes:
        """The hash chain's end."""

    @property
    @abstractmethod
    def log_bytes(self) -> int:
        """What its records take, in bytes."""

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """What its state takes besides what it began with, about."""

    @property
    def close_time(self) -> datetime | None:
        """When it closed; None while it is open."""
        return None

    @property
    def is_open(self) -> bool:
        """Whether time alone may still change it. One that has closed may take records all the
        same, and may owe what it owed when it closed, and in its place what follows from an answer
        to that; one that owes nothing comes to owe nothing any more.
        """
        return self.close_time is None

    @property
    def next_event_id(self) -> int:
        """The id of its next event; 1 for a kind that has none."""
        return 1

    @abstractmethod
    def apply(self, record: log_pb2.LogRecord, stored: bytes) -> None:
        """Take its next record into the state, on the way to the log and on the way back from it.

        Args:
            record: Its next.
            stored: The record's bytes, as they are or will be in the log.

        Raises:
            UnknownRecordError: A newer program has written some of it; the state is spoilt.
        """

    def observe(self, record: log_pb2.LogRecord) -> None:
        """Follow what is known in memory alone; the record has just been applied, for the first
        time ever.
        """
        del record

    @abstractmethod
    def to_snapshot(self) -> bytes:
        """Everything of the state but its key, seq and hash, which are stored beside."""

    # Time.

    def next_deadline(self, now: datetime) -> datetime | None:
        """The first durable deadline that nobody has met yet; None if there is none.

        Not later than `now` only where something is due.
        """
        del now
        return None

    def new_deadline(self, record: log_pb2.LogRecord) -> datetime | None:
        """The first durable deadline that a record, already applied, has brought; None for none.

        Costs by the record, not by the state.
        """
        del record
        return None

    def next_inflight_deadline(self, at: float) -> float | None:
        """The first deadline later than `at` of what somebody outside has, or may have had, by the
        clock for intervals; None for none.
        """
        del at
        return None

    def decide_due(self, now: datetime, at: float) -> log_pb2.LogRecord | None:
        """Everything that is due, as one record; None if nothing is.

        Args:
            now: Its time, for durable deadlines.
            at: The same by the clock for intervals, for those of what is in flight.
        """
        del now, at
        return None

    # What it owes the outside. None of it is written: it follows from the state.

    def owes(self) -> bool:
        """Whether a crash now would leave something to do again."""
        return False

    def obligations(self, now: datetime) -> Iterable[Obligation]:
        """Everything that is due and that nobody has."""
        del now
        return ()

    def new_obligations(self, record: log_pb2.LogRecord, now: datetime) -> Iterable[Obligation]:
        """What a record, already applied, has brought and is due at once; the caller offers it."""
        del record, now
        return ()

    def take_due(self, now: datetime) -> Iterable[Obligation]:
        """What has waited for its time until now; the caller offers it."""
        del now
        return ()

    def decide_answered(
        self, call: AggregateCall, outcome: CallOutcome, now: datetime
    ) -> log_pb2.LogRecord | None:
        """Note what came of a call that it owes, which it owes no more then; None where it does not
        owe it any more.

        Args:
            call: That it owed.
            outcome: An answer, or a refusal.
            now: Its time.
        """
        del call, outcome, now
        return None

    # What begins with it.

    def begun_by(
        self, record: log_pb2.LogRecord
    ) -> Iterable[tuple[AggregateKey, log_pb2.LogRecord]]:
        """The first records of other aggregates that a record, already applied, begins: they are
        written with it, or none of them is.

        Args:
            record: Its newest.

        Returns:
            Keys with new ids, all of its own shard, and the records. They follow from the state and
            the record alone, so that whoever decides the record need not know of them.
        """
        del record
        return ()

    # Its row, by which it is found.

    def add_row(self, changes: RowChanges, owes: bool) -> None:
        """Add the row of one whose first record has just been applied; `wake_time` is set.

        Args:
            changes: Where to.
            owes: What the row is to say of that: False where the log behind the watermark says it.
        """
        changes.add(
            INSERT_AGGREGATES,
            AggregateRow(
                shard_id=self.shard_id,
                kind=self.key.kind,
                namespace_id=self.key.namespace_id,
                name=self.key.name,
                id=self.key.id,
                wake_time=self.wake_time if self.is_open else None,
                close_time=self.close_time,
                owes=owes,
            ),
        )

    def changes_row(self) -> bool:
        """Whether the newest record has changed more of what the row says than its times, what it
        owes, and how long the log is.
        """
        return False

    def add_update(self, changes: RowChanges, owes: bool) -> None:
        """Add what its row says from now on.

        Args:
            changes: Where to.
            owes: What `owes` says.
        """
        changes.add(
            UPDATE_AGGREGATES,
            AggregateUpdate(
                shard_id=self.shard_id,
                id=self.key.id,
                wake_time=self.wake_time if self.is_open else None,
                close_time=self.close_time,
                owes=owes,
            ),
        )

    def project(self, record: log_pb2.LogRecord, changes: RowChanges) -> None:
        """Add the rows that a record, already applied, brings beside its own.

        Args:
            record: Its newest.
            changes: Where to.
        """
        del record, changes

    # In memory.

    @property
    def is_idle(self) -> bool:
        """Whether nobody outside has anything of it, as far as memory tells."""
        return True

    @property
    def was_elsewhere(self) -> bool:
        """Whether another host had it, so that somebody outside may have something of it still."""
        return False

    def restore(self, now: datetime, at: float, taken_at: float | None) -> None:
        """Follow from the state what is known in memory alone, after a load.

        Args:
            now: Its time.
            at: The same by the clock for intervals.
            taken_at: When this host took the shard; None if nobody had it before.
        """
        del now, at, taken_at

    def decide_restored(self, now: datetime) -> log_pb2.LogRecord | None:
        """What a load has made due at once; None for nothing."""
        del now
        return None

    def note_on_disk(self, next_event_id: int) -> None:
        """Take note that a record is on disk, and what `next_event_id` was after it."""
        del next_event_id

    @property
    def is_evictable(self) -> bool:
        """Whether nothing would be lost, and nobody kept waiting, by dropping it from memory."""
        return self.is_committed and not self.is_watched and self.is_idle

    def estimate_bytes(self) -> int:
        """Roughly what it takes in memory."""
        return FIXED_BYTES + self.state_bytes

    def needs_snapshot(self, interval_records: int) -> bool:
        """Whether so much has come since the newest snapshot that reading it back takes long."""
        byte_count = self.log_bytes - self.snapshot_bytes
        is_long = self.seq - self.snapshot_seq >= interval_records
        if not is_long and byte_count < _SNAPSHOT_MIN_BYTES:
            return False
        state_bytes = self.state_bytes
        if state_bytes > _SNAPSHOT_MAX_BYTES:
            return False
        return is_long or byte_count >= 2 * state_bytes

    def note_snapshot(self) -> None:
        """Note that a snapshot of the state as it is now is, or will be, on disk."""
        self.snapshot_seq = self.seq
        self.snapshot_bytes = self.log_bytes
