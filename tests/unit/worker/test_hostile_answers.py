"""Decisions and queries that cannot be sent as they are: the server hears why."""

import logging
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest

from aetheris.api.v1.common_pb2 import Payload
from aetheris.api.v1.history_pb2 import WorkflowTaskFailedCause
from aetheris.api.v1.worker_service_pb2 import QueryResultType, TaskAnswer
from aetheris_client import Client
from aetheris_client.converter import DataConverter
from aetheris_worker import Worker, workflow
from aetheris_worker.workflow_tasks import deciding, threads
from aetheris_worker.workflow_tasks.outcomes import failure_of, message_of
from tests.support.canned_server import Refusal
from tests.support.history_builder import HistoryBuilder
from tests.support.wait import wait_until
from tests.unit.worker.task_server import TaskServer, working

TOO_LARGE = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_GRPC_MESSAGE_TOO_LARGE


@workflow.defn
class Large:
    """Asks for as many activities with large arguments as it is told to; answers large queries."""

    @workflow.run
    async def run(self, count: int) -> None:
        for _ in range(count):
            workflow.start_activity(
                "work", "x" * 1_000_000, start_to_close_timeout=timedelta(minutes=1)
            )
        await workflow.wait_condition(lambda: False)

    @workflow.query
    def large(self, size: int) -> str:
        return "x" * size


def begin(count: int) -> HistoryBuilder:
    history = HistoryBuilder("Large", count)
    history.task_started()
    return history


async def answer_of(server: TaskServer, history: HistoryBuilder) -> TaskAnswer:
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, workflows=[Large]):
        return await server.wait_answer()


async def test_decision_larger_than_a_message_fails_the_task_saying_so() -> None:
    answer = await answer_of(TaskServer(), begin(8))
    assert answer.workflow_task_failed.cause == TOO_LARGE
    assert "7340032 is the limit" in answer.workflow_task_failed.failure.message


async def test_decision_that_is_refused_as_too_large_fails_the_task() -> None:
    server = TaskServer()
    respond: Any = server.respond
    refusal = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max")
    server.canned.on("RespondTasks", refusal, respond)
    answer = await answer_of(server, begin(1))
    assert answer.workflow_task_failed.cause == TOO_LARGE
    assert "larger than max" in answer.workflow_task_failed.failure.message


async def test_large_query_results_do_not_go_with_the_decision() -> None:
    server = TaskServer()
    task = server.task_of(begin(0))
    for query_id, size in (("a", 3_000_000), ("b", 1_900_000), ("c", 1_900_000), ("d", 1_900_000)):
        task.queries[query_id].query_type = "large"
        argument = DataConverter.default().to_payload(size)
        task.queries[query_id].query_args.payloads.append(argument)
    server.workflow_tasks.put_nowait(task)
    async with working(server, workflows=[Large]):
        completed = (await server.wait_answer()).workflow_task_completed
    results = completed.query_results
    failed = [
        query_id
        for query_id in sorted(results)
        if results[query_id].result_type == QueryResultType.QUERY_RESULT_TYPE_FAILED
    ]
    assert failed[0] == "a"
    assert len(failed) == 2
    assert "query 'large' answered 3000036 bytes" in results["a"].error_message


async def test_large_decision_leaves_no_room_for_query_results_but_is_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deciding, "MAX_DECISION_BYTES", 3_000_000)
    server = TaskServer()
    task = server.task_of(begin(2))
    task.queries["a"].query_type = "large"
    task.queries["a"].query_args.payloads.append(DataConverter.default().to_payload(1_900_000))
    server.workflow_tasks.put_nowait(task)
    async with working(server, workflows=[Large]):
        completed = (await server.wait_answer()).workflow_task_completed
    assert len(completed.commands) == 2
    result = completed.query_results["a"]
    assert result.result_type == QueryResultType.QUERY_RESULT_TYPE_FAILED


class CodecThatFails:
    """Has lost its key."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        raise ValueError("no such key")


async def test_codec_that_fails_on_a_history_page_fails_the_task() -> None:
    server, history = TaskServer(), begin(0)
    history.task_completed()
    history.signaled("unheard")
    history.task_started()
    server.workflow_tasks.put_nowait(server.task_of(history, from_event_id=5))
    async with server.canned:
        converter = DataConverter(codec=CodecThatFails())
        client = await Client.connect(server.canned.address, data_converter=converter)
        async with Worker(client, task_queue="queue", workflows=[Large]):
            failed = (await server.wait_answer()).workflow_task_failed
        await client.close()
    assert "no such key" in failed.failure.message


class RaisesInStrError(Exception):
    def __str__(self) -> str:
        raise KeyError("no words")


@pytest.mark.parametrize(
    "error, message",
    [
        (RaisesInStrError(), "RaisesInStrError"),
        (ValueError("\udcff"), "\\udcff"),
        (KeyError(), "KeyError"),
    ],
)
def test_message_of_any_error_can_be_sent(error: Exception, message: str) -> None:
    assert message_of(error) == message
    failure_of(error, DataConverter.default()).SerializeToString()


def test_failure_that_is_too_large_keeps_the_begin_of_its_message() -> None:
    failure = failure_of(ValueError("x" * 3_000_000), DataConverter.default())
    assert failure.ByteSize() < 100_000


@workflow.defn
class BlocksAtItsEnd:
    @workflow.run
    async def run(self) -> None:
        try:
            await workflow.wait_condition(lambda: False)
        finally:
            threading.Event().wait(0.5)


async def test_code_that_blocks_when_it_is_evicted_is_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads, "LIMIT", 0.1)
    server = TaskServer()
    blocking = HistoryBuilder("BlocksAtItsEnd")
    blocking.task_started()
    other = HistoryBuilder("Large", 0, run_id="run-2")
    other.task_started()
    server.workflow_tasks.put_nowait(server.task_of(blocking))
    server.workflow_tasks.put_nowait(server.task_of(other))
    with caplog.at_level(logging.ERROR):
        async with working(server, workflows=[Large, BlocksAtItsEnd], max_cached_workflows=1):
            await server.wait_answer(2)
            await wait_until(lambda: "potential deadlock" in caplog.text)
    assert "threading.Event().wait(0.5)" in caplog.text
