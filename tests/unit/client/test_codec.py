"""A codec that fails or hangs is reported as what it is, wherever it is called."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1.common_pb2 import Payload, Payloads
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris.api.v1.workflow_pb2 import (
    WORKFLOW_EXECUTION_STATUS_COMPLETED,
    WORKFLOW_EXECUTION_STATUS_FAILED,
)
from aetheris.api.v1.workflow_service_pb2 import (
    DescribeWorkflowResponse,
    GetWorkflowHistoryResponse,
    ListWorkflowsResponse,
    PollWorkflowResultResponse,
    QueryWorkflowResponse,
    WorkflowResult,
)
from aetheris_client import Client, Connection, DataConverter
from aetheris_client.errors import CodecError
from tests.support.canned_server import CannedServer

PAYLOADS = Payloads(payloads=[DataConverter.default().to_payload(1)])


class TimingOut:
    """Its key store does not answer it."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        raise TimeoutError("no key in time")

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        raise TimeoutError("no key in time")


class Hanging:
    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await asyncio.get_running_loop().create_future()

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return await asyncio.get_running_loop().create_future()


class Plain:
    """One that forgot `async`, and fails at once."""

    def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        raise KeyError("no key")

    decode = encode


async def take(events: Any) -> list[Any]:
    return [event async for event in events]


CALLS: dict[str, Callable[[Client], Awaitable[object]]] = {
    "start": lambda client: client.start_workflow("w", 1, id="w", task_queue="q"),
    "memo": lambda client: client.start_workflow("w", id="w", task_queue="q", memo={"a": 1}),
    "signal": lambda client: client.get_workflow_handle("w").signal("s", 1),
    "terminate": lambda client: client.get_workflow_handle("w").terminate(1),
    "query": lambda client: client.get_workflow_handle("w").query("q"),
    "result": lambda client: client.get_workflow_handle("w").result(),
    "result in time": lambda client: client.get_workflow_handle("w").result(
        timeout=timedelta(seconds=60)
    ),
    "failure": lambda client: client.get_workflow_handle("failed").result(),
    "describe": lambda client: client.get_workflow_handle("w").describe(),
    "list": lambda client: take(client.list_workflows()),
    "history": lambda client: take(client.get_workflow_handle("w").history()),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "codec,words",
    [
        (TimingOut(), "TimeoutError: no key in time"),
        (Hanging(), "no answer within its 0.05 s"),
        (Plain(), "KeyError: 'no key'"),
    ],
)
async def test_codec_that_fails_or_hangs_is_a_codec_error(
    server: CannedServer, codec: Any, words: str, call: str
):
    completed = WorkflowResult(status=WORKFLOW_EXECUTION_STATUS_COMPLETED, result=PAYLOADS)
    failed = WorkflowResult(status=WORKFLOW_EXECUTION_STATUS_FAILED)
    failed.failure.application_failure_info.details.CopyFrom(PAYLOADS)
    described = DescribeWorkflowResponse()
    described.workflow_execution_info.memo.fields["a"].CopyFrom(PAYLOADS.payloads[0])
    event = HistoryEvent()
    event.workflow_execution_signaled_event_attributes.input.CopyFrom(PAYLOADS)
    history = GetWorkflowHistoryResponse()
    history.history.events.append(event)

    async def poll(request: Any) -> PollWorkflowResultResponse:
        is_failed = request.workflow_execution.workflow_id == "failed"
        return PollWorkflowResultResponse(run_id="r", result=failed if is_failed else completed)

    server.on("QueryWorkflow", QueryWorkflowResponse(query_result=PAYLOADS))
    server.on("PollWorkflowResult", poll)
    server.on("DescribeWorkflow", described)
    server.on(
        "ListWorkflows", ListWorkflowsResponse(executions=[described.workflow_execution_info])
    )
    server.on("GetWorkflowHistory", history)
    converter = DataConverter(codec=codec, codec_timeout=timedelta(seconds=0.05))
    async with Client(Connection(server.address), data_converter=converter) as client:
        with pytest.raises(CodecError, match=words):
            async with asyncio.timeout(10):
                await CALLS[call](client)
