import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from prometheus_client import REGISTRY

from aetheris.api.v1 import common_pb2, error_details_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.api.v1.workflow_service_pb2_grpc import WorkflowServiceStub
from aetheris.server.v1.token_pb2 import PageToken
from aetheris_server.config import ConfigError, GrpcSettings
from aetheris_server.errors import (
    ShardNotOwnedError,
    TaskNotFoundError,
    WorkflowAlreadyStartedError,
)
from aetheris_server.rpc.server import serve_grpc
from aetheris_server.rpc.tokens import LISTING_HISTORY
from tests.support.frontend import RunningFrontend, running_frontend
from tests.support.peers import NAMESPACE_ID, answering, refusing
from tests.support.requests import good_request
from tests.support.secrets import TOKENS
from tests.support.wait import wait_until


@pytest.fixture
async def frontend() -> AsyncGenerator[RunningFrontend]:
    async with running_frontend() as running:
        yield running


def a_start() -> workflow_service_pb2.StartWorkflowRequest:
    request = workflow_service_pb2.StartWorkflowRequest(namespace="default", workflow_id="w")
    request.workflow_type.name = "type"
    request.task_queue.name = "queue"
    return request


def a_poll() -> worker_service_pb2.PollActivityTasksRequest:
    return worker_service_pb2.PollActivityTasksRequest(namespace="default", task_queue="queue")


def detail_of(error: grpc.aio.AioRpcError) -> str:
    return rpc_status.from_call(cast("Any", error)).details[0].type_url


def health_stub(frontend: RunningFrontend) -> Any:
    # The stubs of these packages know no asyncio.
    return health_pb2_grpc.HealthStub(cast("Any", frontend.channel))


def reflection_stub(frontend: RunningFrontend) -> Any:
    return reflection_pb2_grpc.ServerReflectionStub(cast("Any", frontend.channel))


async def test_start_reaches_history_with_namespace_id_and_request_id(
    frontend: RunningFrontend,
) -> None:
    frontend.history.answers["start_workflow"] = answering(
        workflow_service_pb2.StartWorkflowResponse(run_id="r", started=True)
    )
    response = await frontend.workflows.StartWorkflow(a_start())
    assert response.run_id == "r"
    [(method, namespace_id, request)] = frontend.history.calls
    assert (method, namespace_id) == ("start_workflow", NAMESPACE_ID)
    assert request.request_id


async def test_start_with_result_wait_answers_with_the_result(frontend: RunningFrontend) -> None:
    frontend.history.answers["start_workflow"] = answering(
        workflow_service_pb2.StartWorkflowResponse(run_id="r", started=True)
    )
    result = workflow_service_pb2.WorkflowResult(new_execution_run_id="next")
    frontend.history.answers["poll_workflow_result"] = answering(
        workflow_service_pb2.PollWorkflowResultResponse(run_id="r", result=result)
    )
    request = a_start()
    request.result_wait_timeout.seconds = 3600 * 24
    response = await frontend.workflows.StartWorkflow(request)
    assert response.result == result
    _, _, poll = frontend.history.calls[1]
    assert poll.workflow_execution == common_pb2.WorkflowExecution(workflow_id="w", run_id="r")
    assert poll.wait_timeout == Duration(seconds=60)


async def test_start_whose_result_is_lost_answers_without_it(frontend: RunningFrontend) -> None:
    frontend.history.answers["start_workflow"] = answering(
        workflow_service_pb2.StartWorkflowResponse(run_id="r", started=True)
    )
    frontend.history.answers["poll_workflow_result"] = refusing(ShardNotOwnedError(1))
    request = a_start()
    request.result_wait_timeout.seconds = 1
    response = await frontend.workflows.StartWorkflow(request)
    assert response.run_id == "r"
    assert not response.HasField("result")


async def test_bad_field_is_invalid_argument_with_its_path(frontend: RunningFrontend) -> None:
    request = a_start()
    request.workflow_type.name = ""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await frontend.workflows.StartWorkflow(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "workflow_type.name" in (caught.value.details() or "")
    assert detail_of(caught.value).endswith(error_details_pb2.BadRequestDetail.DESCRIPTOR.full_name)
    assert frontend.history.calls == []


async def test_unknown_namespace_is_not_found(frontend: RunningFrontend) -> None:
    request = a_start()
    request.namespace = "nowhere"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await frontend.workflows.StartWorkflow(request)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_domain_error_travels_with_its_detail(frontend: RunningFrontend) -> None:
    frontend.history.answers["start_workflow"] = refusing(
        WorkflowAlreadyStartedError("w", "run", "request")
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await frontend.workflows.StartWorkflow(a_start())
    assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
    assert detail_of(caught.value).endswith("WorkflowAlreadyStartedDetail")


async def test_unexpected_error_tells_a_reference_only(frontend: RunningFrontend) -> None:
    frontend.history.answers["start_workflow"] = refusing(RuntimeError("the password is x"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await frontend.workflows.StartWorkflow(a_start())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "password" not in (caught.value.details() or "")


async def test_bytes_that_are_no_request_are_invalid_argument(frontend: RunningFrontend) -> None:
    call = frontend.channel.unary_unary("/aetheris.api.v1.WorkflowService/StartWorkflow")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\x0a\xff\xff")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_poll_is_answered_when_a_task_comes(frontend: RunningFrontend) -> None:
    async with asyncio.TaskGroup() as group:
        poll = group.create_task(_poll(frontend))
        await wait_until(lambda: frontend.matching.waiting)
        frontend.matching.tasks_ready.set()
    assert len(poll.result().tasks) == 1


async def test_poll_asks_matching_to_answer_before_the_deadline(frontend: RunningFrontend) -> None:
    frontend.matching.tasks_ready.set()
    await frontend.workers.PollActivityTasks(a_poll(), timeout=50)
    [request] = frontend.matching.polls
    assert 30 < request.poll_timeout.seconds <= 49
    assert request.max_tasks == 1


async def test_client_that_vanishes_cancels_its_poll(frontend: RunningFrontend) -> None:
    call = frontend.workers.PollActivityTasks(a_poll())
    await wait_until(lambda: frontend.matching.waiting)
    call.cancel()
    await wait_until(lambda: frontend.matching.cancelled == 1)
    assert frontend.matching.waiting == 0


async def test_deadline_that_passes_cancels_the_poll(frontend: RunningFrontend) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await frontend.workers.PollActivityTasks(a_poll(), timeout=0.2)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await wait_until(lambda: frontend.matching.cancelled == 1)


async def test_connection_has_so_many_calls_at_once_and_the_next_waits_its_turn() -> None:
    async with running_frontend(max_streams=2) as frontend:
        polls = [asyncio.ensure_future(frontend.workers.PollActivityTasks(a_poll())) for _ in "abc"]
        await wait_until(lambda: frontend.matching.waiting == 2)
        async with grpc.aio.insecure_channel(
            frontend.server.address, options=[("grpc.use_local_subchannel_pool", 1)]
        ) as other:
            describe = workflow_service_pb2.DescribeWorkflowRequest(namespace="default")
            describe.workflow_execution.workflow_id = "w"
            await WorkflowServiceStub(other).DescribeWorkflow(describe, timeout=10)
        assert frontend.matching.waiting == 2
        frontend.matching.tasks_ready.set()
        assert [len((await poll).tasks) for poll in polls] == [1, 1, 1]


async def test_drain_answers_waiting_and_new_polls_empty(frontend: RunningFrontend) -> None:
    async with asyncio.TaskGroup() as group:
        poll = group.create_task(_poll(frontend))
        await wait_until(lambda: frontend.matching.waiting)
        frontend.gate.begin_drain()
    assert not poll.result().tasks
    assert not (await _poll(frontend)).tasks
    assert frontend.matching.cancelled == 1


async def test_history_wait_that_is_drained_answers_with_the_same_token(
    frontend: RunningFrontend,
) -> None:
    request = good_request("GetWorkflowHistory")
    request.page_token = TOKENS.seal_page(PageToken(listing=LISTING_HISTORY, next_event_id=3))
    frontend.gate.begin_drain()
    page = await frontend.workflows.GetWorkflowHistory(request)
    assert not page.history.events
    assert page.next_page_token == request.page_token


async def test_history_wait_without_a_token_that_is_drained_is_unavailable(
    frontend: RunningFrontend,
) -> None:
    frontend.gate.begin_drain()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await frontend.workflows.GetWorkflowHistory(good_request("GetWorkflowHistory"))
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_result_wait_that_is_drained_answers_without_a_result(
    frontend: RunningFrontend,
) -> None:
    frontend.gate.begin_drain()
    response = await frontend.workflows.PollWorkflowResult(good_request("PollWorkflowResult"))
    assert not response.HasField("result")


async def test_batch_answers_each_by_itself_in_order(frontend: RunningFrontend) -> None:
    good = good_request("RespondActivityTaskCompleted")
    frontend.history.answers["record_activity_task_heartbeat"] = refusing(KeyError("secret"))
    frontend.history.answers["respond_workflow_task_failed"] = refusing(TaskNotFoundError("gone"))
    request = worker_service_pb2.RespondTasksRequest(namespace="default")
    request.answers.add(activity_task_completed=good)
    request.answers.add().activity_task_completed.task_token = b"corrupt!"
    request.answers.add().activity_task_heartbeat.task_token = good.task_token
    request.answers.add(workflow_task_failed=good_request("RespondWorkflowTaskFailed"))
    request.answers.add(activity_task_completed=good).activity_task_completed.namespace = "other"
    request.answers.add(activity_task_completed=good).activity_task_completed.namespace = ""
    results = (await frontend.workers.RespondTasks(request)).results
    assert [result.WhichOneof("result") for result in results] == [
        "activity_task_completed",
        "error",
        "error",
        "error",
        "error",
        "activity_task_completed",
    ]
    invalid, internal, not_found = 3, 13, 5
    codes = [result.error.code for result in results[1:5]]
    assert codes == [invalid, internal, not_found, invalid]
    assert "secret" not in results[2].error.message
    detail = error_details_pb2.BadRequestDetail()
    assert results[1].error.detail.Unpack(detail)
    assert detail.field == "task_token"


async def test_batch_of_one_answers_as_the_single_call(frontend: RunningFrontend) -> None:
    task = worker_service_pb2.WorkflowTask(task_token=b"next")
    frontend.history.answers["respond_activity_task_completed"] = answering(
        worker_service_pb2.RespondActivityTaskCompletedResponse(workflow_task=task)
    )
    request = worker_service_pb2.RespondTasksRequest(namespace="default")
    request.answers.add(activity_task_completed=good_request("RespondActivityTaskCompleted"))
    [result] = (await frontend.workers.RespondTasks(request)).results
    assert result.activity_task_completed.workflow_task == task


async def test_calls_are_counted_by_method_and_code(frontend: RunningFrontend) -> None:
    def count(code: str) -> float:
        labels = {"method": "aetheris.api.v1.WorkflowService/StartWorkflow", "code": code}
        return REGISTRY.get_sample_value("aetheris_grpc_calls_total", labels) or 0.0

    before = count("OK"), count("INVALID_ARGUMENT")
    await frontend.workflows.StartWorkflow(a_start())
    with pytest.raises(grpc.aio.AioRpcError):
        await frontend.workflows.StartWorkflow(workflow_service_pb2.StartWorkflowRequest())
    assert (count("OK"), count("INVALID_ARGUMENT")) == (before[0] + 1, before[1] + 1)


async def test_health_is_not_serving_once_draining(frontend: RunningFrontend) -> None:
    stub = health_stub(frontend)
    request = health_pb2.HealthCheckRequest(service="aetheris.api.v1.WorkflowService")
    assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING
    await frontend.server.begin_serving()
    assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING
    await frontend.server.begin_drain()
    assert (await stub.Check(request)).status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_health_follows_readiness(frontend: RunningFrontend) -> None:
    stub = health_stub(frontend)
    await frontend.server.begin_serving()
    is_ready = False
    following = asyncio.create_task(frontend.server.follow(lambda: is_ready))

    async def says(status: int) -> bool:
        return (await stub.Check(health_pb2.HealthCheckRequest())).status == status

    await wait_until(lambda: says(health_pb2.HealthCheckResponse.NOT_SERVING))
    is_ready = True
    await wait_until(lambda: says(health_pb2.HealthCheckResponse.SERVING))
    following.cancel()


async def test_stop_lets_calls_in_flight_finish_despite_a_health_watch() -> None:
    async with running_frontend(drain_timeout=30) as frontend:
        watch = health_stub(frontend).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        poll = asyncio.create_task(_poll(frontend))
        await wait_until(lambda: frontend.matching.waiting)
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            group.create_task(frontend.server.stop(30))
            frontend.matching.tasks_ready.set()
        assert len((await poll).tasks) == 1


@pytest.mark.parametrize("is_watched", [True, False])
async def test_stop_without_grace_never_stops_grpc_twice_at_once(is_watched: bool) -> None:
    # It would end the process; not every time.
    for _ in range(20):
        async with running_frontend(drain_timeout=0) as frontend:
            if is_watched:
                await health_stub(frontend).Watch(health_pb2.HealthCheckRequest()).read()
            async with asyncio.timeout(10):
                await frontend.server.stop(0)


async def test_reflection_lists_the_services(frontend: RunningFrontend) -> None:
    stub = reflection_stub(frontend)
    call = stub.ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    response = await call.read()
    names = {service.name for service in response.list_services_response.service}
    assert names == {
        "aetheris.api.v1.WorkflowService",
        "aetheris.api.v1.WorkerService",
        "aetheris.api.v1.OperatorService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_reflection_answers_by_its_new_name_as_by_its_old_one(
    frontend: RunningFrontend,
) -> None:
    symbols = ["aetheris.api.v1.WorkflowService", "grpc.health.v1.Health", "no.such.Service"]
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services="*"),
        *(reflection_pb2.ServerReflectionRequest(file_containing_symbol=each) for each in symbols),
    ]
    answers: list[list[bytes]] = []
    for version in ("v1", "v1alpha"):
        ask: Any = frontend.channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        )
        answers.append([answer async for answer in ask(iter(requests), timeout=10)])
    assert answers[0] == answers[1]
    assert len(answers[0]) == len(requests)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_port_in_use_is_a_config_error(frontend: RunningFrontend, host: str) -> None:
    with pytest.raises(ConfigError, match=f"{frontend.server.port} cannot be bound: Address"):
        async with serve_grpc(GrpcSettings(host=host, port=frontend.server.port), []):
            pass


async def test_host_that_is_unknown_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"^grpc\.port: no-such-host\.invalid:0 cannot be bound"):
        async with serve_grpc(GrpcSettings(host="no-such-host.invalid", port=0), []):
            pass


async def _poll(frontend: RunningFrontend) -> worker_service_pb2.PollActivityTasksResponse:
    return await frontend.workers.PollActivityTasks(a_poll(), timeout=20)


@pytest.mark.parametrize("excess", [1, 2**16 + 2**10])
async def test_request_that_is_too_large_is_refused_as_by_grpc(
    frontend: RunningFrontend, excess: int
) -> None:
    size = GrpcSettings().max_message_bytes + excess
    call = frontend.channel.unary_unary("/aetheris.api.v1.WorkflowService/StartWorkflow")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await cast("Any", call)(bytes(size))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in (caught.value.details() or "")
