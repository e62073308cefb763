"""Answers against a server that answers as the test says."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from aetheris.api.v1.worker_service_pb2 import (
    RespondActivityTaskCompletedResponse,
    RespondTasksRequest,
    RespondTasksResponse,
    TaskAnswer,
    TaskAnswerError,
    TaskAnswerResult,
)
from aetheris_client.connection import Connection
from aetheris_worker import answers
from aetheris_worker.answers import CALLS_IN_FLIGHT, AnswerSender
from tests.support.canned_server import CannedServer, Refusal
from tests.support.wait import wait_until

TIMEOUT = 10.0
Respond = Callable[[RespondTasksRequest], Awaitable[RespondTasksResponse]]


async def take_all(request: RespondTasksRequest) -> RespondTasksResponse:
    return RespondTasksResponse(
        results=[
            TaskAnswerResult(activity_task_completed=RespondActivityTaskCompletedResponse())
            for _ in request.answers
        ]
    )


@asynccontextmanager
async def sending(
    server: CannedServer, answer_timeout: float = 60.0
) -> AsyncGenerator[AnswerSender]:
    async with server, Connection(server.address) as connection:
        with connection.worker_service(CALLS_IN_FLIGHT) as stub:
            sender = AnswerSender(stub.RespondTasks, "default", answer_timeout)
        running = asyncio.create_task(sender.run())
        try:
            yield sender
        finally:
            running.cancel()
            await asyncio.wait([running])


async def send_all(sender: AnswerSender, tokens: Sequence[str]) -> list[TaskAnswerResult]:
    """Send an answer for each token; their results, in order of the tokens."""
    results: dict[str, TaskAnswerResult] = {}
    for token in tokens:
        answer = TaskAnswer()
        answer.activity_task_completed.task_token = token.encode()
        sender.send_nowait(answer, lambda result, token=token: results.update({token: result}))
    async with asyncio.timeout(TIMEOUT):
        await sender.wait_idle()
    return [results[token] for token in tokens]


def tokens_of(server: CannedServer) -> list[list[str]]:
    """What each call so far carried."""
    return [
        [answer.activity_task_completed.task_token.decode() for answer in request.answers]
        for request in server.requests_of(RespondTasksRequest)
    ]


async def test_answers_that_are_ready_together_go_in_one_call() -> None:
    server = CannedServer()
    server.on("RespondTasks", take_all)
    async with sending(server) as sender:
        results = await send_all(sender, ["a", "b", "c"])
    assert tokens_of(server) == [["a", "b", "c"]]
    assert all(result.HasField("activity_task_completed") for result in results)


async def test_answers_behind_two_calls_in_flight_wait_for_the_next() -> None:
    server = CannedServer()
    release = asyncio.Event()

    async def hold(request: RespondTasksRequest) -> RespondTasksResponse:
        await release.wait()
        return await take_all(request)

    server.on("RespondTasks", hold)
    async with sending(server) as sender:
        waiting: list[asyncio.Task[list[TaskAnswerResult]]] = []
        for count, token in enumerate(["a", "b"], start=1):
            waiting.append(asyncio.create_task(send_all(sender, [token])))
            await wait_until(lambda count=count: len(server.requests) == count)
        waiting.append(asyncio.create_task(send_all(sender, ["c", "d"])))
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(send_all(sender, ["e"])))
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(*waiting)
    assert tokens_of(server) == [["a"], ["b"], ["c", "d", "e"]]


async def test_large_answers_are_spread_over_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_BYTES", 250)
    server = CannedServer()
    server.on("RespondTasks", take_all)
    tokens = [letter * 100 for letter in "abcde"]
    async with sending(server) as sender:
        await send_all(sender, tokens)
    assert sorted(token for call in tokens_of(server) for token in call) == tokens
    assert all(len(call) <= 2 for call in tokens_of(server))


async def test_each_answer_gets_its_own_result() -> None:
    async def refuse_b(request: RespondTasksRequest) -> RespondTasksResponse:
        response = await take_all(request)
        stale = TaskAnswerError(code=grpc.StatusCode.NOT_FOUND.value[0], message="stale")
        response.results[1].CopyFrom(TaskAnswerResult(error=stale))
        return response

    server = CannedServer()
    server.on("RespondTasks", refuse_b)
    async with sending(server) as sender:
        results = await send_all(sender, ["a", "b", "c"])
    assert [result.WhichOneof("result") for result in results] == [
        "activity_task_completed",
        "error",
        "activity_task_completed",
    ]


@pytest.mark.parametrize(
    "code",
    [
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    ],
)
async def test_call_that_failed_in_passing_is_repeated(code: grpc.StatusCode) -> None:
    server = CannedServer()
    server.on("RespondTasks", Refusal(code), take_all)
    async with sending(server) as sender:
        results = await send_all(sender, ["a", "b"])
    assert tokens_of(server) == [["a", "b"], ["a", "b"]]
    assert not any(result.HasField("error") for result in results)


async def test_single_answer_that_failed_in_passing_is_repeated_alone() -> None:
    async def refuse_b(request: RespondTasksRequest) -> RespondTasksResponse:
        response = await take_all(request)
        moved = TaskAnswerError(code=grpc.StatusCode.UNAVAILABLE.value[0])
        response.results[1].CopyFrom(TaskAnswerResult(error=moved))
        return response

    server = CannedServer()
    server.on("RespondTasks", refuse_b, take_all)
    async with sending(server) as sender:
        results = await send_all(sender, ["a", "b"])
    assert tokens_of(server) == [["a", "b"], ["b"]]
    assert not any(result.HasField("error") for result in results)


async def test_call_that_is_refused_for_good_is_not_repeated() -> None:
    server = CannedServer()
    server.on("RespondTasks", Refusal(grpc.StatusCode.PERMISSION_DENIED))
    async with sending(server) as sender:
        results = await send_all(sender, ["a"])
    assert len(server.requests) == 1
    assert results[0].error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]


async def test_answer_whose_time_is_up_gets_the_error_of_the_call() -> None:
    server = CannedServer()
    server.on("RespondTasks", Refusal(grpc.StatusCode.UNAVAILABLE))
    async with sending(server, answer_timeout=0.2) as sender:
        results = await send_all(sender, ["a"])
    assert results[0].error.code == grpc.StatusCode.UNAVAILABLE.value[0]


async def test_server_that_comes_back_gets_what_waited() -> None:
    server = CannedServer()
    server.on("RespondTasks", take_all)
    async with sending(server) as sender:
        await send_all(sender, ["a"])
        await server.stop()
        waiting = asyncio.create_task(send_all(sender, ["b"]))
        await asyncio.sleep(0)
        await server.start()
        results = await waiting
    assert tokens_of(server)[-1] == ["b"]
    assert not results[0].HasField("error")


async def test_single_answer_that_the_server_has_no_room_for_now_is_repeated() -> None:
    server = CannedServer()
    server.on("RespondTasks", Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down"), take_all)
    async with sending(server) as sender:
        results = await send_all(sender, ["a"])
    assert tokens_of(server) == [["a"], ["a"]]
    assert not results[0].HasField("error")


@pytest.mark.parametrize("is_said", [True, False])
async def test_single_answer_that_is_too_large_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, is_said: bool
) -> None:
    message = "Received message larger than max (9 vs. 8)" if is_said else "no"
    if not is_said:
        monkeypatch.setattr(answers, "LARGE_BYTES", 4)
    server = CannedServer()
    server.on("RespondTasks", Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, message))
    async with sending(server) as sender:
        results = await send_all(sender, ["a"])
    assert len(server.requests) == 1
    assert results[0].error.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


async def test_batch_that_the_server_has_no_room_for_is_halved() -> None:
    server = CannedServer()
    server.on("RespondTasks", Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED), take_all)
    async with sending(server) as sender:
        results = await send_all(sender, list("abcd"))
    first, *others = tokens_of(server)
    assert first == list("abcd")
    assert sorted(token for call in others for token in call) == list("abcd")
    assert others[0] == ["a", "b"]
    assert not any(result.HasField("error") for result in results)


@pytest.mark.parametrize("error", [ValueError("no"), asyncio.CancelledError()])
async def test_delivery_that_raises_holds_up_no_other_answer(error: BaseException) -> None:
    def refuse_delivery(_: TaskAnswerResult) -> None:
        raise error

    server = CannedServer()
    server.on("RespondTasks", take_all)
    async with sending(server) as sender:
        for _ in range(answers.CALLS_IN_FLIGHT + 1):
            sender.send_nowait(TaskAnswer(), refuse_delivery)
            async with asyncio.timeout(TIMEOUT):
                await sender.wait_idle()
        results = await send_all(sender, ["a"])
    assert not results[0].HasField("error")


async def test_answer_that_is_not_wanted_any_more_is_not_sent() -> None:
    server = CannedServer()
    server.on("RespondTasks", take_all)
    results: list[TaskAnswerResult] = []
    async with sending(server) as sender:
        sender.send_nowait(TaskAnswer(), results.append, is_wanted=lambda: False)
        await send_all(sender, ["a"])
    assert tokens_of(server) == [["a"]]
    assert results[0].error.code == grpc.StatusCode.CANCELLED.value[0]


async def test_call_that_is_cancelled_from_outside_ends_the_sender_loudly() -> None:
    async def be_closed(*_: object, **__: object) -> RespondTasksResponse:
        raise asyncio.CancelledError

    closed: Any = be_closed
    sender = AnswerSender(closed, "default", 60.0)
    sender.send_nowait(TaskAnswer(), lambda _: None)
    with pytest.raises(ExceptionGroup) as caught:
        async with asyncio.timeout(TIMEOUT):
            await sender.run()
    assert "the connection was closed" in str(caught.value.exceptions[0])
