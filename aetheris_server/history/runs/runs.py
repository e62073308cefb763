"""The runs of one engine: what the calls about runs, and workers' answers, use of it."""

import asyncio
from typing import cast

from aetheris.server.v1 import log_pb2
from aetheris_server.clock import Clock
from aetheris_server.cluster.default_builds import DefaultBuilds
from aetheris_server.errors import ShardNotOwnedError, WorkflowNotFoundError
from aetheris_server.history.aggregates.aggregate import Aggregate
from aetheris_server.history.aggregates.checks import check_key
from aetheris_server.history.engine.committer import MAX_QUEUED
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.obligations.dispatcher import Dispatcher
from aetheris_server.history.runs.index import check_storable, to_newest
from aetheris_server.history.runs.limits import NamespaceLimits
from aetheris_server.history.runs.newest import NewestRuns
from aetheris_server.history.runs.notices import CancellationNotices
from aetheris_server.history.runs.queries import QueryOffers
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.updates import UpdateOffers
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.history.state.run import RunKey
from aetheris_server.rpc.tokens import Tokens
from aetheris_server.storage.database import Database
from aetheris_server.storage.executions import NewestRun
from aetheris_server.storage.newest import NewestRunReader

_MAX_COPIES = 4


class RunFollower:
    """What is in memory of runs besides themselves: a `Follower`.

    Attributes:
        newest: Which run a workflow id means.
        queries: Where queries are asked by themselves.
        updates: Where updates are brought to runs that have no workflow task.
    """

    def __init__(self, db: Database, dispatcher: Dispatcher, clock: Clock) -> None:
        self._reader = NewestRunReader(db)
        self.newest = NewestRuns(self._reader.load, max_entries=4 * MAX_QUEUED)
        self.queries = QueryOffers(dispatcher, clock)
        self.updates = UpdateOffers(dispatcher, clock)

    def note_indexed(self, aggregate: Aggregate) -> None:
        run = cast("LoadedRun", aggregate)
        key = (run.shard_id, run.key.namespace_id, run.key.workflow_id)
        self.newest.put(key, to_newest(run.state))

    def note_closed(self, aggregate: Aggregate) -> None:
        # No workflow task will take its queries along any more.
        self.queries.offer_all(cast("LoadedRun", aggregate))

    def forget_shard(self, shard_id: int) -> None:
        self.newest.forget_shard(shard_id)

    async def close(self) -> None:
        """Close the connection of its own; nobody looks anything up any more."""
        await self._reader.close()


class Runs:
    """The runs of the shards that this host has. `run` does the work that nobody asks for.

    Attributes:
        engine: Whose runs.
        limits: How far runs may grow whose namespace has no limits of its own.
        notices: Where workers are told to cancel.
        queries: Where queries are asked by themselves.
        updates: Where updates are brought to runs that have no workflow task.
        tokens: Of the cluster.
        default_builds: Which builds task queues prefer.
        copying: Held by who makes a run of another one, all of which is in memory meanwhile.
    """

    def __init__(
        self,
        engine: Engine,
        follower: RunFollower,
        limits: NamespaceLimits,
        notices: CancellationNotices,
        tokens: Tokens,
        default_builds: DefaultBuilds,
    ) -> None:
        """Args:
        engine: That the follower follows.
        follower: Of its runs.
        limits: How far the runs of each namespace may grow.
        notices: Where workers are told to cancel.
        tokens: Of the cluster.
        default_builds: Which builds task queues prefer.
        """
        self.engine = engine
        self.limits = limits.server
        self._limits = limits
        self.notices = notices
        self.queries = follower.queries
        self.updates = follower.updates
        self.tokens = tokens
        self.default_builds = default_builds
        self.copying = asyncio.Semaphore(_MAX_COPIES)
        self.clock = engine.clock
        self.db = engine.db
        self.dispatcher = engine.dispatcher
        self.wakeups = engine.wakeups
        self.commit = engine.commit
        self.begin = engine.begin
        self.time_of = engine.time_of
        self.find_shard = engine.find_shard
        self.shard_id_of = engine.shard_id_of
        self._cache = engine.cache
        self._newest = follower.newest

    async def run(self) -> None:
        """Look up workflow ids until cancelled."""
        await self._newest.run()

    def limits_of(self, run: LoadedRun) -> RunLimits:
        """How far the run may grow."""
        return self._limits.of(run.key.namespace_id)

    async def load_newest(self, namespace_id: str, workflow_id: str) -> NewestRun | None:
        """The newest run of a workflow id, open or closed; None if there never was one.

        Raises:
            InvalidArgumentError: There can be no such workflow id.
            ShardNotOwnedError: This host does not have the shard.
            StorageUnavailableError: Postgres does not answer.
        """
        check_key(namespace_id, workflow_id, "workflow_id")
        shard = self.find_shard(namespace_id, workflow_id)
        newest = await self._newest.load((shard.shard_id, namespace_id, workflow_id))
        if not self.engine.is_served(shard):
            raise ShardNotOwnedError(shard.shard_id)
        return newest

    async def load(
        self, namespace_id: str, workflow_id: str, run_id: str = "", first_run_id: str = ""
    ) -> LoadedRun:
        """A run, from memory or from the log; the newest of the workflow id without a run id.

        What follows its return without an await works on the run's latest state.

        Args:
            namespace_id: The run's.
            workflow_id: The run's.
            run_id: The run's; empty for the newest.
            first_run_id: Only a run of the chain that this one began; empty for any.

        Raises:
            WorkflowNotFoundError: There is no such run, or it is of another chain.
            RunUnreadableError: What is stored of it cannot be used by this program.
            RunSetAsideError: A fault struck the run a moment ago.
            ShardNotOwnedError: This host does not have the shard.
            StorageUnavailableError: Postgres does not answer.
        """
        while True:
            self.find_shard(namespace_id, workflow_id)
            wanted = run_id
            if not wanted:
                newest = await self.load_newest(namespace_id, workflow_id)
                if newest is None:
                    raise WorkflowNotFoundError(workflow_id)
                wanted = newest.run_id
            run = self._cache.find(wanted)
            if (
                isinstance(run, LoadedRun)
                and run.key.name == workflow_id
                and run.key.namespace_id == namespace_id
            ):
                if first_run_id and run.state.started.first_execution_run_id != first_run_id:
                    raise WorkflowNotFoundError(workflow_id, first_run_id)
                return run
            # Into memory; or it says why not.
            await self.engine.load(RunKey(namespace_id, workflow_id, wanted))

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
        run = cast("LoadedRun", self.engine.create(key, record))
        check_storable(run.state)
        run.repeats_id = repeats_id
        return run
