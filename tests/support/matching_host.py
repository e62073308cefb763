"""One matching host under test, on a real Redis, with a fake history behind it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from aetheris.api.v1.operator_service_pb2 import DescribeTaskQueueResponse
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY
from aetheris.api.v1.worker_service_pb2 import (
    PollActivityTasksRequest,
    PollActivityTasksResponse,
    PollWorkflowTasksRequest,
)
from aetheris.server.v1 import matching_service_pb2
from aetheris_server.clock import SystemClock
from aetheris_server.cluster.default_builds import DefaultBuilds
from aetheris_server.config import MatchingSettings, RedisSettings
from aetheris_server.matching import MatchingService
from tests.support.fake_history import FakeHistory
from tests.support.matching import NAMESPACE_ID
from tests.support.wait import wait_until


async def poll_activity_tasks(
    service: MatchingService, request: PollActivityTasksRequest
) -> PollActivityTasksResponse:
    """What a poll that the frontend passes on is answered with."""
    poll = matching_service_pb2.PollActivityTasksRequest(namespace_id=NAMESPACE_ID, request=request)
    return (await service.poll_activity_tasks(poll)).response


@dataclass
class MatchingHost:
    """One matching host under test."""

    service: MatchingService
    history: FakeHistory
    losses: list[None] = field(default_factory=list[None])

    async def poll(self, request: PollActivityTasksRequest) -> list[str]:
        response = await poll_activity_tasks(self.service, request)
        return [task.task_token.decode() for task in response.tasks]

    async def poll_workflow(self, request: PollWorkflowTasksRequest) -> list[str]:
        poll = matching_service_pb2.PollWorkflowTasksRequest(
            namespace_id=NAMESPACE_ID, request=request
        )
        response = (await self.service.poll_workflow_tasks(poll)).response
        return [task.task_token.decode() for task in response.tasks]

    async def start_poll(self, request: PollActivityTasksRequest) -> "asyncio.Task[list[str]]":
        """A poll that waits."""
        return await self._wait_for_poll(asyncio.create_task(self.poll(request)))

    async def start_workflow_poll(
        self, request: PollWorkflowTasksRequest
    ) -> "asyncio.Task[list[str]]":
        return await self._wait_for_poll(asyncio.create_task(self.poll_workflow(request)))

    async def describe(self, task_queue: str = "q") -> DescribeTaskQueueResponse:
        request = matching_service_pb2.DescribeTaskQueueRequest(namespace_id=NAMESPACE_ID)
        request.request.task_queue = task_queue
        request.request.task_queue_type = TASK_QUEUE_TYPE_ACTIVITY
        return (await self.service.describe_task_queue(request)).response

    async def backlog_count(self) -> int:
        return sum(info.backlog_count for info in (await self.describe()).backlogs)

    async def in_flight_count(self) -> int:
        return sum(info.in_flight_count for info in (await self.describe()).backlogs)

    async def _wait_for_poll(self, poll: "asyncio.Task[list[str]]") -> "asyncio.Task[list[str]]":
        before = self.service.statistics().poll_count
        await wait_until(lambda: self.service.statistics().poll_count == before + 1)
        return poll


@asynccontextmanager
async def running_host(
    settings: MatchingSettings,
    redis_settings: RedisSettings,
    history: FakeHistory | None = None,
    on_backlog_lost: Callable[[], Awaitable[None]] | None = None,
    default_builds: DefaultBuilds | None = None,
) -> AsyncGenerator[MatchingHost]:
    """A host, until the block is left. Losses of the backlog are noted and handed on."""
    history = history or FakeHistory()
    losses: list[None] = []

    async def note_loss() -> None:
        losses.append(None)
        if on_backlog_lost is not None:
            await on_backlog_lost()

    default_builds = default_builds or DefaultBuilds(cast("Any", None))
    async with MatchingService(
        settings, redis_settings, history, SystemClock(), note_loss, default_builds
    ) as service:
        yield MatchingHost(service, history, losses)
