"""The lanes in which tasks go to the hosts that take them."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import cast

import pytest
from prometheus_client import REGISTRY

from aetheris.server.v1 import matching_service_pb2
from aetheris_server.clock import SystemClock
from aetheris_server.errors import StorageUnavailableError
from aetheris_server.history.obligations import lane, lanes
from aetheris_server.history.obligations.dispatcher import Dispatcher
from aetheris_server.history.runs import notices as notices_of_history
from aetheris_server.history.runs.notices import CancellationNotices, Notice
from aetheris_server.ids import shard_of
from aetheris_server.rpc.peers import MatchingPeer
from aetheris_server.rpc.table import NOTIFY_CANCELLATION
from tests.support.clock import ManualClock
from tests.support.engines import build_dispatcher
from tests.support.wait import wait_until

TaskRef = matching_service_pb2.TaskRef

_SHARDS = 8


class _Notified:
    """Hosts that are told of cancellations; the one named `hung` never answers."""

    def __init__(self) -> None:
        self.told: list[str] = []

    async def call(self, method: object, notice: Notice) -> None:
        assert method is NOTIFY_CANCELLATION
        if notice.task_queue == "hung":
            await asyncio.get_running_loop().create_future()
        self.told.append(notice.task_queue)


async def test_host_that_takes_no_cancellation_notice_holds_up_no_other() -> None:
    hosts = _Notified()
    notices = CancellationNotices(cast("MatchingPeer", hosts), lambda _, queue, __: queue)
    running = asyncio.create_task(notices.run())
    for queue in ("hung", "hung", "good", "hung", "good"):
        notices.send([Notice(task_queue=queue)])
    await wait_until(lambda: hosts.told == ["good", "good"], 2)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_notices_that_find_no_room_cost_those_of_another_host_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(notices_of_history, "_MAX_WAITING", 2)
    hosts = _Notified()
    notices = CancellationNotices(cast("MatchingPeer", hosts), lambda _, queue, __: queue)
    dropped = REGISTRY.get_sample_value("aetheris_dropped_cancellation_notices_total") or 0
    notices.send(Notice(task_queue=queue) for queue in ("hung", "hung", "hung", "good"))
    assert REGISTRY.get_sample_value("aetheris_cancellation_notices_waiting") == 3
    assert REGISTRY.get_sample_value("aetheris_dropped_cancellation_notices_total") == dropped + 1
    running = asyncio.create_task(notices.run())
    await wait_until(lambda: hosts.told == ["good"], 2)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


class _Hosts:
    """Hosts that take tasks; each queue is at the host of its name until it moves."""

    def __init__(self) -> None:
        self.hung: set[str] = set()
        self.dead: set[str] = set()
        self.moved: dict[str, str] = {}
        self.taken: list[str] = []
        self.calls = 0

    def locate(self, task: TaskRef) -> str:
        return self.moved.get(task.task_queue, task.task_queue)

    async def add_tasks(self, tasks: Sequence[TaskRef]) -> None:
        self.calls += 1
        hosts = {self.locate(task) for task in tasks}
        assert len(hosts) == 1, "one call is for one host"
        if hosts & self.hung:
            await asyncio.get_running_loop().create_future()
        if hosts & self.dead:
            raise StorageUnavailableError("redis", "gone")
        self.taken += [task.run_id for task in tasks]


@asynccontextmanager
async def _dispatching(hosts: _Hosts) -> AsyncGenerator[Dispatcher]:
    dispatcher = build_dispatcher(hosts, SystemClock(), hosts.locate, _SHARDS)
    running = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


def _refs(host: str, names: Iterable[object]) -> list[TaskRef]:
    return [TaskRef(run_id=f"{name}", workflow_id=f"{name}", task_queue=host) for name in names]


async def _fill_slots(hosts: _Hosts, dispatcher: Dispatcher, host: str) -> None:
    for number in range(100):
        before = hosts.calls
        dispatcher.offer(_refs(host, [f"lost-{number}"]))
        if number < 16:
            await wait_until(lambda before=before: hosts.calls > before)


@pytest.mark.parametrize("fault", ["hung", "dead"])
async def test_host_that_does_not_take_tasks_holds_up_no_other(fault: str) -> None:
    hosts = _Hosts()
    getattr(hosts, fault).add("bad")
    async with _dispatching(hosts) as dispatcher:
        await _fill_slots(hosts, dispatcher, "bad")
        dispatcher.offer(_refs("good", ["a"]))
        await wait_until(lambda: hosts.taken == ["a"], 2)


async def test_tasks_follow_their_queue_when_it_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "_SEND_TIMEOUT", 0.2)
    hosts = _Hosts()
    hosts.hung.add("bad")
    async with _dispatching(hosts) as dispatcher:
        await _fill_slots(hosts, dispatcher, "bad")
        hosts.moved["bad"] = "good"
        await wait_until(lambda: len(set(hosts.taken)) == 100, 5)


async def test_tasks_beyond_a_lane_s_bound_are_skipped_until_it_has_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane, "LANE_MAX_COUNT", 10)
    hosts = _Hosts()
    hosts.dead.add("bad")
    names = [f"run-{number}" for number in range(30)]
    async with _dispatching(hosts) as dispatcher:
        for name in names:
            dispatcher.offer(_refs("bad", [name]))
        dispatcher.offer(_refs("good", ["a"]))
        skipped = asyncio.create_task(dispatcher.tasks.wait_skipped())
        await wait_until(lambda: hosts.taken == ["a"])
        assert not skipped.done()
        hosts.dead.clear()
        shards = await asyncio.wait_for(skipped, 5)
        await wait_until(lambda: sorted(hosts.taken[1:]) == sorted(names[:10]))
        assert shards == {shard_of("", name, _SHARDS) for name in names[10:]}


async def test_lane_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "LANE_MAX_BYTES", 2_000)
    hosts = _Hosts()
    hosts.dead.add("bad")
    async with _dispatching(hosts) as dispatcher:
        for _ in range(3):
            dispatcher.offer(_refs("bad", ["x" * 1_000]))
        hosts.dead.clear()
        assert len(await asyncio.wait_for(dispatcher.tasks.wait_skipped(), 5)) == 1
        await wait_until(lambda: len(hosts.taken) == 1)


async def test_batch_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_BATCH_BYTES", 3_000)
    hosts = _Hosts()
    async with _dispatching(hosts) as dispatcher:
        dispatcher.offer(
            TaskRef(task_queue="a", run_id=f"{number}", capabilities=["x" * 1_000])
            for number in range(10)
        )
        await wait_until(lambda: len(hosts.taken) == 10)
    assert hosts.calls == 5


async def test_query_finds_room_in_a_full_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "LANE_MAX_COUNT", 1)
    hosts = _Hosts()
    async with _dispatching(hosts) as dispatcher:
        query = TaskRef(run_id="query", task_queue="good", query_id="q")
        dispatcher.offer(_refs("good", ["a"]))
        dispatcher.offer([query])
        await wait_until(lambda: hosts.taken == ["a", "query"])


async def test_room_is_waited_for_only_in_lanes_that_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane, "LANE_MAX_COUNT", 10)
    hosts = _Hosts()
    hosts.hung.add("bad")
    async with _dispatching(hosts) as dispatcher:
        dispatcher.offer(_refs("bad", range(10)))
        await asyncio.wait_for(dispatcher.wait_room(), 5)


async def test_batch_that_found_no_slot_waits_no_longer_for_it() -> None:
    clock, hosts = ManualClock(), _Hosts()
    sender = build_dispatcher(hosts, clock, hosts.locate, _SHARDS).tasks
    refs = _refs("bad", ["a"])
    lane = sender._lane_to("bad")
    lane.count_in(refs[0])
    lane.batch_count = lanes._MAX_CONCURRENT_BATCHES
    sender._push("bad", refs, 0.1)
    async with asyncio.TaskGroup() as offers:
        for _ in range(10):
            before = clock.monotonic()
            clock.advance(sender._later[0].due - before)
            sender._take_due(offers)
            assert clock.monotonic() - before < 0.11
    assert sender._later[0].interval == 0.2
