"""Each long-lived task ends when it is cancelled, at whichever await, whatever that makes of it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, cast

import pytest

from aetheris.server.v1 import matching_service_pb2
from aetheris.server.v1.history_service_pb2 import AggregateCall
from aetheris_server.clock import SystemClock
from aetheris_server.cluster.default_builds import DefaultBuilds
from aetheris_server.cluster.membership import Membership
from aetheris_server.config import HistorySettings, LimitSettings, Settings
from aetheris_server.errors import ShardNotOwnedError, StorageUnavailableError
from aetheris_server.history.engine.committer import Commit, Committer
from aetheris_server.history.engine.due_scan import DueScan
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.held_shards import HeldShards
from aetheris_server.history.obligations.dispatcher import Dispatcher
from aetheris_server.history.recovery.recovery import Recovery, run_catching_up
from aetheris_server.history.recovery.settling import Settler
from aetheris_server.history.recovery.sweep import Sweep
from aetheris_server.history.runs.limits import NamespaceLimits
from aetheris_server.history.runs.newest import NewestRuns
from aetheris_server.history.runs.notices import CancellationNotices
from aetheris_server.history.shard import Shard
from aetheris_server.history.state.run import RunKey
from aetheris_server.ids import new_run_id
from aetheris_server.loops import end_tasks
from aetheris_server.matching.lease_ender import Fate, LeaseEnder
from aetheris_server.matching.offers import QueueKey
from aetheris_server.matching.upkeep import Upkeep
from aetheris_server.processes.channel import AskMetrics, Begin
from aetheris_server.processes.child import Child
from aetheris_server.supervised import SupervisedHost
from tests.support.cancelling import Interruption
from tests.support.engines import build_dispatcher, build_runs

_Loop = Callable[[], Coroutine[Any, Any, None]]

_NOTHING = cast("Any", None)
_NAMESPACE_ID = "11111111-1111-4111-8111-111111111111"
_ITEMS = 50
_MAX_AWAITS = 8
_TURNS = 500
_END_TIMEOUT = 2.0


class _Away:
    """Whatever is asked of it takes a moment and fails: a store, or a peer."""

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def fail(*_: object, **__: object) -> None:
            await asyncio.sleep(0)
            raise StorageUnavailableError("postgres", "gone")

        return fail


_AWAY = cast("Any", _Away())


def _engine() -> Engine:
    engine = build_runs(SystemClock(), db=_AWAY, dispatcher=_dispatcher()).engine
    engine.add_shard(Shard(shard_id=0, range_id=1, next_seq=1, watermark=0))
    return engine


def _membership() -> Membership:
    engine = _engine()
    builds = DefaultBuilds(_AWAY)
    membership = Membership(HistorySettings(), 1, "host", _AWAY, SystemClock(), builds)
    settler, recovery, due_scan = _settler(engine), Recovery(engine), DueScan(engine, _AWAY)
    membership.attach(HeldShards("host", engine, settler, recovery, due_scan))
    membership.lease.begin(SystemClock().monotonic())
    return membership


def _settler(engine: Engine) -> Settler:
    return Settler(engine, _AWAY, "host", 0.0, lambda _: None)


def _due_scan() -> _Loop:
    due_scan = DueScan(_engine(), _AWAY)
    due_scan.wake()
    return due_scan.run


def _recovery() -> _Loop:
    recovery = Recovery(_engine())
    recovery.wake()
    return recovery.run


def _catching_up() -> _Loop:
    engine = _engine()
    for lanes in engine.dispatcher.all_lanes:
        lanes.skip([0])
    return partial(run_catching_up, engine)


def _dispatcher() -> Dispatcher:
    dispatcher = build_dispatcher(_AWAY, SystemClock(), history=_AWAY)
    dispatcher.offer([matching_service_pb2.TaskRef(run_id=f"{number}") for number in range(_ITEMS)])
    dispatcher.offer([AggregateCall(request_id=f"{number}") for number in range(_ITEMS)])
    return dispatcher


def _committer() -> _Loop:
    committer = Committer(_AWAY, lambda *_: None)
    for number in range(_ITEMS):
        committer.enqueue(Commit(number, rows=[], on_done=lambda *_: committer._wake.set()))
    return committer.run


def _newest() -> _Loop:
    newest = NewestRuns(_AWAY.load, max_entries=10)
    for number in range(_ITEMS):
        newest._wanted[(0, "ns", f"{number}")] = asyncio.get_running_loop().create_future()
    newest._wake.set()
    return newest.run


def _notices() -> _Loop:
    notices = CancellationNotices(_AWAY)
    notices.send(matching_service_pb2.NotifyCancellationRequest() for _ in range(_ITEMS))
    return notices.run


def _loads() -> _Loop:
    wakeups = _engine().wakeups
    for number in range(_ITEMS):
        wakeups._to_load.put_nowait(RunKey(_NAMESPACE_ID, f"workflow-{number}", new_run_id()))
    return wakeups._load_due


def _upkeep() -> Upkeep:
    return Upkeep({}, _AWAY_BACKLOG, _AWAY.offer)


def _reports() -> _Loop:
    upkeep = _upkeep()
    upkeep._is_lost.set()
    return upkeep.run_reports


def _sweep() -> _Loop:
    engine = _engine()
    for number in range(_ITEMS):
        engine.shards[0].owing.flagged.add(
            RunKey(_NAMESPACE_ID, f"workflow-{number}", new_run_id())
        )
    for lanes in engine.dispatcher.all_lanes:
        lanes._lanes.clear()
    return Sweep(engine, 0.0).run


def _lease_ender() -> _Loop:
    lease_ender = LeaseEnder(_AWAY, lambda *_: None)
    lease_ender.end_lease(QueueKey("ns", "queue", cast("Any", 1)), cast("Any", "lease"), Fate.DONE)
    return lease_ender.run


class _Channel:
    """The other side asks again and again, and takes all that is said."""

    has_unsent = False

    def say(self, message: object) -> None:
        pass

    async def hear(self) -> AskMetrics:
        await asyncio.sleep(0)
        return AskMetrics()


def _supervised() -> SupervisedHost:
    begin = Begin(number=1, settings="", shard_count=1, end_timeout=60.0)
    return SupervisedHost(begin, Settings(), cast("Any", _Channel()))


def _child() -> Child:
    return Child(1, Settings(), 1, 60.0)


class _AwayBacklog(_Away):
    epoch = cast("Any", _Away())


_AWAY_BACKLOG = cast("Any", _AwayBacklog())

_LOOPS: dict[str, Callable[[], _Loop]] = {
    "committer": _committer,
    "newest runs": _newest,
    "limits of namespaces": lambda: NamespaceLimits(LimitSettings(), _AWAY.load, 0.0).run,
    "notices": _notices,
    "deadlines": lambda: _engine().wakeups._watch,
    "loads": _loads,
    "dispatcher": lambda: _dispatcher().run,
    "engine": lambda: _engine().run,
    "wake-ups": lambda: _engine().wakeups.run,
    "lease": lambda: _membership().lease.run,
    "membership": lambda: _membership().run,
    "settling": lambda: _settler(_engine()).run,
    "due scan": _due_scan,
    "catching up": _catching_up,
    "recovery": _recovery,
    "upkeep": lambda: _upkeep().run_rounds,
    "reports": _reports,
    "lease ends": _lease_ender,
    "sweep": _sweep,
    "talk with the supervisor": lambda: _supervised().listen,
    "signs of life": lambda: _supervised().tell,
    "watch over a process": lambda: partial(_child()._watch, _NOTHING),
}

_ERRORS: dict[str, Callable[[], BaseException]] = {
    "cancelled": asyncio.CancelledError,
    "unavailable": lambda: StorageUnavailableError("postgres", "gone"),
    "not owned": lambda: ShardNotOwnedError(0),
    "timeout": TimeoutError,
    "a fault": lambda: ValueError("a fault"),
}


@pytest.mark.parametrize("error", _ERRORS)
@pytest.mark.parametrize("name", _LOOPS)
async def test_loop_ends_when_it_is_cancelled_at_any_of_its_awaits(name: str, error: str) -> None:
    for position in range(1, _MAX_AWAITS + 1):
        interruption = Interruption(position, _ERRORS[error])
        task = asyncio.create_task(interruption.run(_LOOPS[name]()()))
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        if not interruption.is_reached:
            # It waits for work that does not come.
            assert position > 1
            await end_tasks([task])
            return
        done, _ = await asyncio.wait([task], timeout=_END_TIMEOUT)
        assert done, f"await {position}"
        with suppress(asyncio.CancelledError, Exception):
            task.result()
