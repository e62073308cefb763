import asyncio
import tempfile

import pytest

from aetheris_server.config import MatchingSettings, RedisSettings
from aetheris_server.errors import StorageUnavailableError, UnavailableError
from tests.support.fake_history import FakeHistory
from tests.support.matching import (
    NAMESPACE_ID,
    activity_poll,
    activity_ref,
    workflow_poll,
    workflow_ref,
)
from tests.support.matching_host import MatchingHost, running_host
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration


async def test_task_with_a_waiting_poll_goes_there_without_redis(host: MatchingHost) -> None:
    poll = await host.start_poll(activity_poll())
    await host.service.add_tasks([activity_ref("a")])
    assert await poll == ["a"]
    assert await host.backlog_count() == 0


async def test_tasks_offered_together_with_one_poll_come_in_one_answer(host: MatchingHost) -> None:
    poll = await host.start_poll(activity_poll(max_tasks=3))
    await host.service.add_tasks([activity_ref(name) for name in "abcd"])
    assert await poll == ["a", "b", "c"]
    assert await host.poll(activity_poll()) == ["d"]


async def test_task_offered_just_before_a_poll_waits_in_memory_for_it(
    redis_settings: RedisSettings,
) -> None:
    async with running_host(MatchingSettings(linger=10), redis_settings) as host:
        assert await host.poll(activity_poll(poll_timeout=0.001)) == []
        offer = asyncio.create_task(host.service.add_tasks([activity_ref("a")]))
        await wait_until(lambda: host.service.statistics().held_task_count == 1)
        assert await host.poll(activity_poll()) == ["a"]
        await offer


async def test_task_that_is_offered_twice_is_started_once(host: MatchingHost) -> None:
    poll = await host.start_poll(activity_poll(max_tasks=9, poll_timeout=0.3))
    await asyncio.gather(
        host.service.add_tasks([activity_ref("a"), activity_ref("a")]),
        host.service.add_tasks([activity_ref("a")]),
    )
    assert await poll == ["a"]
    assert await host.poll(activity_poll(poll_timeout=0.05)) == []
    assert host.history.started == ["a"]


@pytest.mark.parametrize("poll_timeout", [0.02, 0])
async def test_poll_without_tasks_is_answered_empty_in_time(
    host: MatchingHost, poll_timeout: float
) -> None:
    async with asyncio.timeout(5):
        assert await host.poll(activity_poll(poll_timeout=poll_timeout)) == []


async def test_poll_with_only_gone_tasks_keeps_waiting(host: MatchingHost) -> None:
    await asyncio.gather(host.poll(activity_poll()), host.service.add_tasks([activity_ref("a")]))
    poll = await host.start_poll(activity_poll())
    await host.service.add_tasks([activity_ref("a")])
    assert not poll.done()
    await host.service.add_tasks([activity_ref("b")])
    assert await poll == ["b"]


async def test_task_that_history_cannot_start_now_is_offered_again(host: MatchingHost) -> None:
    host.history.retry_count = 2
    poll = await host.start_poll(activity_poll())
    await host.service.add_tasks([activity_ref("a")])
    assert await poll == ["a"]


async def test_task_that_history_never_starts_is_refused_to_its_offerer(host: MatchingHost) -> None:
    host.history.retry_count = 10_000
    poll = await host.start_poll(activity_poll())
    with pytest.raises(UnavailableError):
        await host.service.add_tasks([activity_ref("a")])
    poll.cancel()


async def test_poll_cancelled_while_it_waits_gives_its_task_to_the_next(host: MatchingHost) -> None:
    poll = await host.start_poll(activity_poll())
    offer = asyncio.create_task(host.service.add_tasks([activity_ref("a")]))
    await asyncio.sleep(0)  # the task is assigned, and the poll has not run yet
    poll.cancel()
    assert await host.poll(activity_poll()) == ["a"]
    await offer
    assert host.history.released == []


async def test_poll_cancelled_while_history_starts_its_tasks_releases_them(
    host: MatchingHost,
) -> None:
    host.history.gate = asyncio.Event()
    poll = await host.start_poll(activity_poll(max_tasks=2))
    offer = asyncio.create_task(host.service.add_tasks([activity_ref("a"), activity_ref("b")]))
    await wait_until(lambda: host.history.requests)
    poll.cancel()
    await asyncio.wait([poll])
    host.history.gate.set()
    await offer
    await wait_until(lambda: host.history.released == [b"a", b"b"])


async def test_cancelled_offer_leaves_nothing_in_memory(redis_settings: RedisSettings) -> None:
    async with running_host(MatchingSettings(linger=10), redis_settings) as host:
        await host.poll(activity_poll(poll_timeout=0.001))
        offer = asyncio.create_task(host.service.add_tasks([activity_ref("a")]))
        await wait_until(lambda: host.service.statistics().held_task_count == 1)
        offer.cancel()
        await asyncio.wait([offer])
        assert host.service.statistics().held_task_count == 0


async def test_task_goes_to_a_poll_with_its_capabilities_only(host: MatchingHost) -> None:
    plain = await host.start_poll(activity_poll(worker="plain"))
    able = await host.start_poll(activity_poll("gpu", "llm", worker="able"))
    await host.service.add_tasks([activity_ref("a", "gpu")])
    assert await able == ["a"]
    await host.service.add_tasks([activity_ref("b")])
    assert await plain == ["b"]


async def test_workflow_task_prefers_its_sticky_worker(host: MatchingHost) -> None:
    other = await host.start_workflow_poll(workflow_poll())
    sticky = await host.start_workflow_poll(workflow_poll(sticky_task_queue="s"))
    await host.service.add_tasks([workflow_ref("a", sticky_task_queue="s")])
    assert await sticky == ["a"]
    assert host.history.requests[0].sticky_task_queue == "s"
    await host.service.add_tasks([workflow_ref("b", sticky_task_queue="unknown")])
    assert await other == ["b"]


async def test_query_waits_in_memory_for_a_poll(host: MatchingHost) -> None:
    await host.service.add_tasks([workflow_ref("a", query_id="q1")])
    assert host.service.statistics().held_task_count == 1
    assert await host.poll_workflow(workflow_poll()) == ["a"]


async def test_query_that_expired_is_not_handed_out(host: MatchingHost) -> None:
    await host.service.add_tasks([workflow_ref("a", query_id="q1", expire_in=-1)])
    assert await host.poll_workflow(workflow_poll(poll_timeout=0.02)) == []
    assert host.service.statistics().held_task_count == 0


async def test_drain_with_waiting_polls_answers_them_and_later_ones_empty(
    host: MatchingHost,
) -> None:
    poll = await host.start_poll(activity_poll())
    host.service.begin_drain()
    assert await poll == []
    assert await host.poll(activity_poll()) == []
    await host.service.add_tasks([activity_ref("a")])
    assert await host.backlog_count() == 1


async def test_tasks_while_redis_is_down_reach_waiting_polls_only() -> None:
    nowhere = RedisSettings(url="unix:///nonexistent/redis.sock")
    async with running_host(MatchingSettings(linger=0.01), nowhere) as host:
        poll = await host.start_poll(activity_poll())
        await host.service.add_tasks([activity_ref("a")])
        assert await poll == ["a"]
        with pytest.raises(StorageUnavailableError):
            await host.service.add_tasks([activity_ref("b")])
        assert host.service.statistics().held_task_count == 0


async def test_describe_with_waiting_polls_shows_their_workers(host: MatchingHost) -> None:
    polls = [await host.start_poll(activity_poll("b", "a", worker="one")) for _ in range(2)]
    [poller] = (await host.describe()).pollers
    assert poller.identity == "one"
    assert list(poller.capabilities) == ["a", "b"]
    assert poller.waiting_poll_count == 2
    for poll in polls:
        poll.cancel()


async def test_statistics_namespaces_with_the_same_queue_are_apart(host: MatchingHost) -> None:
    poll = await host.start_poll(activity_poll(poll_timeout=0.1))
    stranger = activity_ref("a")
    stranger.namespace_id = NAMESPACE_ID.replace("1", "2")
    await host.service.add_tasks([stranger])
    assert await poll == []


async def test_redis_that_never_answers_is_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("aetheris_server.matching.redis_scripts.CALL_TIMEOUT", 0.1)
    closed = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await closed.wait()
        writer.close()

    # Of a short path: a socket's may have 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        server = await asyncio.start_unix_server(say_nothing, f"{folder}/redis.sock")
        silent = RedisSettings(url=f"unix://{folder}/redis.sock")
        async with running_host(MatchingSettings(linger=0.01), silent) as host:
            poll = await host.start_poll(activity_poll())
            with pytest.raises(StorageUnavailableError):
                await host.service.add_tasks([activity_ref("unfit", "gpu")])
            await host.service.add_tasks([activity_ref("a")])
            assert await poll == ["a"]
        closed.set()
        server.close()


async def test_close_while_history_starts_tasks_answers_their_poll(
    matching_settings: MatchingSettings, redis_settings: RedisSettings
) -> None:
    history = FakeHistory()
    history.gate = asyncio.Event()
    async with running_host(matching_settings, redis_settings, history) as host:
        poll = await host.start_poll(activity_poll())
        offer = asyncio.create_task(host.service.add_tasks([activity_ref("a")]))
        await wait_until(lambda: history.requests)
        asyncio.get_running_loop().call_later(0.05, history.gate.set)
    assert await poll == ["a"]
    await offer
