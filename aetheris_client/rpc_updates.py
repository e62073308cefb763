"""Sends the calls about updates, again and again until the update is as far as it is awaited.

The server waits for some seconds in each call. What it has only admitted it may forget, so that is
asked for again, under the same id; what it has accepted is polled.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from aetheris.api.v1 import workflow_pb2
from aetheris.api.v1.common_pb2 import Header, WorkflowExecution
from aetheris.api.v1.history_pb2 import UpdateRequest
from aetheris.api.v1.workflow_service_pb2 import (
    PollWorkflowUpdateRequest,
    PollWorkflowUpdateResponse,
    StartWorkflowRequest,
    UpdateWithStartWorkflowRequest,
    UpdateWithStartWorkflowResponse,
    UpdateWorkflowRequest,
    UpdateWorkflowResponse,
)
from aetheris_client import enums
from aetheris_client.connection import Connection
from aetheris_client.converter import DataConverter
from aetheris_client.enums import UpdateStage
from aetheris_client.interceptor import (
    PollUpdateInput,
    UpdateProgress,
    UpdateWorkflowInput,
)

# An attempt without an answer after this is lost: no server waits as long.
_ATTEMPT_TIMEOUT: Final = 90.0
# How long a cluster may be away before those who wait for it are told.
_OUTAGE_TIMEOUT: Final = 300.0
# A server that is about to stop answers at once; asking again at once would be a hot loop.
_MIN_WAIT_SECONDS: Final = 0.25

_Response = UpdateWorkflowResponse | PollWorkflowUpdateResponse


class UpdateCalls:
    """Those of one namespace."""

    def __init__(
        self, connection: Connection, namespace: str, identity: str, converter: DataConverter
    ) -> None:
        self._connection = connection
        self._namespace = namespace
        self._identity = identity
        self._converter = converter

    async def update(self, request: UpdateWorkflowInput) -> UpdateProgress:
        """Ask for an update, and follow it to its wait_stage."""
        message = await self._update_request(request)

        async def ask() -> UpdateWorkflowResponse:
            return await self._connection.call(
                lambda stubs: stubs.workflow_service.UpdateWorkflow,
                message,
                _OUTAGE_TIMEOUT,
                _ATTEMPT_TIMEOUT,
            )

        return await self._follow(ask, request.wait_stage)

    async def update_with_start(
        self, start: StartWorkflowRequest, request: UpdateWorkflowInput
    ) -> tuple[UpdateWithStartWorkflowResponse, UpdateProgress]:
        """Start a run, or find the open one, and follow an update of it to its wait_stage.

        Returns:
            What the last call about both came to, and how far the update is.
        """
        message = UpdateWithStartWorkflowRequest(
            namespace=self._namespace, start=start, update=await self._update_request(request)
        )
        response = UpdateWithStartWorkflowResponse()

        async def ask() -> UpdateWorkflowResponse:
            response.CopyFrom(
                await self._connection.call(
                    lambda stubs: stubs.workflow_service.UpdateWithStartWorkflow,
                    message,
                    _OUTAGE_TIMEOUT,
                    _ATTEMPT_TIMEOUT,
                )
            )
            return response.update

        progress = await self._follow(ask, request.wait_stage)
        return response, progress

    async def poll(self, request: PollUpdateInput) -> UpdateProgress:
        """Follow an update that was asked for before to its wait_stage."""
        execution = WorkflowExecution(workflow_id=request.id, run_id=request.run_id)
        return await self._follow(
            lambda: self._poll(execution, request.update_id, request.wait_stage),
            request.wait_stage,
        )

    async def _update_request(self, request: UpdateWorkflowInput) -> UpdateWorkflowRequest:
        return UpdateWorkflowRequest(
            namespace=self._namespace,
            workflow_execution=WorkflowExecution(workflow_id=request.id, run_id=request.run_id),
            first_execution_run_id=request.first_execution_run_id,
            request=UpdateRequest(
                update_id=request.update_id,
                identity=self._identity,
                name=request.update,
                input=await self._converter.encode(request.args, request.arg_types),
                header=Header(fields=request.headers) if request.headers else None,
            ),
            wait_stage=_to_proto(request.wait_stage),
        )

    async def _poll(
        self, execution: WorkflowExecution, update_id: str, stage: UpdateStage
    ) -> PollWorkflowUpdateResponse:
        return await self._connection.call(
            lambda stubs: stubs.workflow_service.PollWorkflowUpdate,
            PollWorkflowUpdateRequest(
                namespace=self._namespace,
                workflow_execution=execution,
                update_id=update_id,
                wait_stage=_to_proto(stage),
            ),
            _OUTAGE_TIMEOUT,
            _ATTEMPT_TIMEOUT,
        )

    async def _follow(
        self, ask: Callable[[], Awaitable[_Response]], stage: UpdateStage
    ) -> UpdateProgress:
        wanted = _to_proto(stage)
        loop = asyncio.get_running_loop()
        begin_time = loop.time()
        response = await ask()
        while response.stage < wanted:
            if loop.time() - begin_time < _MIN_WAIT_SECONDS:
                await asyncio.sleep(self._connection.backoff.maximum / 4)
            begin_time = loop.time()
            if response.stage < workflow_pb2.UPDATE_STAGE_ACCEPTED:
                response = await ask()
            else:
                response = await self._poll(response.workflow_execution, response.update_id, stage)
        if self._converter.codec is not None:
            await self._converter.codec.decode_message(response)
        return UpdateProgress(
            run_id=response.workflow_execution.run_id,
            outcome=response.outcome if response.HasField("outcome") else None,
        )


def _to_proto(stage: UpdateStage) -> workflow_pb2.UpdateStage.ValueType:
    return enums.to_proto(stage, workflow_pb2.UpdateStage, "UPDATE_STAGE_")
