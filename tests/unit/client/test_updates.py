"""The client's calls about updates, against a server with canned answers."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1 import workflow_pb2
from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.failure_pb2 import Failure
from aetheris.api.v1.history_pb2 import UpdateOutcome
from aetheris.api.v1.workflow_service_pb2 import (
    PollWorkflowUpdateRequest,
    PollWorkflowUpdateResponse,
    StartWorkflowResponse,
    UpdateWithStartWorkflowRequest,
    UpdateWithStartWorkflowResponse,
    UpdateWorkflowRequest,
    UpdateWorkflowResponse,
)
from aetheris_client import (
    Client,
    ClientInterceptor,
    ClientOutbound,
    DataConverter,
    UpdateStage,
    WithStartWorkflowOperation,
    WorkflowIdConflictPolicy,
)
from aetheris_client.errors import DeadlineExceededError, WorkflowUpdateFailedError
from aetheris_client.interceptor import UpdateProgress, UpdateWorkflowInput
from tests.support.canned_server import CannedServer

ADMITTED = workflow_pb2.UPDATE_STAGE_ADMITTED
ACCEPTED = workflow_pb2.UPDATE_STAGE_ACCEPTED
COMPLETED = workflow_pb2.UPDATE_STAGE_COMPLETED


def payloads(*values: object) -> Payloads:
    encoded = DataConverter.default().to_payloads(values)
    assert encoded is not None
    return encoded


def update_response(stage: Any, result: object = None, **fields: Any) -> UpdateWorkflowResponse:
    outcome = UpdateOutcome(success=payloads(result)) if stage == COMPLETED else None
    response = UpdateWorkflowResponse(update_id="u1", stage=stage, outcome=outcome, **fields)
    response.workflow_execution.workflow_id = "w"
    response.workflow_execution.run_id = "r1"
    return response


def poll_response(stage: Any, result: object = None) -> PollWorkflowUpdateResponse:
    return PollWorkflowUpdateResponse.FromString(update_response(stage, result).SerializeToString())


async def test_update_asks_again_while_it_is_admitted_and_polls_once_it_is_accepted(
    server: CannedServer, client: Client
):
    server.on("UpdateWorkflow", update_response(ADMITTED), update_response(ACCEPTED))
    server.on("PollWorkflowUpdate", poll_response(ACCEPTED), poll_response(COMPLETED, 7))
    handle = client.get_workflow_handle("w")
    assert await handle.execute_update("add", "tea", update_id="u1", result_type=int) == 7
    first, second = server.requests_of(UpdateWorkflowRequest)
    assert first == second
    assert (first.namespace, first.request.name, first.request.update_id) == ("shop", "add", "u1")
    assert first.request.input == payloads("tea")
    assert (first.request.identity, first.wait_stage) == ("tester", COMPLETED)
    for poll in server.requests_of(PollWorkflowUpdateRequest):
        assert (poll.workflow_execution.run_id, poll.update_id) == ("r1", "u1")


async def test_start_update_returns_at_the_stage_and_its_handle_polls(
    server: CannedServer, client: Client
):
    server.on("UpdateWorkflow", update_response(ACCEPTED))
    server.on("PollWorkflowUpdate", poll_response(COMPLETED, "done"))
    handle = await client.get_workflow_handle("w").start_update(
        "add", wait_for_stage=UpdateStage.ACCEPTED, update_id="u1"
    )
    assert (handle.id, handle.workflow_id, handle.run_id) == ("u1", "w", "r1")
    assert await handle.result() == "done"
    assert await handle.result() == "done"
    assert len(server.requests_of(PollWorkflowUpdateRequest)) == 1


async def test_update_that_failed_raises_its_failure(server: CannedServer, client: Client):
    failure = Failure(message="no")
    failure.application_failure_info.type = "No"
    response = update_response(COMPLETED)
    response.outcome.failure.CopyFrom(failure)
    server.on("UpdateWorkflow", response)
    with pytest.raises(
        WorkflowUpdateFailedError, match="update 'u1' of workflow 'w' failed: No: no"
    ):
        await client.get_workflow_handle("w").execute_update("add", update_id="u1")


async def test_update_that_takes_too_long_says_so(server: CannedServer, client: Client):
    server.on("UpdateWorkflow", *[update_response(ADMITTED)] * 50)
    with pytest.raises(DeadlineExceededError, match="update 'u1' is not as far"):
        await client.get_workflow_handle("w").execute_update(
            "add", update_id="u1", timeout=timedelta(milliseconds=50)
        )


async def test_update_of_a_started_run_is_bound_to_its_chain(server: CannedServer, client: Client):
    server.on(
        "StartWorkflow",
        StartWorkflowResponse(run_id="r1", started=True, first_execution_run_id="r0"),
    )
    server.on("UpdateWorkflow", update_response(COMPLETED))
    handle = await client.start_workflow("cart", id="w", task_queue="q")
    await handle.execute_update("add")
    (request,) = server.requests_of(UpdateWorkflowRequest)
    assert (request.workflow_execution.run_id, request.first_execution_run_id) == ("", "r0")


async def test_update_with_start_sends_both_and_gives_the_run(server: CannedServer, client: Client):
    server.on(
        "UpdateWithStartWorkflow",
        UpdateWithStartWorkflowResponse(
            start=StartWorkflowResponse(run_id="r1", started=True),
            update=update_response(COMPLETED, 3),
        ),
    )
    operation = WithStartWorkflowOperation(
        "cart",
        "Ada",
        id="w",
        task_queue="q",
        id_conflict_policy=WorkflowIdConflictPolicy.USE_EXISTING,
    )
    with pytest.raises(RuntimeError, match="has not returned"):
        _ = operation.workflow_handle
    result = await client.execute_update_with_start_workflow(
        "add", 2, start_workflow_operation=operation, update_id="u1"
    )
    assert result == 3
    assert (operation.workflow_handle.run_id, operation.workflow_handle.is_new) == ("r1", True)
    (request,) = server.requests_of(UpdateWithStartWorkflowRequest)
    assert (request.namespace, request.start.workflow_id) == ("shop", "w")
    assert (request.start.input, request.update.request.input) == (payloads("Ada"), payloads(2))


async def test_update_with_start_of_an_option_that_there_is_not_is_refused(client: Client):
    operation = WithStartWorkflowOperation("cart", id="w", queue="q")  # pyright: ignore[reportCallIssue]
    with pytest.raises(TypeError, match="queue"):
        await client.execute_update_with_start_workflow("add", start_workflow_operation=operation)


async def test_update_passes_through_the_interceptors(server: CannedServer, client: Client):
    class Renaming(ClientOutbound):
        async def update_workflow(self, request: UpdateWorkflowInput) -> UpdateProgress:
            assert request.update == "add"
            return UpdateProgress("r9", UpdateOutcome(success=payloads("intercepted")))

    class Interceptor(ClientInterceptor):
        def intercept(self, next_outbound: ClientOutbound) -> ClientOutbound:
            return Renaming(next_outbound)

    intercepted = Client(client.connection, interceptors=[Interceptor()])
    assert await intercepted.get_workflow_handle("w").execute_update("add") == "intercepted"
    assert not server.requests


@pytest.mark.parametrize("bad", ["ACCEPTED", 2])
async def test_stage_that_is_none_is_refused(client: Client, bad: Any):
    start: Callable[..., Any] = client.get_workflow_handle("w").start_update
    with pytest.raises(TypeError, match="wait_for_stage"):
        await start("add", wait_for_stage=bad)
