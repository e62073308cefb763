"""Tasks that find no poller, and polls that find tasks in the backlog."""

import asyncio
import random
from contextlib import AsyncExitStack

import pytest
import redis.asyncio

from aetheris.api.v1.worker_service_pb2 import ActivityCancellation
from aetheris.server.v1.matching_service_pb2 import NotifyCancellationRequest, TaskRef
from aetheris_server.config import MatchingSettings, RedisSettings
from aetheris_server.errors import UnavailableError
from tests.support.fake_history import FakeHistory
from tests.support.matching import (
    NAMESPACE_ID,
    activity_poll,
    activity_ref,
    workflow_poll,
    workflow_ref,
)
from tests.support.matching_host import MatchingHost, poll_activity_tasks, running_host
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


async def flush_all(redis_settings: RedisSettings) -> None:
    """Lose what this test has in Redis, which may be a server that others use too."""
    async with redis.asyncio.Redis.from_url(redis_settings.url) as client:
        async for key in client.scan_iter(f"*{redis_settings.key_prefix}*"):
            await client.delete(key)


async def test_task_without_a_poll_waits_in_the_backlog_for_one(host: MatchingHost) -> None:
    await host.service.add_tasks([activity_ref("a")])
    assert host.service.statistics().held_task_count == 0
    assert await host.backlog_count() == 1
    assert await host.poll(activity_poll()) == ["a"]
    await wait_until(lambda: is_empty(host))


async def test_tasks_in_the_backlog_come_oldest_first_and_several_at_once(
    host: MatchingHost,
) -> None:
    ages = {"b": 2, "c": 1, "a": 3}
    await host.service.add_tasks([activity_ref(name, age=age) for name, age in ages.items()])
    assert await host.poll(activity_poll(max_tasks=2)) == ["a", "b"]
    assert await host.poll(activity_poll(max_tasks=2)) == ["c"]


async def test_backlog_of_one_host_is_found_by_its_successor(
    matching_settings: MatchingSettings, redis_settings: RedisSettings
) -> None:
    async with running_host(matching_settings, redis_settings) as first:
        await first.service.add_tasks([activity_ref("a", "gpu"), activity_ref("b")])
    async with running_host(matching_settings, redis_settings) as second:
        assert await second.poll(activity_poll(max_tasks=5)) == ["b"]
        assert await second.poll(activity_poll("gpu", "llm")) == ["a"]
        assert second.losses == []


async def test_backlog_pushed_by_another_host_reaches_a_waiting_poll(
    matching_settings: MatchingSettings, redis_settings: RedisSettings
) -> None:
    async with (
        running_host(matching_settings, redis_settings) as first,
        running_host(matching_settings, redis_settings) as second,
    ):
        poll = await second.start_poll(activity_poll())
        await first.service.add_tasks([activity_ref("a")])
        assert await poll == ["a"]


async def test_poll_cancelled_while_history_starts_backlog_tasks_releases_them(
    host: MatchingHost,
) -> None:
    await host.service.add_tasks([activity_ref("a")])
    host.history.gate = asyncio.Event()
    poll = await host.start_poll(activity_poll())
    await wait_until(lambda: host.history.requests)
    poll.cancel()
    await asyncio.wait([poll])
    host.history.gate.set()
    await wait_until(lambda: host.history.released == [b"a"])
    await wait_until(lambda: is_empty(host))


async def test_backlog_task_that_history_cannot_start_now_comes_back(host: MatchingHost) -> None:
    await host.service.add_tasks([activity_ref("a")])
    host.history.retry_count = 1
    assert await host.poll(activity_poll()) == ["a"]
    assert len(host.history.requests) == 2


async def test_backlog_task_of_a_killed_host_comes_back_when_its_lease_expires(
    redis_settings: RedisSettings,
) -> None:
    settings = MatchingSettings(lease_timeout=0.2, linger=0.01)
    async with running_host(settings, redis_settings) as host:
        await host.service.add_tasks([activity_ref("a")])
        # What a host does that is killed between pop and start.
        [queue] = host.service._queues.values()
        await host.service._backlog.pop(queue.key, list(queue.backlog), 1)
        assert await host.in_flight_count() == 1
        assert await host.poll(activity_poll()) == ["a"]


async def test_sticky_backlog_goes_to_its_worker_while_that_polls(host: MatchingHost) -> None:
    sticky = workflow_poll(sticky_task_queue="s", poll_timeout=0.001)
    assert await host.poll_workflow(sticky) == []
    await host.service.add_tasks([workflow_ref("a", sticky_task_queue="s")])
    assert await host.poll_workflow(workflow_poll(poll_timeout=0.05)) == []
    assert await host.poll_workflow(workflow_poll(sticky_task_queue="s")) == ["a"]


async def test_sticky_backlog_of_a_vanished_worker_goes_to_any(host: MatchingHost) -> None:
    await host.poll_workflow(workflow_poll(sticky_task_queue="s", poll_timeout=0.001))
    await host.service.add_tasks([workflow_ref("a", sticky_task_queue="s", sticky_timeout=60)])
    assert await host.poll_workflow(workflow_poll()) == ["a"]


async def test_flushed_redis_is_reported_and_offers_go_on(
    host: MatchingHost, redis_settings: RedisSettings
) -> None:
    await wait_until(lambda: len(host.losses) == 1, what="the empty redis of the start")
    await host.service.add_tasks([activity_ref("a"), activity_ref("b")])
    await flush_all(redis_settings)
    await wait_until(lambda: len(host.losses) == 2)
    await host.service.add_tasks([activity_ref("a"), activity_ref("b")])
    assert sorted(await host.poll(activity_poll(max_tasks=9))) == ["a", "b"]


async def test_flushed_redis_under_a_waiting_poll_does_not_disturb_it(
    host: MatchingHost, redis_settings: RedisSettings
) -> None:
    poll = await host.start_poll(activity_poll())
    await flush_all(redis_settings)
    await host.service.add_tasks([activity_ref("a")])
    assert await poll == ["a"]


async def test_loss_that_cannot_be_reported_is_reported_again(
    matching_settings: MatchingSettings, redis_settings: RedisSettings
) -> None:
    attempts: list[None] = []

    async def fail_once() -> None:
        attempts.append(None)
        if len(attempts) == 1:
            raise UnavailableError("history is not there yet")

    async with running_host(matching_settings, redis_settings, on_backlog_lost=fail_once):
        await wait_until(lambda: len(attempts) == 2)


async def test_cancellation_wakes_the_waiting_poll_of_its_worker(host: MatchingHost) -> None:
    other = await host.start_poll(activity_poll(worker="other"))
    mine = asyncio.create_task(poll_activity_tasks(host.service, activity_poll(worker="mine")))
    await wait_until(lambda: host.service.statistics().poll_count == 2)
    await host.service.notify_cancellation(cancellation_for("mine"))
    assert [each.activity_id for each in (await mine).cancellations] == ["x"]
    assert not other.done()
    other.cancel()


async def test_cancellation_without_a_poll_waits_for_the_next(host: MatchingHost) -> None:
    await host.service.notify_cancellation(cancellation_for("mine"))
    await host.service.notify_cancellation(cancellation_for("mine"))
    response = await poll_activity_tasks(host.service, activity_poll(worker="mine"))
    assert [each.activity_id for each in response.cancellations] == ["x"]
    assert await host.poll(activity_poll(worker="mine", poll_timeout=0.01)) == []


async def test_describe_with_a_backlog_shows_it_by_capabilities(host: MatchingHost) -> None:
    await host.service.add_tasks(
        [activity_ref("a", age=100), activity_ref("b", "gpu", "llm"), activity_ref("c")]
    )
    plain, able = (await host.describe()).backlogs
    assert (list(plain.capabilities), plain.backlog_count) == ([], 2)
    assert plain.oldest_age.seconds in (100, 101)
    assert (list(able.capabilities), able.backlog_count) == (["gpu", "llm"], 1)


def numbered_ref(name: str) -> TaskRef:
    return activity_ref(name, *(["gpu"] if int(name) % 3 == 0 else []))


async def offer_in_parts(hosts: list[MatchingHost], names: list[str], rng: random.Random) -> None:
    for start in range(0, len(names), 10):
        refs = [numbered_ref(name) for name in names[start : start + 10]]
        await rng.choice(hosts).service.add_tasks(refs)
        await asyncio.sleep(rng.random() * 0.01)


async def poll_and_vanish(
    hosts: list[MatchingHost],
    missing: set[str],
    received: list[str],
    worker: int,
    rng: random.Random,
) -> None:
    """A worker whose calls are often cut off; what reaches it, it has."""
    capabilities = ["gpu"] if worker % 2 else []
    while missing:
        request = activity_poll(
            *capabilities, max_tasks=rng.randint(1, 7), worker=str(worker), poll_timeout=0.2
        )
        poll = asyncio.create_task(rng.choice(hosts).poll(request))
        if rng.random() < 0.4:
            await asyncio.sleep(rng.random() * 0.004)
            poll.cancel()
        await asyncio.wait([poll])
        if not poll.cancelled():
            received.extend(poll.result())
            missing.difference_update(poll.result())


@pytest.mark.parametrize("is_flushed", [False, True])
@pytest.mark.parametrize("seed", range(3))
async def test_every_task_is_started_once_whatever_polls_do(
    redis_settings: RedisSettings, seed: int, is_flushed: bool
) -> None:
    rng = random.Random(seed)
    history = FakeHistory()
    names = [str(n) for n in range(300)]
    missing, received = set(names), list[str]()
    settings = MatchingSettings(linger=0.002, lease_timeout=30)

    async def dispatch_again() -> None:
        await hosts[0].service.add_tasks(
            [numbered_ref(name) for name in history.not_started(names)]
        )

    # Without a loss nothing is offered twice, so that nothing covers up for a lost task.
    on_backlog_lost = dispatch_again if is_flushed else None
    async with AsyncExitStack() as stack:
        hosts = [
            await stack.enter_async_context(
                running_host(settings, redis_settings, history, on_backlog_lost)
            )
            for _ in range(2)
        ]
        group = await stack.enter_async_context(asyncio.TaskGroup())
        history.on_release = lambda token: group.create_task(
            hosts[0].service.add_tasks([numbered_ref(token.decode())])
        )
        group.create_task(offer_in_parts(hosts, names, rng))
        for worker in range(6):
            group.create_task(poll_and_vanish(hosts, missing, received, worker, rng))
        if is_flushed:
            await wait_until(lambda: len(received) > 100)
            await flush_all(redis_settings)
    assert sorted(received) == sorted(names)


async def is_empty(host: MatchingHost) -> bool:
    return not (await host.describe()).backlogs


def cancellation_for(worker: str) -> NotifyCancellationRequest:
    return NotifyCancellationRequest(
        namespace_id=NAMESPACE_ID,
        task_queue="q",
        worker_instance_id=worker,
        cancellation=ActivityCancellation(activity_id="x", scheduled_event_id=5, attempt=1),
    )
