"""Reads beside writes: they end, and show nothing that is not on disk."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from aetheris.api.v1 import common_pb2, workflow_service_pb2
from aetheris_server.storage.log import load_run
from tests.support.history_host import (
    NAMESPACE_ID,
    HistoryBench,
    history_bench,
    signal_request,
    start_request,
)
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

_EXECUTION = common_pb2.WorkflowExecution(workflow_id="w")
_WRITERS = 8
_READS = 20


async def _read_history(bench: HistoryBench) -> None:
    """The events of the first page; fails if one is not on disk."""
    page = await bench.service.get_workflow_history(
        NAMESPACE_ID,
        workflow_service_pb2.GetWorkflowHistoryRequest(workflow_execution=_EXECUTION),
    )
    run = await bench.engine.load(NAMESPACE_ID, "w")
    records = await load_run(bench.db, run.shard_id, run.key.run_id)
    on_disk = records[-1].first_event_id + records[-1].event_count - 1
    assert page.history.events[-1].event_id <= on_disk


async def _read_close_event(bench: HistoryBench) -> None:
    await bench.service.get_workflow_history(
        NAMESPACE_ID,
        workflow_service_pb2.GetWorkflowHistoryRequest(
            workflow_execution=_EXECUTION,
            filter=workflow_service_pb2.HISTORY_EVENT_FILTER_CLOSE_EVENT,
        ),
    )


async def _poll_result(bench: HistoryBench) -> None:
    request = workflow_service_pb2.PollWorkflowResultRequest(workflow_execution=_EXECUTION)
    request.wait_timeout.FromMilliseconds(1)
    await bench.service.poll_workflow_result(NAMESPACE_ID, request)


async def _describe(bench: HistoryBench) -> None:
    await bench.service.describe_workflow(
        NAMESPACE_ID, workflow_service_pb2.DescribeWorkflowRequest(workflow_execution=_EXECUTION)
    )


@asynccontextmanager
async def _under_steady_writes(bench: HistoryBench) -> AsyncGenerator[None]:
    """So many writers that a new transition is queued before anybody hears of the last one."""
    await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))

    async def write() -> None:
        while True:
            await bench.service.signal_workflow(NAMESPACE_ID, signal_request("w"))

    writers = [asyncio.create_task(write()) for _ in range(_WRITERS)]
    try:
        run = await bench.engine.load(NAMESPACE_ID, "w")
        await wait_until(lambda: run.state.signal_count > _WRITERS)
        yield
    finally:
        for writer in writers:
            writer.cancel()
        await asyncio.wait(writers)
    assert all(writer.cancelled() for writer in writers)


@pytest.mark.parametrize("read", [_read_history, _read_close_event, _poll_result, _describe])
async def test_read_beside_steady_writes_ends(
    migrated_postgres_dsn: str, read: Callable[[HistoryBench], Awaitable[None]]
) -> None:
    async with (
        history_bench(migrated_postgres_dsn) as bench,
        _under_steady_writes(bench),
        asyncio.timeout(20),
    ):
        for _ in range(_READS):
            await read(bench)


async def test_page_of_a_run_whose_close_is_on_its_way_has_the_close(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
        request = workflow_service_pb2.TerminateWorkflowRequest(workflow_execution=_EXECUTION)
        run = await bench.engine.load(NAMESPACE_ID, "w")
        async with bench.engine.writer._turn:
            ending = asyncio.create_task(bench.service.terminate_workflow(NAMESPACE_ID, request))
            await wait_until(lambda: not run.is_committed)
            reading = asyncio.create_task(
                bench.service.get_workflow_history(
                    NAMESPACE_ID,
                    workflow_service_pb2.GetWorkflowHistoryRequest(workflow_execution=_EXECUTION),
                )
            )
            await asyncio.sleep(0)
        page = await reading
        await ending
    assert page.history.events[-1].HasField("workflow_execution_terminated_event_attributes")
    assert not page.next_page_token
