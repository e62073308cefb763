"""What whoever starts tasks may rely on, of the real history and of the one that tests put behind
matching.
"""

import uuid
from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

import pytest

from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_WORKFLOW
from aetheris.server.v1.history_service_pb2 import (
    StartedTask,
    StartTasksRequest,
    StartTasksResponse,
)
from aetheris.server.v1.matching_service_pb2 import TaskRef
from tests.support.fake_history import FakeHistory
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench, start_request
from tests.support.matching import workflow_ref

pytestmark = pytest.mark.integration


class _History(Protocol):
    async def start_tasks(self, request: StartTasksRequest) -> StartTasksResponse: ...

    async def release_tasks(self, task_tokens: Sequence[bytes]) -> None: ...


class _Subject:
    """One of the two, and references to tasks of it that nobody has."""

    def __init__(self, history: _History, bench: HistoryBench | None = None) -> None:
        self.history = history
        self._bench = bench

    async def new_ref(self) -> TaskRef:
        name = str(uuid.uuid4())
        if self._bench is None:
            return workflow_ref(name)
        await self._bench.service.start_workflow(NAMESPACE_ID, start_request(name))
        return await self._bench.take_ref(TASK_QUEUE_TYPE_WORKFLOW)

    async def start(self, *refs: TaskRef, request_id: str = "") -> list[StartedTask]:
        request = StartTasksRequest(
            tasks=refs, identity="worker", worker_instance_id="worker", request_id=request_id
        )
        return list((await self.history.start_tasks(request)).tasks)


@pytest.fixture(params=["real", "fake"])
async def subject(
    request: pytest.FixtureRequest, migrated_postgres_dsn: str
) -> AsyncGenerator[_Subject]:
    if request.param == "fake":
        yield _Subject(FakeHistory())
        return
    async with history_bench(migrated_postgres_dsn) as bench:
        yield _Subject(bench.service, bench)


def _outcomes(tasks: Sequence[StartedTask]) -> list[str | None]:
    return [task.WhichOneof("outcome") for task in tasks]


async def test_task_is_started_once(subject: _Subject) -> None:
    one, two = await subject.new_ref(), await subject.new_ref()
    assert _outcomes(await subject.start(one)) == ["workflow_task"]
    assert _outcomes(await subject.start(one, two)) == ["gone", "workflow_task"]


async def test_task_that_is_released_can_be_started_again(subject: _Subject) -> None:
    one, two = await subject.new_ref(), await subject.new_ref()
    first, _ = await subject.start(one, two)
    await subject.history.release_tasks([first.workflow_task.task_token])
    assert _outcomes(await subject.start(one, two)) == ["workflow_task", "gone"]


async def test_call_that_comes_again_starts_anew_what_it_has_started(subject: _Subject) -> None:
    one, two = await subject.new_ref(), await subject.new_ref()
    await subject.start(one, request_id="call")
    await subject.start(two, request_id="another")
    again = await subject.start(one, two, request_id="call")
    assert _outcomes(again) == ["workflow_task", "gone"]
