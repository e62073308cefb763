"""The one write path: load, decide, apply, enqueue, and only then await.

Between the return of `load` and the call of `commit` nothing awaits. So asyncio itself makes a
transition atomic, and there are no locks. State runs ahead of the disk; the ticket that `commit`
returns tells when the disk has caught up, and nothing may leave the process before.
"""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.errors import (
    AetherisError,
    RequestError,
    RunSetAsideError,
    RunUnreadableError,
    ShardNotOwnedError,
    UnavailableError,
    WorkflowNotFoundError,
)
from aetheris_server.history.cache import RunCache
from aetheris_server.history.committer import MAX_QUEUED, Commit, Committer
from aetheris_server.history.dispatch import Dispatcher
from aetheris_server.history.loader import load_run_state, load_run_states
from aetheris_server.history.newest_runs import NewestRuns
from aetheris_server.history.notices import CancellationNotices
from aetheris_server.history.refusals import Refusals
from aetheris_server.history.rows import (
    check_key,
    check_storable,
    index_record,
    to_log_row,
    to_newest,
    try_snapshot_row,
)
from aetheris_server.history.run import LoadedRun, Ticket, Transition, WaitingQuery
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.deadlines import new_deadline
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.machines.lifecycle.start import new_state
from aetheris_server.history.state.machines.workflow_task.ending import decide_flush
from aetheris_server.history.state.machines.workflow_task.tasks import workflow_ref
from aetheris_server.history.state.obligations import new_obligations, obligations
from aetheris_server.history.state.observe import observe, restore_inflight
from aetheris_server.history.state.run import RunKey
from aetheris_server.history.state.times import to_timestamp
from aetheris_server.history.wakeups import WakeUps
from aetheris_server.ids import shard_of
from aetheris_server.loops import run_loops
from aetheris_server.rpc.tokens import Tokens
from aetheris_server.storage.commit import LogWriter
from aetheris_server.storage.database import Database
from aetheris_server.storage.executions import NewestRun
from aetheris_server.storage.newest import NewestRunReader
from aetheris_server.telemetry import counter, get_logger

_log = get_logger(__name__)

_TRANSITIONS = counter("transitions", "Transitions of runs decided.")
_DROPPED_RUNS = counter("dropped_runs", "Runs whose memory was dropped because a commit failed.")
_UNREADABLE = counter("unreadable_runs", "Loads of runs that were refused for what is stored.")
_FAULTS = counter("failed_transitions", "Transitions that failed because of a fault.")
_SET_ASIDE = counter("set_aside_runs", "Times that a run was set aside for a while after a fault.")

# A shorter log is read back as fast as a snapshot.
_MIN_RECORDS_FOR_SNAPSHOT = 32


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the engine needs of the settings."""

    shard_count: int
    cache_max_runs: int
    cache_max_bytes: int
    snapshot_interval_records: int
    limits: RunLimits


class Engine:
    """The runs of the shards that this host has. `run` does the work that nobody asks for.

    Attributes:
        dispatcher: Where tasks are offered.
        notices: Where workers are told to cancel.
        tokens: Of the cluster.
        shards: The owned shards by number; `cluster` adds them, a failed commit removes them.
    """

    def __init__(
        self,
        settings: EngineSettings,
        clock: Clock,
        db: Database,
        dispatcher: Dispatcher,
        notices: CancellationNotices,
        tokens: Tokens,
        is_leased: Callable[[], bool],
        on_shard_failed: Callable[[int], None],
    ) -> None:
        """Args:
        settings: Of the engine.
        clock: Of this host.
        db: Where the log is.
        dispatcher: Where tasks are offered.
        notices: Where workers are told to cancel.
        is_leased: Whether nobody else can have the shards of this host.
        on_shard_failed: Called with a shard that must be taken anew.
        """
        self.settings = settings
        self.clock = clock
        self.db = db
        self.shards: dict[int, Shard] = {}
        self.cache = RunCache(settings.cache_max_runs, settings.cache_max_bytes, self._on_evicted)
        self.dispatcher = dispatcher
        self.notices = notices
        self.tokens = tokens
        self.wakeups = WakeUps(
            clock, self.cache, self.shards, dispatcher, self._load_key, self.commit
        )
        self.writer = LogWriter(db)
        self.committer = Committer(self.writer, self._fail_shard)
        self._newest_reader = NewestRunReader(db)
        self._newest = NewestRuns(self._newest_reader.load, max_entries=4 * MAX_QUEUED)
        self._is_leased = is_leased
        self._on_shard_failed = on_shard_failed
        self._loading: dict[str, asyncio.Future[None]] = {}
        self._refusals = Refusals(clock)
        self._failed_ranges: dict[int, int] = {}

    async def run(self) -> None:
        """Commit, fire timers and look up ids until cancelled."""
        await run_loops(self.committer.run(), self.wakeups.run(), self._newest.run())

    async def close(self) -> None:
        """Close the connections of its own; `run` has ended."""
        await self.writer.close()
        await self._newest_reader.close()

    # Finding runs.

    def find_shard(self, namespace_id: str, workflow_id: str) -> Shard:
        """The shard of a workflow id.

        Raises:
            ShardNotOwnedError: This host does not have it, or cannot know: its lease has run out,
                so another host may have written what is not in memory here.
        """
        shard_id = shard_of(namespace_id, workflow_id, self.settings.shard_count)
        shard = self.shards.get(shard_id)
        if shard is None or not self._is_leased():
            raise ShardNotOwnedError(shard_id)
        return shard

    async def load_newest(self, namespace_id: str, workflow_id: str) -> NewestRun | None:
        """The newest run of a workflow id, open or closed; None if there never was one.

        Raises:
            InvalidArgumentError: There can be no such workflow id.
            ShardNotOwnedError: This host does not have the shard.
            StorageUnavailableError: Postgres does not answer.
        """
        check_key(namespace_id, workflow_id)
        shard = self.find_shard(namespace_id, workflow_id)
        newest = await self._newest.load((shard.shard_id, namespace_id, workflow_id))
        if self.shards.get(shard.shard_id) is not shard:
            raise ShardNotOwnedError(shard.shard_id)
        return newest

    async def load(self, namespace_id: str, workflow_id: str, run_id: str = "") -> LoadedRun:
        """A run, from memory or from the log; the newest of the workflow id without a run id.

        What follows its return without an await works on the run's latest state.

        Raises:
            WorkflowNotFoundError: There is no such run.
            RunUnreadableError: What is stored of it cannot be used by this program.
            RunSetAsideError: A fault struck the run a moment ago.
            ShardNotOwnedError: This host does not have the shard.
            StorageUnavailableError: Postgres does not answer.
        """
        while True:
            shard = self.find_shard(namespace_id, workflow_id)
            wanted = run_id
            if not wanted:
                newest = await self.load_newest(namespace_id, workflow_id)
                if newest is None:
                    raise WorkflowNotFoundError(workflow_id)
                wanted = newest.run_id
            run = self.cache.find(wanted)
            if run is None:
                await self._load_once(shard, namespace_id, workflow_id, wanted)
                continue
            if run.key.namespace_id != namespace_id or run.key.workflow_id != workflow_id:
                raise WorkflowNotFoundError(workflow_id, run_id)
            return run

    async def preload(self, keys: Sequence[RunKey]) -> None:
        """Take runs into the cache in few statements.

        One that is not there, or at fault, or of a shard that this host does not have, is left out:
        `load` says why.

        Raises:
            UnavailableError: Postgres does not answer, or the disk is too far behind.
        """
        wanted = {key.run_id: key for key in keys if self._can_be_loaded(key)}
        if not wanted:
            return
        shards = {
            run_id: self.find_shard(key.namespace_id, key.workflow_id)
            for run_id, key in wanted.items()
        }
        loop = asyncio.get_running_loop()
        self._loading.update({run_id: loop.create_future() for run_id in wanted})
        try:
            pairs = [(shards[run_id].shard_id, key) for run_id, key in wanted.items()]
            async with aclosing(load_run_states(self.db, pairs)) as parts:
                async for runs in parts:
                    for run in runs:
                        if self.shards.get(run.shard_id) is shards[run.key.run_id]:
                            self._try_admit(run)
        finally:
            for run_id in wanted:
                self._loading.pop(run_id).set_result(None)

    def _can_be_loaded(self, key: RunKey) -> bool:
        """Whether a run is not in memory, nobody is loading it, and nothing is against it."""
        return (
            shard_of(key.namespace_id, key.workflow_id, self.settings.shard_count) in self.shards
            and self._is_leased()
            and self.cache.peek(key.run_id) is None
            and key.run_id not in self._loading
            and not self._refusals.is_refused(key.run_id)
        )

    def _try_admit(self, run: LoadedRun) -> None:
        try:
            self._admit(run)
        except UnavailableError:
            raise
        except Exception:  # noqa: BLE001 - logged whole
            # One run at fault must not keep the others from being loaded.
            _log.exception("a run cannot be taken into memory", run_id=run.key.run_id)
            self.cache.drop(run)

    async def _load_key(self, key: RunKey) -> LoadedRun:
        return await self.load(key.namespace_id, key.workflow_id, key.run_id)

    async def _load_once(
        self, shard: Shard, namespace_id: str, workflow_id: str, run_id: str
    ) -> None:
        """Take a run into the cache, or wait for whoever is doing so."""
        loading = self._loading.get(run_id)
        if loading is not None:
            await asyncio.wait([loading])
            return
        loading = self._loading[run_id] = asyncio.get_running_loop().create_future()
        try:
            self._refusals.check(run_id)
            run = await load_run_state(self.db, shard.shard_id, namespace_id, run_id)
            if run.key.workflow_id != workflow_id:
                raise WorkflowNotFoundError(workflow_id, run_id)
            if self.shards.get(shard.shard_id) is shard:
                self._admit(run)
        except WorkflowNotFoundError:
            raise WorkflowNotFoundError(workflow_id, run_id) from None
        except RunUnreadableError as error:
            self._refuse(run_id, error)
            raise
        finally:
            del self._loading[run_id]
            loading.set_result(None)

    def _refuse(self, run_id: str, error: RunUnreadableError) -> None:
        """Note, once in a while, that a run cannot be read, and do not try again at once."""
        if not self._refusals.is_refused(run_id):
            _log.error("a run is refused for what is stored of it", error=str(error))
            _UNREADABLE.inc()
            self._refusals.add(run_id, error)

    def _admit(self, run: LoadedRun) -> None:
        self.wakeups.set_time(run)
        now = self.time_of(run)
        taken_at = self.shards[run.shard_id].taken_at
        restore_inflight(run.state, run.inflight, now, self.clock.monotonic(), taken_at)
        self.cache.put(run)
        self.wakeups.admit(run)
        record = decide_flush(run.state, run.inflight, now)
        if record is not None:
            try:
                self.commit(run, record)
            except UnavailableError:
                self.cache.drop(run)
                raise

    # Changing runs.

    def time_of(self, run: LoadedRun) -> datetime:
        """A run's own time now: what happens to it goes by that, not by the wall clock."""
        return run.time.read(self.clock)

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
        shard = self.find_shard(key.namespace_id, key.workflow_id)
        state = new_state(key, record.events[0])
        check_storable(state)
        run = LoadedRun(shard.shard_id, state)
        run.repeats_id = repeats_id
        self.time_of(run)
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
        shard = self.shards.get(run.shard_id)
        if shard is None:
            raise ShardNotOwnedError(run.shard_id)
        self.committer.check_room()
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
                    self.cache.put(changed)
                else:
                    self.cache.weigh(changed)
        except BaseException:
            _FAULTS.inc()
            self._set_aside(at_fault)
            for changed in runs:
                self.cache.drop(changed)
            self.committer.fail_shard((shard.shard_id, shard.range_id))
            raise
        shard.last_ticket = transition.ticket
        self.committer.enqueue(commit)
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
        now = self.time_of(run)
        transition.refs.extend(new_obligations(state, run.inflight, record, now))
        deadline = new_deadline(state, record)
        if index_record(shard, run, commit, deadline, row.shard_seq, now):
            key = (shard.shard_id, run.key.namespace_id, run.key.workflow_id)
            self._newest.put(key, to_newest(state))
        self.wakeups.follow(run, deadline)
        if run.needs_snapshot(self.settings.snapshot_interval_records):
            snapshot = try_snapshot_row(run)
            if snapshot is not None:
                commit.snapshots.append(snapshot)
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
                self.offer_queries(run)
                self.cache.retire(run)
        if error is None and transition.refs:
            self.dispatcher.offer(transition.refs)

    # Getting and losing shards.

    def add_shard(self, shard: Shard) -> None:
        """Serve a shard that has just been taken.

        What is in memory of it after a failed commit is good only if nobody had it since.
        """
        if self._failed_ranges.pop(shard.shard_id, None) != shard.range_id - 1:
            self._drop_runs(shard.shard_id)
        # A look-up from before may have been answered since.
        self._newest.forget_shard(shard.shard_id)
        self.shards[shard.shard_id] = shard

    def failed_shards(self) -> list[int]:
        """The shards that a failed commit took away and that have not been taken anew since."""
        return list(self._failed_ranges)

    def _drop_runs(self, shard_id: int) -> None:
        for run in self.cache.of_shard(shard_id):
            self._drop(run)

    def _drop(self, run: LoadedRun) -> None:
        self.cache.drop(run)
        self.wakeups.release(run)

    def release_shard(self, shard_id: int) -> None:
        """Forget a shard and all of its runs; nothing may be queued for it."""
        self.shards.pop(shard_id, None)
        self._failed_ranges.pop(shard_id, None)
        self._drop_runs(shard_id)
        self._newest.forget_shard(shard_id)

    def _fail_shard(self, shard_id: int, range_id: int, is_lost: bool) -> None:
        """Forget all that the disk may not have. The shard must be taken anew before it is used."""
        shard = self.shards.get(shard_id)
        if shard is not None and shard.range_id != range_id:
            # It has been taken anew since, which has settled what failed.
            return
        self.shards.pop(shard_id, None)
        self._newest.forget_shard(shard_id)
        for run in self.cache.of_shard(shard_id):
            if is_lost or not run.is_committed:
                self._drop(run)
                _DROPPED_RUNS.inc()
        if shard is not None and not is_lost:
            # The last, so that a fault above leaves nothing in memory that would be trusted.
            self._failed_ranges[shard_id] = range_id
        self._on_shard_failed(shard_id)

    def _on_evicted(self, run: LoadedRun) -> None:
        self.wakeups.release(run)
        if not run.needs_snapshot(_MIN_RECORDS_FOR_SNAPSHOT):
            return
        if self.committer.is_full or run.shard_id not in self.shards:
            return
        snapshot = try_snapshot_row(run)
        if snapshot is not None:
            self.committer.enqueue(
                Commit(run.shard_id, rows=[], on_done=lambda _, __: None, snapshots=[snapshot])
            )

    # Offering.

    def offer_query(self, run: LoadedRun, waiting: WaitingQuery) -> None:
        """Have a query asked by itself, by whichever worker of the run is free."""
        ref = workflow_ref(run.state, run.inflight)
        ref.query_id = waiting.query_id
        ref.scheduled_time.CopyFrom(to_timestamp(self.clock.now()))
        ref.expire_time.CopyFrom(to_timestamp(waiting.expire_time))
        self.dispatcher.offer([ref])

    def offer_queries(self, run: LoadedRun) -> None:
        """Have all queries that wait for an answer asked by themselves."""
        for waiting in run.queries.values():
            if not waiting.answer.done():
                self.offer_query(run, waiting)

    def offer_obligations(self, run: LoadedRun) -> None:
        """Offer to matching every task that is due and that nobody has."""
        self.dispatcher.offer(obligations(run.state, run.inflight, self.time_of(run)))
