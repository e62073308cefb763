"""Drives a simple workflow to its end, whatever happens to the server meanwhile."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

import grpc
import grpc.aio

from aetheris.api.v1 import common_pb2, workflow_service_pb2
from tests.support.raw import (
    Raw,
    complete_workflow,
    schedule_activity,
    seconds,
    text_of,
)

T = TypeVar("T")

_POLL_SECONDS = 3.0
_PASSING = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_PAUSE = 0.05


@dataclass(slots=True)
class Driven:
    """What the client and the worker saw.

    Attributes:
        acknowledged: Calls that the server answered well, in order.
    """

    run: common_pb2.WorkflowExecution
    result: workflow_service_pb2.WorkflowResult
    acknowledged: list[str] = field(default_factory=list[str])


async def persist(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a call while the server is away."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() not in _PASSING:
                raise
        await asyncio.sleep(_PAUSE)


async def drive_simple_workflow(
    server: Raw, *, eager: bool = False, timeout: float = 60.0
) -> Driven:
    """Start a run with one activity, work for it, and wait for its end."""
    workflow_id, request_id = f"w-{uuid.uuid4()}", str(uuid.uuid4())
    acknowledged: list[str] = []
    async with asyncio.timeout(timeout):
        workers = [
            asyncio.create_task(_decide_forever(server, eager, acknowledged)),
            asyncio.create_task(_act_forever(server, acknowledged)),
        ]
        try:
            started = await persist(lambda: server.start(workflow_id, request_id=request_id))
            acknowledged.append("start")
            run = common_pb2.WorkflowExecution(workflow_id=workflow_id, run_id=started.run_id)
            while True:
                result = await persist(lambda: server.result(run, wait=5.0))
                if result is not None:
                    return Driven(run, result, acknowledged)
        finally:
            for worker in workers:
                worker.cancel()
            ended = await asyncio.gather(*workers, return_exceptions=True)
            for error in ended:
                if error is not None and not isinstance(error, asyncio.CancelledError):
                    raise error


async def answer(call: Callable[[], Awaitable[T]]) -> T | None:
    """Answer a task; None if the server says that it is over."""
    try:
        return await persist(call)
    except grpc.aio.AioRpcError as error:
        if error.code() != grpc.StatusCode.NOT_FOUND:
            raise
        return None


async def _decide_forever(server: Raw, eager: bool, acknowledged: list[str]) -> None:
    sticky = "sticky" if eager else ""
    while True:
        tasks = await persist(lambda: server.poll_workflows(_POLL_SECONDS))
        for task in tasks:
            await _decide(server, task, sticky, eager, acknowledged)


async def _decide(server: Raw, task, sticky: str, eager: bool, acknowledged: list[str]) -> None:
    results = [
        text_of(event.activity_task_completed_event_attributes.result)
        for event in task.history.events
        if event.HasField("activity_task_completed_event_attributes")
    ]
    if results:
        command = complete_workflow(results[0])
    else:
        command = schedule_activity(
            request_eager_execution=eager, start_to_close_timeout=seconds(600)
        )
    decided = await answer(
        lambda: server.decide(task, command, sticky=sticky, return_new_workflow_task=eager)
    )
    if decided is None:
        return
    acknowledged.append("decide")
    for activity in decided.activity_tasks:
        completed = await answer(
            lambda activity=activity: server.complete_activity(
                activity, "42", sticky_task_queue=sticky
            )
        )
        if completed is not None:
            acknowledged.append("complete_activity")
            if completed.HasField("workflow_task"):
                await _decide(server, completed.workflow_task, sticky, eager, acknowledged)


async def _act_forever(server: Raw, acknowledged: list[str]) -> None:
    while True:
        polled = await persist(lambda: server.poll_activities(_POLL_SECONDS))
        for task in polled.tasks:
            completed = await answer(lambda task=task: server.complete_activity(task, "42"))
            if completed is not None:
                acknowledged.append("complete_activity")
