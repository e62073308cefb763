"""Changing runs: apply a record to memory, queue it for the log, and tell what came of it."""

from collections.abc import Callable

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.errors import (
    AetherisError,
    RequestError,
    RunSetAsideError,
    ShardNotOwnedError,
)
from aetheris_server.history.dispatch import Dispatcher
from aetheris_server.history.engine.cache import RunCache
from aetheris_server.history.engine.committer import Commit, Committer
from aetheris_server.history.engine.newest_runs import NewestRuns
from aetheris_server.history.engine.refusals import Refusals
from aetheris_server.history.engine.rows import (
    check_storable,
    index_record,
    to_log_row,
    to_newest,
    try_snapshot_row,
)
from aetheris_server.history.engine.shard_table import ShardTable
from aetheris_server.history.engine.wakeups import WakeUps
from aetheris_server.history.run import LoadedRun, Ticket, Transition
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.deadlines import new_deadline
from aetheris_server.history.state.machines.lifecycle.start import new_state
from aetheris_server.history.state.obligations import new_obligations
from aetheris_server.history.state.observe import observe
from aetheris_server.history.state.run import RunKey
from aetheris_server.storage.snapshots import PUT_SNAPSHOTS
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_TRANSITIONS = counter("transitions", "Transitions of runs decided.")
_FAULTS = counter("failed_transitions", "Transitions that failed because of a fault.")
_SET_ASIDE = counter("set_aside_runs", "Times that a run was set aside for a while after a fault.")


class RunChanges:
    """Changes the runs of one engine."""

    def __init__(
        self,
        clock: Clock,
        snapshot_interval_records: int,
        table: ShardTable,
        cache: RunCache,
        newest: NewestRuns,
        refusals: Refusals,
        wakeups: WakeUps,
        committer: Committer,
        dispatcher: Dispatcher,
        offer_queries: Callable[[LoadedRun], None],
    ) -> None:
        """Args:
        clock: Of this host.
        snapshot_interval_records: Records between snapshots of a run.
        table: The shards.
        cache: Of the runs.
        newest: Told of runs that start and close.
        refusals: Told of runs at fault.
        wakeups: Told of each change.
        committer: Writes the changes.
        dispatcher: Where tasks are offered once they are on disk.
        offer_queries: Called with a run that has closed.
        """
        self._clock = clock
        self._snapshot_interval_records = snapshot_interval_records
        self._table = table
        self._cache = cache
        self._newest = newest
        self._refusals = refusals
        self._wakeups = wakeups
        self._committer = committer
        self._dispatcher = dispatcher
        self._offer_queries = offer_queries

    def create(
        self, key: RunKey, record: log_pb2.LogRecord, *, repeats_id: bool = False
    ) -> LoadedRun:
        """A run that `record`, its first, is about to be committed for; in memory from then on.

        Args:
            key: With a new run id.
            record: To be committed.
            repeats_id: The workflow id had a run before.

        Raises:
            InvalidArgumentError: The store would refuse something that the run is found by.
        """
        shard = self._table.find(key.namespace_id, key.workflow_id)
        state = new_state(key, record.events[0])
        check_storable(state)
        run = LoadedRun(shard.shard_id, state)
        run.repeats_id = repeats_id
        # Its time is counted from here on.
        run.time.read(self._clock)
        return run

    def commit(
        self,
        run: LoadedRun,
        record: log_pb2.LogRecord,
        *others: tuple[LoadedRun, log_pb2.LogRecord],
    ) -> Transition:
        """Apply a run's next record, and those of other runs of its shard, and queue them for the
        log: all or none.

        Never awaits. The caller has just loaded or created the runs. A fault in here fails the
        shard: the runs are half changed, what is queued for them is not on disk yet, and so neither
        memory nor the disk can be built upon before the shard has been taken anew.

        Raises:
            UnavailableError: The disk is too far behind; nothing was applied.
        """
        shard = self._table.of_run(run)
        self._committer.check_room()
        changes = ((run, record), *others)
        runs = [changed for changed, _ in changes]
        if any(changed.is_dropped for changed in runs):
            # Its memory has left the cache since it was loaded, so it is not the run's any more.
            raise ShardNotOwnedError(shard.shard_id)
        transition = Transition(Ticket(), [])
        commit = Commit(
            shard.shard_id,
            rows=[],
            on_done=lambda commit, error: self._on_committed(
                shard, commit, runs, transition, error
            ),
            range_id=shard.range_id,
        )
        at_fault = run
        try:
            for changed, its_record in changes:
                at_fault = changed
                self._apply(shard, changed, its_record, commit, transition)
            for changed in runs:
                if changed.state.run_seq == 1:
                    self._cache.put(changed)
                else:
                    self._cache.weigh(changed)
        except BaseException:
            _FAULTS.inc()
            self._set_aside(at_fault)
            for changed in runs:
                self._cache.drop(changed)
            self._committer.fail_shard(shard.owner)
            raise
        shard.last_ticket = transition.ticket
        self._committer.enqueue(commit)
        _TRANSITIONS.inc(len(changes))
        return transition

    def _set_aside(self, run: LoadedRun) -> None:
        """Keep a run at fault from taking its shard away from all others again at once."""
        run_id = run.key.run_id
        seconds = self._refusals.add(run_id, RunSetAsideError(run_id))
        _SET_ASIDE.inc()
        _log.error("a run is set aside after a fault", run_id=run_id, seconds=seconds)

    def _apply(
        self,
        shard: Shard,
        run: LoadedRun,
        record: log_pb2.LogRecord,
        commit: Commit,
        transition: Transition,
    ) -> None:
        state = run.state
        first_event_id = state.next_event_id
        stored = record.SerializeToString()
        apply(state, record, stored)
        observe(state, run.inflight, record)
        run.tail.extend(list(record.events))
        run.last_ticket = transition.ticket
        row = to_log_row(shard, state, first_event_id, record, stored)
        commit.rows.append(row)
        now = run.time.read(self._clock)
        transition.refs.extend(new_obligations(state, run.inflight, record, now))
        deadline = new_deadline(state, record)
        if index_record(shard, run, commit, deadline, row.shard_seq, now):
            key = (shard.shard_id, run.key.namespace_id, run.key.workflow_id)
            self._newest.put(key, to_newest(state))
        self._wakeups.follow(run, deadline)
        if run.needs_snapshot(self._snapshot_interval_records):
            snapshot = try_snapshot_row(run)
            if snapshot is not None:
                commit.changes.add(PUT_SNAPSHOTS, snapshot)
            # Or there is a fault in it, which would be there again with the next record.
            run.note_snapshot()

    def _on_committed(
        self,
        shard: Shard,
        commit: Commit,
        runs: list[LoadedRun],
        transition: Transition,
        error: AetherisError | None,
    ) -> None:
        transition.ticket.resolve(error)
        if error is None:
            shard.committed_seq = commit.rows[-1].shard_seq
            for run, row in zip(runs, commit.rows, strict=True):
                run.committed_event_id = row.first_event_id + row.event_count
                self._refusals.note_success(run.key.run_id)
        elif isinstance(error, RequestError):
            for run in runs:
                self._set_aside(run)
        for run in runs:
            run.notify()
            if not run.state.is_open:
                # No workflow task will take its queries along any more.
                self._offer_queries(run)
                self._cache.retire(run)
        if error is None and transition.refs:
            self._dispatcher.offer(transition.refs)
