"""Making a projection again from the log, and holding it against the log.

    for each shard: the runs that begin in the next part of its log, in groups
    for each group, in one transaction: records ──fold──► rows ──► compared, or put in place

Nothing needs to be begun anew: a row is as it was or what the log says, at any moment. To make a
table again the shards are taken like a server takes them, so that who had them before can write no
more, and held while a group is put in place. To compare takes nothing, and sees one moment for each
group, so that servers may go on meanwhile.
"""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from aetheris_server.clock import Clock
from aetheris_server.errors import BrokenLogError, RunUnreadableError, StorageUnavailableError
from aetheris_server.history.aggregates.records import decode_record
from aetheris_server.history.engine.loader import fold_record
from aetheris_server.history.projections.errors import (
    BrokenRunsError,
    OutOfStepError,
    ServersRunningError,
)
from aetheris_server.history.projections.projection import Projection
from aetheris_server.history.projections.registry import Projections
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.shard import acquired_note
from aetheris_server.history.state.machines.lifecycle.start import new_state
from aetheris_server.history.state.run import RunKey
from aetheris_server.history.times import from_timestamp
from aetheris_server.ids import new_run_id
from aetheris_server.storage.database import Database
from aetheris_server.storage.hosts import bury_hosts, load_live_hosts
from aetheris_server.storage.log import (
    LoggedRun,
    RunRecord,
    find_starts,
    load_run_part,
    load_runs,
    load_tail,
)
from aetheris_server.storage.rebuild import Difference, MadeTable, made_table
from aetheris_server.storage.row_changes import RowChanges
from aetheris_server.storage.session import Session, open_session
from aetheris_server.storage.shards import (
    AcquiredShard,
    acquire_shards,
    load_shards,
    release_shards,
)

# Log rows of a shard in which runs are looked for at once.
_PART_ROWS = 10_000
# What is made in one transaction: so many runs, and of records so many bytes, or one run.
_GROUP_RUNS = 1_000
_GROUP_BYTES = 8 * 1024 * 1024
_CHUNK_ROWS = 1_000
# Seconds between lines that say how far it is.
_SAY_INTERVAL = 2.0
_FIRST_ID = "00000000-0000-0000-0000-000000000000"


class _NotARunError(BrokenLogError):
    """The log begins otherwise than a run's: it is that of another kind of aggregate, or broken."""


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        row_count: Rows that were written, or, where nothing was to be written, that differ.
        broken_count: Runs that cannot be read, whose rows are as they were.
    """

    run_count: int = 0
    row_count: int = 0
    broken_count: int = 0


async def rebuild(
    db: Database, projection: Projection, clock: Clock, say: Callable[[str], None]
) -> Outcome:
    """Make a projection again. No server may run; safe to repeat, and to end at any moment.

    Args:
        db: Where the log is.
        projection: Which.
        clock: Of this process.
        say: Called with lines for people.

    Raises:
        ServersRunningError: One does, or has begun to.
        BrokenRunsError: All else is made.
        StorageUnavailableError: Postgres does not answer.
    """
    host_id = f"rebuild-{new_run_id()}"
    addresses = [host.address for host in await load_live_hosts(db)]
    if addresses:
        raise ServersRunningError(addresses)
    await bury_hosts(db, host_id, 0.0)
    async with _open(db, projection, clock, say) as walk:
        for shard in await load_shards(db):
            async with _taken(db, host_id, shard.shard_id, clock) as owned:
                await walk.go_over(shard.shard_id, _Owner(host_id, owned))
    if walk.outcome.broken_count:
        raise BrokenRunsError(projection.name, walk.outcome.broken_count)
    return walk.outcome


async def check(
    db: Database, projection: Projection, clock: Clock, say: Callable[[str], None]
) -> Outcome:
    """Hold a projection against the log, and say what differs. Writes nothing; servers may run.

    Args:
        db: Where the log is.
        projection: Which.
        clock: Of this process.
        say: Called with lines for people.

    Raises:
        OutOfStepError: Something differs, or a run cannot be read.
        StorageUnavailableError: Postgres does not answer.
    """
    async with _open(db, projection, clock, say) as walk:
        for shard in await load_shards(db):
            await walk.go_over(shard.shard_id, None)
    outcome = walk.outcome
    if outcome.row_count or outcome.broken_count:
        raise OutOfStepError(projection.name, outcome.row_count, outcome.broken_count)
    return outcome


@asynccontextmanager
async def _taken(
    db: Database, host_id: str, shard_id: int, clock: Clock
) -> AsyncGenerator[AcquiredShard]:
    """Have a shard as a server has it, but by no lease: a server that begins takes it at once."""

    def make_note(_: int, range_id: int) -> tuple[bytes, bytes]:
        return acquired_note(host_id, range_id, clock.now())

    taken = await acquire_shards(db, host_id, [shard_id], make_note)
    if not taken:
        raise ServersRunningError([host.address for host in await load_live_hosts(db)], shard_id)
    try:
        yield taken[0]
    finally:
        await release_shards(db, host_id, [(shard_id, taken[0].range_id)])


@asynccontextmanager
async def _open(
    db: Database, projection: Projection, clock: Clock, say: Callable[[str], None]
) -> AsyncGenerator["_Walk"]:
    async with (
        open_session(db) as session,
        made_table(session, projection.table) as made,
    ):
        yield _Walk(db, session, made, projection, clock, say)


@dataclass(frozen=True, slots=True)
class _Owner:
    host_id: str
    shard: AcquiredShard


class _Walk:
    """One pass over the log.

    Attributes:
        outcome: So far.
    """

    def __init__(
        self,
        db: Database,
        session: Session,
        made: MadeTable,
        projection: Projection,
        clock: Clock,
        say: Callable[[str], None],
    ) -> None:
        self._db = db
        self._session = session
        self._made = made
        self._projection = projection
        self._clock = clock
        self._say = say
        self._said_at = clock.monotonic()
        self.outcome = Outcome()

    async def go_over(self, shard_id: int, owner: _Owner | None) -> None:
        """Make the rows of a shard's runs again: put them in place for an owner, else compare."""
        tail = await load_tail(self._db, shard_id)
        for after_seq in range(0, tail, _PART_ROWS):
            runs = await find_starts(self._db, shard_id, after_seq, after_seq + _PART_ROWS)
            for group in _groups(runs):
                await self._make(shard_id, group, owner)
                self._tell(f"shard {shard_id}, {after_seq:,} of {tail:,} log rows")
        await self._find_unlogged(shard_id)

    async def _make(self, shard_id: int, group: Sequence[LoggedRun], owner: _Owner | None) -> None:
        # Nobody adds to the log of a shard that is held, so that needs no snapshot.
        async with self._session.transaction(is_snapshot=owner is None):
            if owner is not None:
                await self._hold(shard_id, owner)
            good = await self._fold(shard_id, group, is_check=owner is None)
            await self._made.complete()
            for run_id in set(await self._made.find_ahead()) & good:
                self._note_broken(shard_id, run_id, "its row tells of more than the log has")
                good.remove(run_id)
            if owner is None:
                self._note_differences(shard_id, await self._made.compare(shard_id, sorted(good)))
            else:
                self.outcome.row_count += await self._made.replace(shard_id, sorted(good))
            await self._made.clear()

    async def _hold(self, shard_id: int, owner: _Owner) -> None:
        if not await self._made.hold(shard_id, owner.shard.range_id, owner.host_id):
            hosts = await load_live_hosts(self._db)
            raise ServersRunningError([host.address for host in hosts], shard_id)

    async def _fold(self, shard_id: int, group: Sequence[LoggedRun], *, is_check: bool) -> set[str]:
        """Write the rows of runs into the table of the session; the runs that can be read."""
        good: set[str] = set()
        # Whose logs do not begin as a run's does, and why.
        strange: dict[str, str] = {}
        whole = {}
        if len(group) > 1:
            whole = await load_runs(self._session, [(shard_id, run.run_id, 0) for run in group])
        rows = RowChanges()
        for logged in group:
            fold = _RunFold(self._projection, shard_id, logged)
            try:
                if len(group) > 1:
                    fold.take(whole.get(logged.run_id, []))
                else:
                    await self._take_parts(fold, shard_id, logged)
                fold.finish(self._clock, is_check=is_check)
            except _NotARunError as error:
                strange[logged.run_id] = str(error)
                continue
            except RunUnreadableError as error:
                self._note_broken(shard_id, logged.run_id, str(error))
                continue
            except StorageUnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - said whole
                # One run at fault must not keep the others from being made.
                self._note_broken(shard_id, logged.run_id, f"it cannot be folded: {error!r}")
                continue
            good.add(logged.run_id)
            rows.extend(fold.rows)
        await self._made.write(rows)
        for run_id in await self._made.find_live(shard_id, list(strange)) if strange else ():
            self._note_broken(shard_id, run_id, strange[run_id])
        self.outcome.run_count += len(group) - len(strange)
        return good

    async def _take_parts(self, fold: "_RunFold", shard_id: int, logged: LoggedRun) -> None:
        while records := await load_run_part(
            self._session, shard_id, logged.run_id, fold.seq, _CHUNK_ROWS, _GROUP_BYTES
        ):
            fold.take(records)
            await self._made.write(fold.rows)
            fold.rows = RowChanges()

    async def _find_unlogged(self, shard_id: int) -> None:
        """Say which runs have rows though the log does not have their first record."""
        after = _FIRST_ID
        while found := await self._made.load_runs_after(shard_id, after, _GROUP_RUNS):
            for run_id, is_logged in found:
                if not is_logged:
                    error = BrokenLogError(run_id, 1, "record 1", "no record")
                    self._note_broken(shard_id, run_id, str(error))
            after = found[-1][0]

    def _note_broken(self, shard_id: int, run_id: str, problem: str) -> None:
        self.outcome.broken_count += 1
        self._say(f"cannot be read: run {run_id} of shard {shard_id}: {problem}")

    def _note_differences(self, shard_id: int, differences: Sequence[Difference]) -> None:
        self.outcome.row_count += len(differences)
        for difference in differences:
            self._say(f"differs: run {difference.run_id} of shard {shard_id}: {difference.text}")

    def _tell(self, place: str) -> None:
        """Say how far it is, now and then."""
        now = self._clock.monotonic()
        if now - self._said_at >= _SAY_INTERVAL:
            self._said_at = now
            done = self.outcome
            self._say(f"{place}: {done.run_count:,} runs, {done.row_count:,} rows")


class _RunFold:
    """The fold of one run from its first record on.

    Attributes:
        rows: Those of the projection that the records so far have brought.
    """

    def __init__(self, projection: Projection, shard_id: int, logged: LoggedRun) -> None:
        self._projection = projection
        self._projections = Projections([projection])
        self._shard_id = shard_id
        self._logged = logged
        self._run: LoadedRun | None = None
        self._newest_time = datetime.min.replace(tzinfo=UTC)
        self.rows = RowChanges()

    @property
    def seq(self) -> int:
        """Records so far."""
        return self._run.seq if self._run is not None else 0

    def take(self, records: Sequence[RunRecord]) -> None:
        """Fold the next records; the first ones begin with the run's first.

        Raises:
            RunUnreadableError: They do not fit, or a newer program has written them.
        """
        for stored in records:
            if self._run is None:
                self._run = self._begin(stored)
            record = fold_record(self._run, stored)
            self._newest_time = from_timestamp(record.time)
            if not self._projection.is_index:
                self._projections.project(self._shard_id, self._run.state, record, self.rows)
            elif self._run.seq == 1:
                self._run.add_row(self.rows, owes=False)

    def _begin(self, stored: RunRecord) -> LoadedRun:
        id_ = self._logged.run_id
        if stored.run_seq != 1:
            raise BrokenLogError(id_, 1, "record 1", f"record {stored.run_seq}")
        record = decode_record(id_, 1, stored.record)
        events = record.events
        if not events or not events[0].HasField("workflow_execution_started_event_attributes"):
            raise _NotARunError(id_, 1, "the event that starts a run", f"{len(events)} events")
        started = events[0].workflow_execution_started_event_attributes
        key = RunKey(self._logged.namespace_id, started.workflow_id, id_)
        return LoadedRun(self._shard_id, new_state(key, record))

    def finish(self, clock: Clock, *, is_check: bool) -> None:
        """Add what the rows say in the end.

        Raises:
            BrokenLogError: There was no record.
        """
        run = self._run
        if run is None:
            raise BrokenLogError(self._logged.run_id, 1, "record 1", "no record")
        if self._projection.is_index:
            run.wake_time = self._wake_time(run, clock, is_check=is_check)
            run.add_update(self.rows, run.owes())

    def _wake_time(self, run: LoadedRun, clock: Clock, *, is_check: bool) -> datetime | None:
        """The first deadline that a crash must not forget, by the wall clock.

        What is due and would be offered again by whoever loads the run is not waited for, and what
        a worker may have counts as had.
        """
        wall = clock.now()
        now, at = max(wall, self._newest_time), clock.monotonic()
        run.restore(now, at, taken_at=at)
        run.take_due(now)
        deadline = run.next_deadline(now)
        if deadline is None or is_check:
            # Whoever wrote the live row may have a clock that is ahead of this one.
            return deadline
        return deadline - (now - wall)


def _groups(runs: Sequence[LoggedRun]) -> Iterator[list[LoggedRun]]:
    """Runs that are made in one transaction each."""
    group: list[LoggedRun] = []
    byte_count = 0
    for run in runs:
        if group and (len(group) == _GROUP_RUNS or byte_count + run.byte_count > _GROUP_BYTES):
            yield group
            group, byte_count = [], 0
        group.append(run)
        byte_count += run.byte_count
    if group:
        yield group
