"""Changing aggregates: apply a record to memory, queue it for the log, and tell what came of it."""

from collections.abc import Mapping, Sequence

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.errors import (
    AetherisError,
    RequestError,
    RunSetAsideError,
    ShardNotOwnedError,
)
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.follower import Follower
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.aggregates.kinds import Kinds
from aetheris_server.history.aggregates.transition import Ticket, Transition
from aetheris_server.history.engine.beginning import Beginning
from aetheris_server.history.engine.cache import AggregateCache
from aetheris_server.history.engine.committer import Commit, Committer
from aetheris_server.history.engine.refusals import Refusals
from aetheris_server.history.engine.rows import (
    index_beginning,
    index_record,
    to_log_row,
    try_snapshot_row,
)
from aetheris_server.history.engine.shard_table import ShardTable
from aetheris_server.history.engine.wakeups import WakeUps
from aetheris_server.history.obligations.dispatcher import Dispatcher
from aetheris_server.history.shard import Shard
from aetheris_server.storage.snapshots import PUT_SNAPSHOTS
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_TRANSITIONS = counter("transitions", "Transitions of aggregates decided.")
_FAULTS = counter("failed_transitions", "Transitions that failed because of a fault.")
_SET_ASIDE = counter(
    "set_aside_runs", "Times that an aggregate was set aside for a while after a fault."
)


class Changes:
    """Changes the aggregates of one engine."""

    def __init__(
        self,
        clock: Clock,
        snapshot_interval_records: int,
        kinds: Kinds,
        table: ShardTable,
        cache: AggregateCache,
        refusals: Refusals,
        wakeups: WakeUps,
        committer: Committer,
        dispatcher: Dispatcher,
        followers: Mapping[str, Follower],
    ) -> None:
        """Args:
        clock: Of this host.
        snapshot_interval_records: Records between snapshots of an aggregate.
        kinds: What there is.
        table: The shards.
        cache: Of the aggregates.
        refusals: Told of aggregates at fault.
        wakeups: Told of each change.
        committer: Writes the changes.
        dispatcher: Where what they owe is offered once it is on disk.
        followers: By kind.
        """
        self._clock = clock
        self._snapshot_interval_records = snapshot_interval_records
        self._kinds = kinds
        self._table = table
        self._cache = cache
        self._refusals = refusals
        self._wakeups = wakeups
        self._committer = committer
        self._dispatcher = dispatcher
        self._followers = followers

    def create(self, key: AggregateKey, record: log_pb2.LogRecord) -> Aggregate:
        """An aggregate that `record`, its first, is about to be committed for; in memory from then
        on.

        Args:
            key: With a new id. The caller has checked that the store takes it.
            record: To be committed.
        """
        shard = self._table.find(key.namespace_id, key.name)
        aggregate = self._kinds.of(key).begin(key, shard.shard_id, record)
        # Its time is counted from here on.
        aggregate.time.read(self._clock)
        return aggregate

    def commit(
        self,
        aggregate: Aggregate,
        record: log_pb2.LogRecord,
        *others: tuple[Aggregate, log_pb2.LogRecord],
    ) -> Transition:
        """Apply an aggregate's next record, and those of others of its shard, and queue them for
        the log, with the first records of those that they begin: all or none.

        Never awaits. The caller has just loaded or created the aggregates. A fault in here fails
        the shard: they are half changed, what is queued for them is not on disk yet, and so neither
        memory nor the disk can be built upon before the shard has been taken anew.

        Raises:
            UnavailableError: The disk is too far behind; nothing was applied.
        """
        return self._commit(self._table.of(aggregate), ((aggregate, record), *others), None)

    def begin(
        self, beginning: Beginning, *changes: tuple[Aggregate, log_pb2.LogRecord]
    ) -> Transition:
        """Write an aggregate that begins with many records, behind those of others of its shard:
        all or none. As `commit` otherwise.

        Raises:
            UnavailableError: The disk is too far behind; nothing was applied.
        """
        return self._commit(self._table.of(beginning.aggregate), changes, beginning)

    def _commit(
        self,
        shard: Shard,
        changes: Sequence[tuple[Aggregate, log_pb2.LogRecord]],
        beginning: Beginning | None,
    ) -> Transition:
        self._committer.check_room()
        aggregates = [changed for changed, _ in changes]
        if any(changed.is_dropped for changed in aggregates):
            # Its memory has left the cache since it was loaded, so it is not the aggregate's any
            # more.
            raise ShardNotOwnedError(shard.shard_id)
        transition = Transition(Ticket())
        commit = Commit(
            shard.shard_id,
            rows=[],
            on_done=lambda commit, error: self._on_committed(
                shard, commit, aggregates, transition, error
            ),
            range_id=shard.range_id,
        )
        at_fault = aggregates[0] if beginning is None else beginning.aggregate
        records = [record for _, record in changes]
        try:
            # Those that are begun on the way have their turn, too.
            for changed, its_record in zip(aggregates, records, strict=True):
                at_fault = changed
                self._apply(shard, changed, its_record, commit, transition)
                for key, first in changed.begun_by(its_record):
                    aggregates.append(self.create(key, first))
                    records.append(first)
            for changed in aggregates:
                if changed.seq == 1:
                    self._cache.put(changed)
                else:
                    self._cache.weigh(changed)
            if beginning is not None:
                at_fault = beginning.aggregate
                aggregates += self._begin(shard, beginning, commit, transition)
        except BaseException:
            _FAULTS.inc()
            self._set_aside(at_fault)
            for changed in aggregates:
                self._cache.drop(changed)
            self._committer.fail_shard(shard.owner)
            raise
        shard.last_ticket = transition.ticket
        self._committer.enqueue(commit)
        _TRANSITIONS.inc(len(commit.rows))
        return transition

    def _set_aside(self, aggregate: Aggregate) -> None:
        """Keep one at fault from taking its shard away from all others again at once."""
        key = aggregate.key
        seconds = self._refusals.add(key.id, RunSetAsideError(key.id))
        _SET_ASIDE.inc()
        _log.error(
            "an aggregate is set aside after a fault", kind=key.kind, id=key.id, seconds=seconds
        )

    def _apply(
        self,
        shard: Shard,
        aggregate: Aggregate,
        record: log_pb2.LogRecord,
        commit: Commit,
        transition: Transition,
    ) -> None:
        first_event_id = aggregate.next_event_id
        stored = record.SerializeToString()
        aggregate.apply(record, stored)
        aggregate.observe(record)
        aggregate.last_ticket = transition.ticket
        row = to_log_row(shard, aggregate, first_event_id, record, stored)
        commit.rows.append(row)
        now = aggregate.time.read(self._clock)
        transition.obligations.extend(aggregate.new_obligations(record, now))
        deadline = aggregate.new_deadline(record)
        if index_record(shard, aggregate, commit, deadline, row.shard_seq, now):
            follower = self._followers.get(aggregate.key.kind)
            if follower is not None:
                follower.note_indexed(aggregate)
        aggregate.project(record, commit.changes)
        self._wakeups.follow(aggregate, deadline)
        if aggregate.needs_snapshot(self._snapshot_interval_records):
            snapshot = try_snapshot_row(aggregate)
            if snapshot is not None:
                commit.changes.add(PUT_SNAPSHOTS, snapshot)
            # Or there is a fault in it, which would be there again with the next record.
            aggregate.note_snapshot()

    def _begin(
        self, shard: Shard, beginning: Beginning, commit: Commit, transition: Transition
    ) -> list[Aggregate]:
        """Returns the aggregate, as often as it has records."""
        aggregate = beginning.aggregate
        aggregate.last_ticket = transition.ticket
        rows = beginning.to_log_rows(shard)
        commit.rows += rows
        commit.changes.extend(beginning.changes)
        now = aggregate.time.read(self._clock)
        transition.obligations.extend(aggregate.obligations(now))
        deadline = aggregate.next_deadline(now)
        index_beginning(shard, aggregate, commit, deadline, rows[-1].shard_seq)
        follower = self._followers.get(aggregate.key.kind)
        if follower is not None:
            follower.note_indexed(aggregate)
        self._wakeups.follow(aggregate, deadline)
        self._cache.put(aggregate)
        return [aggregate] * len(rows)

    def _on_committed(
        self,
        shard: Shard,
        commit: Commit,
        aggregates: list[Aggregate],
        transition: Transition,
        error: AetherisError | None,
    ) -> None:
        transition.ticket.resolve(error)
        if error is None:
            shard.committed_seq = commit.rows[-1].shard_seq
            for aggregate, row in zip(aggregates, commit.rows, strict=True):
                aggregate.note_on_disk(row.first_event_id + row.event_count)
                self._refusals.note_success(aggregate.key.id)
        elif isinstance(error, RequestError):
            for aggregate in aggregates:
                self._set_aside(aggregate)
        for aggregate in aggregates:
            aggregate.notify()
            if not aggregate.is_open:
                self._cache.retire(aggregate)
                follower = self._followers.get(aggregate.key.kind)
                if follower is not None:
                    follower.note_closed(aggregate)
        owed, transition.ticket.obligations = transition.obligations, []
        if error is None and owed:
            self._dispatcher.offer(owed)
