"""Signals that meet the end of their run: each is in the history, or its sender is told."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from aetheris.api.v1.common_pb2 import WorkflowExecution
from tests.support.raw import Raw, complete_workflow, detail_of, seconds, types
from tests.support.wait import wait_until

_SENDERS = 8

End = Callable[[Raw, WorkflowExecution, asyncio.Event], Awaitable[Any]]


async def _complete(server: Raw, run: WorkflowExecution, may_send: asyncio.Event) -> None:
    """Decide to end the run until no signal comes in between: they are sent beside the decision,
    and none while the task is polled.
    """

    async def decide() -> bool:
        may_send.clear()
        task = await server.poll_workflow()
        deciding = asyncio.create_task(server.decide(task, complete_workflow()))
        may_send.set()
        await asyncio.wait([deciding])
        error = deciding.exception()
        if isinstance(error, grpc.aio.AioRpcError):
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        return error is None

    await wait_until(decide, 20, "a decision that is taken")


async def _terminate(server: Raw, run: WorkflowExecution, may_send: asyncio.Event) -> None:
    await server.poll_workflow()
    await server.terminate(run)


async def _time_out(server: Raw, run: WorkflowExecution, may_send: asyncio.Event) -> None:
    await server.poll_workflow()
    assert await server.result(run) is not None


async def _send_until_refused(
    server: Raw, run: WorkflowExecution, sender: int, may_send: asyncio.Event
) -> tuple[int, grpc.aio.AioRpcError]:
    """How many signals were acknowledged before one was refused, and how that was."""
    for number in range(100_000):
        await may_send.wait()
        try:
            await server.signal(run, f"{sender}-{number}")
        except grpc.aio.AioRpcError as error:
            return number, error
    raise AssertionError("no signal was refused")


@pytest.mark.parametrize("end", [_complete, _terminate, _time_out])
async def test_signal_that_meets_the_end_is_in_the_history_or_refused(
    server: Raw, end: End
) -> None:
    timeout = {"workflow_run_timeout": seconds(1)} if end is _time_out else {}
    run = await server.start_run(**timeout)
    may_send = asyncio.Event()
    may_send.set()
    sending = [
        asyncio.create_task(_send_until_refused(server, run, sender, may_send))
        for sender in range(_SENDERS)
    ]
    await end(server, run, may_send)
    outcomes = await asyncio.gather(*sending)
    events = await server.history(run)
    names = [
        event.workflow_execution_signaled_event_attributes.signal_name
        for event in events
        if event.HasField("workflow_execution_signaled_event_attributes")
    ]
    for sender, (count, refusal) in enumerate(outcomes):
        assert refusal.code() is grpc.StatusCode.NOT_FOUND
        assert detail_of(refusal, "WorkflowClosedDetail").run_id == run.run_id
        own = [name for name in names if name.startswith(f"{sender}-")]
        assert own == [f"{sender}-{number}" for number in range(count)]
    assert types(events)[-1] not in {"WORKFLOW_EXECUTION_SIGNALED", "WORKFLOW_TASK_SCHEDULED"}
