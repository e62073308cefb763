"""A Redis that hangs: what needs none goes on."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any, cast

import pytest
import redis.asyncio

from aetheris_server.clock import SystemClock
from aetheris_server.config import RedisSettings
from aetheris_server.errors import StorageUnavailableError
from aetheris_server.history.obligations.dispatcher import Dispatcher
from tests.support.engines import build_dispatcher
from tests.support.matching import activity_poll, activity_ref
from tests.support.matching_host import MatchingHost
from tests.support.wait import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.fault]


@asynccontextmanager
async def _paused(settings: RedisSettings) -> AsyncGenerator[None]:
    """Redis answers nothing that writes, until the block is left."""
    async with redis.asyncio.Redis.from_url(settings.url) as client:
        await cast("Any", client).execute_command("CLIENT", "PAUSE", "60000", "WRITE")
        try:
            yield
        finally:
            await cast("Any", client).execute_command("CLIENT", "UNPAUSE")


@asynccontextmanager
async def _dispatching(host: MatchingHost) -> AsyncGenerator[Dispatcher]:
    dispatcher = build_dispatcher(host.service, SystemClock())
    running = asyncio.create_task(dispatcher.run())
    try:
        yield dispatcher
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def test_tasks_that_meet_a_poll_go_at_full_speed_while_redis_hangs(
    host: MatchingHost, redis_settings: RedisSettings
) -> None:
    seconds: list[float] = []
    async with _dispatching(host) as dispatcher, _paused(redis_settings):
        for number in range(60):
            dispatcher.offer([activity_ref(f"nobody-{number}", task_queue=f"nobody-{number}")])
            poll = await host.start_poll(activity_poll())
            begin = time.monotonic()
            dispatcher.offer([activity_ref(f"{number}")])
            assert await poll == [f"{number}"]
            seconds.append(time.monotonic() - begin)
    # The first of them find all slots with tasks for which nobody knew better yet.
    assert max(seconds) < 1.5
    assert sum(seconds) < 3


async def test_tasks_that_redis_did_not_take_are_taken_when_it_is_back(
    host: MatchingHost, redis_settings: RedisSettings
) -> None:
    names = [f"{number}" for number in range(40)]
    async with _dispatching(host) as dispatcher:
        async with _paused(redis_settings):
            with pytest.raises(StorageUnavailableError):
                await host.service.add_tasks([activity_ref("first")])
            for name in names:
                dispatcher.offer([activity_ref(name)])
            with pytest.raises(StorageUnavailableError):
                await host.service.add_tasks([activity_ref("second")])
        taken: set[str] = set()

        async def take() -> bool:
            with suppress(StorageUnavailableError):
                taken.update(await host.poll(activity_poll(max_tasks=50, poll_timeout=0.1)))
            return taken >= set(names)

        await wait_until(take, 20)


async def test_task_that_redis_did_not_take_keeps_none_of_its_batch_from_a_poll_that_comes(
    host: MatchingHost, redis_settings: RedisSettings
) -> None:
    assert await host.poll(activity_poll(poll_timeout=0.001)) == []
    async with _paused(redis_settings):
        with pytest.raises(StorageUnavailableError):
            await host.service.add_tasks([activity_ref("lost", task_queue="nobody")])
        poll = await host.start_poll(activity_poll(max_tasks=2))
        batch = [activity_ref("lost", task_queue="nobody"), activity_ref("a")]
        with pytest.raises(StorageUnavailableError):
            await host.service.add_tasks(batch)
        assert await poll == ["a"]
