"""An engine and its runs as a host puts them together, for tests that stand in for the rest."""

from collections.abc import Callable, Sequence
from typing import Any, cast

from aetheris.server.v1.history_service_pb2 import AggregateCall, CallOutcome, CallRetry
from aetheris_server.clock import Clock
from aetheris_server.cluster.default_builds import DefaultBuilds
from aetheris_server.config import LimitSettings
from aetheris_server.history.aggregates.key import AggregateKey
from aetheris_server.history.engine.engine import Engine, EngineSettings
from aetheris_server.history.engine.loader import fold
from aetheris_server.history.kinds import KINDS
from aetheris_server.history.obligations.calls import CallCarrier
from aetheris_server.history.obligations.dispatcher import Dispatcher
from aetheris_server.history.obligations.tasks import LocateTask, TaskCarrier
from aetheris_server.history.runs.kind import RUN
from aetheris_server.history.runs.limits import NamespaceLimits
from aetheris_server.history.runs.notices import CancellationNotices
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import RunFollower, Runs
from aetheris_server.rpc.peers import CallPeer
from aetheris_server.storage.log import RunRecord
from aetheris_server.storage.snapshots import SnapshotRow
from tests.support.secrets import TOKENS

_NOTHING = cast("Any", None)


class NoCalls:
    """Nobody is called: whatever is owed stays owed."""

    async def call_aggregates(self, calls: Sequence[AggregateCall]) -> Sequence[CallOutcome]:
        return [CallOutcome(retry=CallRetry()) for _ in calls]


def build_dispatcher(
    matching: Any,
    clock: Clock,
    locate: LocateTask = lambda _: None,
    shard_count: int = 1,
    history: CallPeer | None = None,
) -> Dispatcher:
    """A dispatcher whose calls, if there are any, nobody answers unless a test does."""

    async def record(*_: object) -> bool:
        return True

    return Dispatcher(
        TaskCarrier(matching, clock, locate, shard_count),
        CallCarrier(history or NoCalls(), lambda _: None, shard_count, lambda _: True, record),
        clock,
    )


def build_runs(
    clock: Clock,
    *,
    db: Any = _NOTHING,
    matching: Any = _NOTHING,
    dispatcher: Dispatcher | None = None,
    is_leased: Callable[[], bool] = lambda: True,
    **settings: Any,
) -> Runs:
    """The runs of an engine with no shard yet; `settings` are those of the engine."""
    chosen = {
        "shard_count": 1,
        "cache_max_count": 10,
        "cache_max_bytes": 10**9,
        "snapshot_interval_records": 100,
        **settings,
    }
    dispatcher = dispatcher or build_dispatcher(matching, clock)

    async def no_limits() -> dict[str, dict[str, int]]:
        return {}

    follower = RunFollower(db, dispatcher, clock)
    engine = Engine(
        EngineSettings(**chosen),
        KINDS,
        clock,
        db,
        dispatcher,
        is_leased,
        lambda *_: None,
        {RUN.name: follower},
    )
    limits = NamespaceLimits(LimitSettings(), no_limits)
    notices = CancellationNotices(matching)
    return Runs(engine, follower, limits, notices, TOKENS, DefaultBuilds(db))


def fold_run(
    key: AggregateKey, shard_id: int, snapshot: SnapshotRow | None, records: Sequence[RunRecord]
) -> LoadedRun:
    """A run from its snapshot, if it has one, and its log."""
    return cast("LoadedRun", fold(RUN, key, shard_id, snapshot, records))
