"""Reads beside writes: they end, and show nothing that is not on disk."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from aetheris.api.v1 import common_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris.server.v1.history_service_pb2 import StartedTask
from aetheris_server.errors import (
    QueryRejectedError,
    RequestError,
    TaskNotFoundError,
    WorkflowClosedError,
)
from aetheris_server.storage.log import load_run
from tests.support.history_host import (
    NAMESPACE_ID,
    HistoryBench,
    history_bench,
    signal_request,
    start_request,
)
from tests.support.raw import schedule_activity
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
    run = await bench.runs.load(NAMESPACE_ID, "w")
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
        run = await bench.runs.load(NAMESPACE_ID, "w")
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


async def test_result_of_an_open_run_that_is_not_waited_for_is_answered_at_once(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
        request = workflow_service_pb2.PollWorkflowResultRequest(workflow_execution=_EXECUTION)
        request.wait_timeout.seconds = 0
        async with asyncio.timeout(5):
            response = await bench.service.poll_workflow_result(NAMESPACE_ID, request)
        assert response.run_id
        assert not response.HasField("result")


async def test_page_of_a_run_whose_close_is_on_its_way_has_the_close(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
        request = workflow_service_pb2.TerminateWorkflowRequest(workflow_execution=_EXECUTION)
        run = await bench.runs.load(NAMESPACE_ID, "w")
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


# Refusals are reads as well.


@dataclass(frozen=True, slots=True)
class _Tokens:
    """Of the tasks of run "w" that a worker has."""

    workflow_task: bytes
    activity: bytes


async def _tokens_of_run(bench: HistoryBench) -> _Tokens:
    await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
    first = (await bench.start_task(await bench.take_ref(TASK_QUEUE_TYPE_WORKFLOW))).workflow_task
    await bench.service.respond_workflow_task_completed(
        NAMESPACE_ID,
        worker_service_pb2.RespondWorkflowTaskCompletedRequest(
            task_token=first.task_token,
            commands=[schedule_activity()],
            force_create_new_workflow_task=True,
        ),
    )
    activity = await bench.start_task(await bench.take_ref(TASK_QUEUE_TYPE_ACTIVITY))
    second = StartedTask()
    while not second.HasField("workflow_task"):
        second = await bench.start_task(await bench.take_ref(TASK_QUEUE_TYPE_WORKFLOW))
    return _Tokens(second.workflow_task.task_token, activity.activity_task.task_token)


def _query_open() -> workflow_service_pb2.QueryWorkflowRequest:
    return workflow_service_pb2.QueryWorkflowRequest(
        workflow_execution=_EXECUTION,
        query_type="q",
        query_reject_condition=workflow_service_pb2.QUERY_REJECT_CONDITION_NOT_OPEN,
    )


def _signal(bench: HistoryBench, _: _Tokens) -> Awaitable[object]:
    return bench.service.signal_workflow(NAMESPACE_ID, signal_request("w"))


def _cancel(bench: HistoryBench, _: _Tokens) -> Awaitable[object]:
    request = workflow_service_pb2.CancelWorkflowRequest(workflow_execution=_EXECUTION)
    return bench.service.cancel_workflow(NAMESPACE_ID, request)


def _terminate(bench: HistoryBench, _: _Tokens) -> Awaitable[object]:
    request = workflow_service_pb2.TerminateWorkflowRequest(
        workflow_execution=_EXECUTION, request_id=str(uuid.uuid4())
    )
    return bench.service.terminate_workflow(NAMESPACE_ID, request)


def _query(bench: HistoryBench, _: _Tokens) -> Awaitable[object]:
    return bench.service.query_workflow(NAMESPACE_ID, _query_open())


def _decide(bench: HistoryBench, tokens: _Tokens) -> Awaitable[object]:
    request = worker_service_pb2.RespondWorkflowTaskCompletedRequest(
        task_token=tokens.workflow_task
    )
    return bench.service.respond_workflow_task_completed(NAMESPACE_ID, request)


def _fail_task(bench: HistoryBench, tokens: _Tokens) -> Awaitable[object]:
    request = worker_service_pb2.RespondWorkflowTaskFailedRequest(task_token=tokens.workflow_task)
    return bench.service.respond_workflow_task_failed(NAMESPACE_ID, request)


def _complete_activity(bench: HistoryBench, tokens: _Tokens) -> Awaitable[object]:
    request = worker_service_pb2.RespondActivityTaskCompletedRequest(task_token=tokens.activity)
    return bench.service.respond_activity_task_completed(NAMESPACE_ID, request)


def _fail_activity(bench: HistoryBench, tokens: _Tokens) -> Awaitable[object]:
    request = worker_service_pb2.RespondActivityTaskFailedRequest(task_token=tokens.activity)
    return bench.service.respond_activity_task_failed(NAMESPACE_ID, request)


def _cancel_activity(bench: HistoryBench, tokens: _Tokens) -> Awaitable[object]:
    request = worker_service_pb2.RespondActivityTaskCancelledRequest(task_token=tokens.activity)
    return bench.service.respond_activity_task_cancelled(NAMESPACE_ID, request)


def _heartbeat(bench: HistoryBench, tokens: _Tokens) -> Awaitable[object]:
    request = worker_service_pb2.RecordActivityTaskHeartbeatRequest(task_token=tokens.activity)
    return bench.service.record_activity_task_heartbeat(NAMESPACE_ID, request)


@pytest.mark.parametrize(
    "call, refusal",
    [
        (_signal, WorkflowClosedError),
        (_cancel, WorkflowClosedError),
        (_terminate, WorkflowClosedError),
        (_query, QueryRejectedError),
        (_decide, TaskNotFoundError),
        (_fail_task, TaskNotFoundError),
        (_complete_activity, TaskNotFoundError),
        (_fail_activity, TaskNotFoundError),
        (_cancel_activity, TaskNotFoundError),
        (_heartbeat, TaskNotFoundError),
    ],
)
async def test_call_is_refused_for_a_close_only_when_that_is_on_disk(
    migrated_postgres_dsn: str,
    call: Callable[[HistoryBench, _Tokens], Awaitable[object]],
    refusal: type[RequestError],
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        tokens = await _tokens_of_run(bench)
        run = await bench.runs.load(NAMESPACE_ID, "w")
        async with bench.engine.writer._turn:
            ending = asyncio.ensure_future(_terminate(bench, tokens))
            await wait_until(lambda: not run.is_committed)
            calling = asyncio.ensure_future(call(bench, tokens))
            # Far more turns of the loop than it needs to look at the run.
            for _ in range(100):
                await asyncio.sleep(0)
            assert not calling.done()
        await ending
        with pytest.raises(refusal):
            await calling


async def test_query_is_not_refused_for_a_close_that_came_after_it(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        tokens = await _tokens_of_run(bench)
        await _decide(bench, tokens)
        run = await bench.runs.load(NAMESPACE_ID, "w")
        async with bench.engine.writer._turn:
            signalling = asyncio.ensure_future(_signal(bench, tokens))
            await wait_until(lambda: not run.is_committed)
            querying = asyncio.ensure_future(_query(bench, tokens))
            await asyncio.sleep(0)
            ending = asyncio.ensure_future(_terminate(bench, tokens))
            await wait_until(lambda: not run.state.is_open)
        await wait_until(lambda: querying.done() or run.queries)
        assert not querying.done()
        querying.cancel()
        await asyncio.wait([signalling, querying, ending])
