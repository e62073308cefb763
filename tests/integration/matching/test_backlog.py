"""The backlog alone: its scripts on a real Redis."""

import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis.asyncio

from aetheris_server.clock import SystemClock
from aetheris_server.config import RedisSettings
from aetheris_server.embedded.redis import EmbeddedRedis
from aetheris_server.matching.backlog import Backlog, Counts, LeaseEnds, Popped
from aetheris_server.matching.match import SubQueue
from aetheris_server.matching.offers import QueuedTask, queue_key
from tests.support.matching import activity_ref, workflow_ref
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

QUEUE = queue_key(activity_ref("any"))
STICKY_QUEUE = queue_key(workflow_ref("any"))
SHARED = SubQueue("", frozenset())
GPU = SubQueue("", frozenset({"gpu"}))
STICKY = SubQueue("s", frozenset())


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """A Redis that a test may set up as it likes."""
    # Not tmp_path: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="redis-") as sockets:
        server = EmbeddedRedis(tmp_path_factory.mktemp("redis"), Path(sockets))
        server.start()
        yield server
        server.stop()


@pytest.fixture
async def backlog(redis_url: str, redis_key_prefix: str) -> AsyncIterator[Backlog]:
    backlog = Backlog(RedisSettings(url=redis_url, key_prefix=redis_key_prefix), 10, SystemClock())
    yield backlog
    await backlog.close()


def queued(name: str, *capabilities: str, age: float = 0.0) -> QueuedTask:
    ref = activity_ref(name, *capabilities, age=age)
    return QueuedTask(ref, None, None, time.time(), 0.0)


def sticky(name: str, timeout: float) -> QueuedTask:
    ref = workflow_ref(name, sticky_task_queue="s", sticky_timeout=timeout)
    return QueuedTask(ref, None, None, time.time(), 0.0)


async def push(backlog: Backlog, *tasks: QueuedTask) -> Counts:
    return (await backlog.push({QUEUE: tasks}))[QUEUE].counts


def names(popped: Popped) -> list[str]:
    return [ref.run_id for _, ref in popped.leased]


async def test_push_of_the_same_task_again_changes_nothing(backlog: Backlog) -> None:
    task = queued("a")
    assert await push(backlog, task, task) == {SHARED: 1}
    assert await push(backlog, task, queued("b")) == {SHARED: 2}


async def test_push_of_several_queues_and_sub_queues_counts_each(backlog: Backlog) -> None:
    pushed = await backlog.push(
        {QUEUE: [queued("a"), queued("b", "gpu")], STICKY_QUEUE: [sticky("c", 10)]}
    )
    assert {queue: of_queue.counts for queue, of_queue in pushed.items()} == {
        QUEUE: {SHARED: 1, GPU: 1},
        STICKY_QUEUE: {STICKY: 1},
    }


async def test_push_of_more_than_one_call_takes_keeps_all(backlog: Backlog) -> None:
    assert await push(backlog, *(queued(str(n)) for n in range(2_500))) == {SHARED: 2_500}


async def test_pop_over_sub_queues_takes_the_oldest_of_all(backlog: Backlog) -> None:
    await push(
        backlog,
        queued("newest", age=1),
        queued("oldest", "gpu", age=9),
        queued("middle", age=5),
        queued("unfit", "tpu", age=99),
    )
    popped = await backlog.pop(QUEUE, [SHARED, GPU], 2)
    assert names(popped) == ["oldest", "middle"]
    assert popped.counts == {SHARED: 1, GPU: 0}


async def test_pop_of_an_empty_queue_returns_nothing(backlog: Backlog) -> None:
    popped = await backlog.pop(QUEUE, [SHARED], 5)
    assert popped == Popped([], {SHARED: 0})


async def test_pop_gives_the_reference_back_as_it_was(backlog: Backlog) -> None:
    task = queued("a", "gpu", "tpu")
    await push(backlog, task)
    [(_, ref)] = (await backlog.pop(QUEUE, [SubQueue("", task.capabilities)], 1)).leased
    assert ref == task.ref


async def test_task_done_does_not_come_back(backlog: Backlog) -> None:
    await push(backlog, queued("a"))
    [(lease, _)] = (await backlog.pop(QUEUE, [SHARED], 1)).leased
    assert (await backlog.inspect([QUEUE]))[QUEUE].in_flight_count == 1
    await backlog.end_leases({QUEUE: LeaseEnds(done=[lease])})
    inspection = (await backlog.inspect([QUEUE]))[QUEUE]
    assert (inspection.in_flight_count, inspection.counts) == (0, {})


async def test_task_returned_is_at_the_head_again(backlog: Backlog) -> None:
    await push(backlog, queued("a", age=2), queued("b", age=1))
    [(lease, _)] = (await backlog.pop(QUEUE, [SHARED], 1)).leased
    counts = await backlog.end_leases({QUEUE: LeaseEnds(returned=[lease])})
    assert counts == {QUEUE: {SHARED: 2}}
    assert names(await backlog.pop(QUEUE, [SHARED], 2)) == ["a", "b"]


async def test_task_postponed_comes_back_later(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetheris_server.matching.backlog.POSTPONE_SECONDS", 0.05)
    await push(backlog, queued("a"))
    [(lease, _)] = (await backlog.pop(QUEUE, [SHARED], 1)).leased
    await backlog.end_leases({QUEUE: LeaseEnds(postponed=[lease])})
    await wait_for_counts(backlog, {SHARED: 1})


async def test_task_whose_lease_expired_comes_back_once(
    redis_url: str, redis_key_prefix: str
) -> None:
    settings = RedisSettings(url=redis_url, key_prefix=redis_key_prefix)
    backlog = Backlog(settings, 0.05, SystemClock())
    await push(backlog, queued("a"))
    [(lease, _)] = (await backlog.pop(QUEUE, [SHARED], 1)).leased
    await wait_for_counts(backlog, {SHARED: 1})
    # Its first poller is late.
    await backlog.end_leases({QUEUE: LeaseEnds(done=[lease], returned=[lease])})
    await wait_for_counts(backlog, {SHARED: 1})
    assert names(await backlog.pop(QUEUE, [SHARED], 5)) == ["a"]
    await backlog.close()


async def test_task_offered_again_while_in_flight_survives_the_end_of_its_lease(
    backlog: Backlog,
) -> None:
    await push(backlog, queued("a"))
    [(lease, _)] = (await backlog.pop(QUEUE, [SHARED], 1)).leased
    await push(backlog, queued("a"))
    await backlog.end_leases({QUEUE: LeaseEnds(done=[lease])})
    assert names(await backlog.pop(QUEUE, [SHARED], 5)) == ["a"]


async def test_sticky_task_whose_time_is_over_is_open_to_all(backlog: Backlog) -> None:
    await backlog.push({STICKY_QUEUE: [sticky("a", 0.1), sticky("b", 60)]})

    async def shared_count() -> bool:
        counts = (await backlog.inspect([STICKY_QUEUE]))[STICKY_QUEUE].counts
        return counts == {SHARED: 1, STICKY: 1}

    await wait_until(shared_count)
    assert names(await backlog.pop(STICKY_QUEUE, [SHARED], 5)) == ["a"]


async def test_describe_shows_waiting_and_in_flight_tasks(backlog: Backlog) -> None:
    await push(backlog, queued("a", age=9), queued("b", age=2), queued("c", "gpu"))
    await backlog.pop(QUEUE, [SHARED], 1)
    await backlog.pop(QUEUE, [GPU], 1)
    states = {state.sub_queue: state for state in await backlog.describe(QUEUE)}
    assert (states[SHARED].waiting_count, states[SHARED].in_flight_count) == (1, 1)
    assert states[SHARED].oldest_score == pytest.approx(time.time() - 2, abs=1)
    assert (states[GPU].waiting_count, states[GPU].in_flight_count) == (0, 1)
    assert states[GPU].oldest_score is None


async def test_queue_that_is_done_leaves_no_keys(
    backlog: Backlog, redis_url: str, redis_key_prefix: str
) -> None:
    await backlog.push({QUEUE: [queued("a"), queued("b", "gpu")], STICKY_QUEUE: [sticky("c", 9)]})
    for queue, sub_queues in ((QUEUE, [SHARED, GPU]), (STICKY_QUEUE, [STICKY])):
        popped = await backlog.pop(queue, sub_queues, 9)
        await backlog.end_leases({queue: LeaseEnds(done=[lease for lease, _ in popped.leased])})
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        assert await client.keys(f"*{redis_key_prefix}:*") == []


async def test_keys_of_a_queue_share_one_hash_tag(
    backlog: Backlog, redis_url: str, redis_key_prefix: str
) -> None:
    odd = queue_key(activity_ref("a", task_queue="odd}:tasks{ name"))
    await backlog.push({odd: [queued("a"), queued("b", "}")]})
    await backlog.pop(odd, [SHARED], 1)
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        keys = await client.keys(f"*{redis_key_prefix}:*")
    tags = {str(key).partition("{")[2].partition("}")[0] for key in keys}
    assert (len(keys), len(tags)) == (3, 1)


async def test_scripts_forgotten_by_redis_are_loaded_again(
    backlog: Backlog, redis_url: str
) -> None:
    await push(backlog, queued("a"))
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.script_flush()
    assert await push(backlog, queued("b")) == {SHARED: 2}


@dataclass
class Suspicion:
    count: int = 0

    def note(self) -> None:
        self.count += 1


async def test_epoch_after_a_flush_is_suspected_and_then_lost(
    backlog: Backlog, redis_url: str, redis_key_prefix: str
) -> None:
    suspicion = Suspicion()
    backlog.epoch.on_suspicion = suspicion.note
    assert await backlog.epoch.check(), "an empty redis may have lost tasks"
    assert not await backlog.epoch.check()
    async with redis.asyncio.Redis.from_url(redis_url) as client:
        await client.delete(f"{redis_key_prefix}:2:epoch")
    await push(backlog, queued("a"))
    assert suspicion.count == 1
    assert await backlog.epoch.check()
    assert not await backlog.epoch.check()


async def test_epoch_of_a_second_process_is_the_first_ones(
    backlog: Backlog, redis_url: str, redis_key_prefix: str
) -> None:
    await backlog.epoch.check()
    settings = RedisSettings(url=redis_url, key_prefix=redis_key_prefix)
    second = Backlog(settings, 10, SystemClock())
    assert not await second.epoch.check()
    await second.close()


async def wait_for_counts(backlog: Backlog, counts: Counts) -> None:
    async def are_as_wanted() -> bool:
        return (await backlog.inspect([QUEUE]))[QUEUE].counts == counts

    await wait_until(are_as_wanted, what=f"{counts}")


@pytest.mark.parametrize(
    "maxmemory, policy, problem",
    [
        ("0", "allkeys-lru", ""),
        ("100mb", "noeviction", ""),
        ("100mb", "volatile-ttl", ""),
        ("100mb", "allkeys-lru", "maxmemory-policy is allkeys-lru"),
    ],
)
async def test_redis_that_would_remove_tasks_is_a_problem_of_its_setup(
    own_redis: EmbeddedRedis, maxmemory: str, policy: str, problem: str
) -> None:
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        await client.config_set("maxmemory", maxmemory)
        await client.config_set("maxmemory-policy", policy)
    backlog = Backlog(RedisSettings(url=own_redis.url), 10, SystemClock())
    found = await backlog.check_setup()
    assert problem in found
    assert bool(found) == bool(problem)
    await backlog.close()


async def test_redis_that_does_not_tell_its_setup_is_asked_to_be_looked_at(
    own_redis: EmbeddedRedis,
) -> None:
    async with redis.asyncio.Redis.from_url(own_redis.url) as client:
        await client.execute_command("ACL", "SETUSER", "default", "-info")
        backlog = Backlog(RedisSettings(url=own_redis.url), 10, SystemClock())
        assert "does not tell" in await backlog.check_setup()
        await backlog.close()
        await client.execute_command("ACL", "SETUSER", "default", "+info")
