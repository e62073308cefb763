"""The history part of one process: the engine, the host's place in the cluster, and all tasks."""

import asyncio
from collections.abc import Coroutine
from functools import partial
from types import TracebackType
from typing import Any, Self

from aetheris_server.clock import Clock
from aetheris_server.cluster.default_builds import DefaultBuilds
from aetheris_server.cluster.membership import Membership
from aetheris_server.config import HistorySettings, LimitSettings
from aetheris_server.history.calls.recording import record_outcome
from aetheris_server.history.engine.due_scan import DueScan
from aetheris_server.history.engine.engine import Engine, EngineSettings
from aetheris_server.history.held_shards import HeldShards
from aetheris_server.history.kinds import KINDS
from aetheris_server.history.obligations.calls import CallCarrier
from aetheris_server.history.obligations.dispatcher import Dispatcher
from aetheris_server.history.obligations.tasks import TaskCarrier
from aetheris_server.history.recovery.recovery import Recovery, offer_all_again, run_catching_up
from aetheris_server.history.recovery.settling import Settler
from aetheris_server.history.recovery.sweep import Sweep
from aetheris_server.history.runs.kind import RUN
from aetheris_server.history.runs.limits import NamespaceLimits
from aetheris_server.history.runs.notices import CancellationNotices
from aetheris_server.history.runs.runs import RunFollower, Runs
from aetheris_server.history.service import serve_history
from aetheris_server.loops import end_tasks
from aetheris_server.rpc.peers import CallPeer, MatchingPeer
from aetheris_server.rpc.tokens import Tokens
from aetheris_server.storage.database import Database
from aetheris_server.storage.namespaces import load_namespace_limits
from aetheris_server.telemetry import get_logger

_log = get_logger(__name__)

_LEAVE_TIMEOUT = 10.0


class HistoryHost:
    """Everything of history that runs in one process. An async context manager.

    It has no shards until `join` has said where it listens. On exit what is queued is committed and
    the shards are given up.

    Attributes:
        service: What it answers for its shards.
        membership: Of this host: where the shards are.
    """

    def __init__(
        self,
        settings: HistorySettings,
        limits: LimitSettings,
        shard_count: int,
        host_id: str,
        db: Database,
        cluster_db: Database,
        clock: Clock,
        matching: MatchingPeer,
        history: CallPeer,
        tokens: Tokens,
        default_builds: DefaultBuilds,
    ) -> None:
        """Args:
        settings: Of history.
        limits: How far a run may grow, where its namespace does not say.
        shard_count: Of the cluster.
        host_id: A new one for each start.
        db: Where the log is.
        cluster_db: The same, by connections of their own: no load may keep hosts from each other.
        clock: Of this host.
        matching: Where tasks are offered.
        history: Where aggregates call each other, on any host.
        tokens: Of the cluster.
        default_builds: Which builds task queues prefer.
        """
        self.membership = Membership(
            settings, shard_count, host_id, cluster_db, clock, default_builds
        )
        directory = self.membership.directory
        self._dispatcher = Dispatcher(
            TaskCarrier(matching, clock, directory.locate_task, shard_count),
            CallCarrier(
                history,
                self.membership.locate_shard,
                shard_count,
                lambda shard_id: shard_id in self._engine.shards,
                lambda call, outcome: record_outcome(self._engine, call, outcome),
            ),
            clock,
        )
        self._notices = CancellationNotices(matching, directory.locate_queue)
        self._limits = NamespaceLimits(limits, partial(load_namespace_limits, cluster_db))
        self._follower = RunFollower(db, self._dispatcher, clock)
        self._engine = Engine(
            EngineSettings(
                shard_count=shard_count,
                cache_max_count=settings.cache_max_runs,
                cache_max_bytes=settings.cache_max_bytes,
                snapshot_interval_records=settings.snapshot_interval_records,
            ),
            KINDS,
            clock,
            db,
            self._dispatcher,
            lambda: self.membership.lease.is_valid,
            self.membership.on_shard_failed,
            {RUN.name: self._follower},
        )
        self._runs = Runs(
            self._engine,
            self._follower,
            self._limits,
            self._notices,
            tokens,
            default_builds,
        )
        self._settler = Settler(
            self._engine,
            cluster_db,
            host_id,
            settings.watermark_interval,
            self.membership.on_shard_failed,
        )
        self._recovery = Recovery(self._engine)
        self._due_scan = DueScan(self._engine, cluster_db)
        self.membership.attach(
            HeldShards(host_id, self._engine, self._settler, self._recovery, self._due_scan)
        )
        self._sweep = Sweep(self._engine, settings.sweep_interval)
        self.service = serve_history(self._runs)
        self._group = asyncio.TaskGroup()
        self._loops: list[asyncio.Task[None]] = []
        # What must have ended before the shards are given up.
        self._shard_loops: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        self._loops += self._begin(
            self._engine.run(),
            self._runs.run(),
            self._limits.run(),
            self._dispatcher.run(),
            self._notices.run(),
            self._recovery.run(),
            self._sweep.run(),
            run_catching_up(self._engine),
        )
        return self

    def _begin(self, *loops: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
        return [self._group.create_task(loop, name=loop.__qualname__) for loop in loops]

    async def join(self, address: str, *, is_reached: bool = True) -> None:
        """Take shards from now on; see Membership.join."""
        await self.membership.join(address, is_reached=is_reached)
        self._loops += self._begin(self.membership.lease.run())
        self._shard_loops += self._begin(
            self.membership.run(), self._settler.run(), self._due_scan.run()
        )

    async def offer_all_again(self) -> None:
        """The backlog is lost: offer every task that is owed."""
        await offer_all_again(self._engine)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self._shard_loops:
                await end_tasks(self._shard_loops)
                await self._leave()
        finally:
            await self._end_loops()

    async def _end_loops(self) -> None:
        try:
            await end_tasks(self._loops)
            # Without the error: the group would wrap what is not its own.
            await self._group.__aexit__(None, None, None)
        finally:
            await self._engine.close()
            await self._follower.close()

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(_LEAVE_TIMEOUT):
                await self.membership.leave()
        except Exception as error:  # noqa: BLE001 - whatever it is, the rest must be closed
            _log.error("the shards could not be given up; the lease runs out", error=str(error))
