import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import pytest
from grpc import (
    StatusCode,
    method_handlers_generic_handler,
    unary_unary_rpc_method_handler,
)
from grpc.aio import AioRpcError, ServicerContext, server
from grpc_reflection.v1alpha import reflection_pb2_grpc

from aetheris.api.v1 import worker_service_pb2, workflow_service_pb2
from aetheris.server.v1 import history_service_pb2, matching_service_pb2
from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.config import ConfigError, GrpcSettings, InternalSettings, internal_port
from aetheris_server.errors import (
    DrainingError,
    InvalidArgumentError,
    ShardNotOwnedError,
    WorkflowNotFoundError,
)
from aetheris_server.ids import shard_of
from aetheris_server.rpc import table
from aetheris_server.rpc.bounds import MAX_DEPTH, check_bounds
from aetheris_server.rpc.channels import ChannelPool
from aetheris_server.rpc.credentials import PeerCredentials
from aetheris_server.rpc.drain import DrainGate
from aetheris_server.rpc.errors import PeerFaultError, PeerUnavailableError
from aetheris_server.rpc.remote import RemoteHistory, RemoteMatching
from aetheris_server.rpc.routing import RoutedHistory
from aetheris_server.rpc.server import RpcServer, serve_internal
from aetheris_server.rpc.servicers import internal_services
from aetheris_server.rpc.table import HISTORY_METHODS
from tests.support.cutting_proxy import grpc_proxy
from tests.support.fake_history import FakeHistory
from tests.support.messages import RUN_ID
from tests.support.name_server import name_server
from tests.support.peers import FakeMatching, answering, refusing
from tests.support.secrets import CREDENTIALS, TOKENS
from tests.support.wait import wait_until

SHARD_COUNT = 8


@dataclass(frozen=True, slots=True)
class OtherHost:
    """Another host with fakes in it, and peers that reach them over gRPC."""

    server: RpcServer
    gate: DrainGate
    pool: ChannelPool
    history: FakeHistory
    matching: FakeMatching

    @property
    def remote_history(self) -> RemoteHistory:
        return RemoteHistory(self.pool, self.server.address)

    @property
    def remote_matching(self) -> RemoteMatching:
        return RemoteMatching(self.pool, self.server.address)


@pytest.fixture
async def other() -> AsyncGenerator[OtherHost]:
    async with other_host() as host:
        yield host


@asynccontextmanager
async def other_host(max_calls: int = 1_000, **public: Any) -> AsyncGenerator[OtherHost]:
    history, matching, gate = FakeHistory(), FakeMatching(), DrainGate()
    settings = GrpcSettings(port=0, drain_timeout=2, max_calls=max_calls, **public)
    async with (
        serve_internal(
            InternalSettings(),
            settings,
            internal_services(
                history.serve(), matching.serve(), gate, history, TOKENS, CREDENTIALS
            ),
        ) as server,
        ChannelPool(CREDENTIALS) as pool,
    ):
        yield OtherHost(server, gate, pool, history, matching)


@asynccontextmanager
async def stranger(code: StatusCode) -> AsyncGenerator[str]:
    """The address of a gRPC server that is no host, and refuses all calls with a code."""

    async def refuse(_: bytes, context: ServicerContext[bytes, bytes]) -> bytes:
        await context.abort(code, "who are you?")

    history = history_service_pb2.DESCRIPTOR.services_by_name["HistoryService"].full_name
    handlers = {"Call": unary_unary_rpc_method_handler(refuse)}
    program = server()
    program.add_generic_rpc_handlers([method_handlers_generic_handler(history, handlers)])
    port = program.add_insecure_port("127.0.0.1:0")
    await program.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await program.stop(0)


def a_poll(seconds: int = 30) -> matching_service_pb2.PollActivityTasksRequest:
    poll = matching_service_pb2.PollActivityTasksRequest(namespace_id="n")
    poll.request.task_queue = "q"
    poll.request.poll_timeout.seconds = seconds
    return poll


REQUESTS = history_service_pb2.CallRequest.DESCRIPTOR.oneofs_by_name["request"].fields


@pytest.mark.parametrize("method", [field.name for field in REQUESTS])
async def test_call_arrives_with_its_namespace_and_request(other: OtherHost, method: str) -> None:
    envelope = history_service_pb2.CallRequest()
    request: Any = getattr(envelope, method)
    # Of what is done along with a start, the start says it.
    named = request if "namespace" in request.DESCRIPTOR.fields_by_name else request.start
    named.namespace = "default"
    row = HISTORY_METHODS[method]
    subject = "the id"
    if row.takes_token:
        token = TaskToken(namespace_id="the id", workflow_id="w", run_id=RUN_ID, attempt=1)
        request.task_token = TOKENS.seal_task(token)
        subject = token
    await other.remote_history.call(row, subject, request)
    assert other.history.calls == [(method, "the id", request)]


async def test_token_of_another_namespace_is_refused_at_the_other_host(other: OtherHost) -> None:
    token = TaskToken(namespace_id="n", workflow_id="w", run_id=RUN_ID, attempt=1)
    request = worker_service_pb2.RecordActivityTaskHeartbeatRequest(
        task_token=TOKENS.seal_task(token)
    )
    elsewhere = TaskToken(namespace_id="other", workflow_id="w")
    with pytest.raises(InvalidArgumentError, match="of another namespace"):
        await other.remote_history.call(table.RECORD_ACTIVITY_TASK_HEARTBEAT, elsewhere, request)
    assert not other.history.calls


async def test_request_as_deep_as_may_be_arrives_at_another_host_too(other: OtherHost) -> None:
    token = TaskToken(namespace_id="n", workflow_id="w", run_id=RUN_ID, attempt=1)
    request = worker_service_pb2.RespondActivityTaskFailedRequest(
        task_token=TOKENS.seal_task(token)
    )
    link = request.failure
    for _ in range(MAX_DEPTH - 2):
        link = link.cause
    link.message = "the root"
    check_bounds(request)
    await other.remote_history.call(table.RESPOND_ACTIVITY_TASK_FAILED, token, request)
    assert other.history.calls == [("respond_activity_task_failed", "n", request)]


async def test_request_as_large_as_may_be_arrives_at_another_host_too(other: OtherHost) -> None:
    request = workflow_service_pb2.StartWorkflowRequest()
    limit = int(GrpcSettings().max_message_bytes)
    payload = request.input.payloads.add(data=bytes(limit))
    payload.data = bytes(2 * limit - request.ByteSize())
    assert request.ByteSize() == limit
    await other.remote_history.call(table.START_WORKFLOW, "n", request)
    assert other.history.calls == [("start_workflow", "n", request)]


async def test_tasks_arrive_however_little_a_client_may_send() -> None:
    async with other_host(max_message_bytes=1_000) as other:
        tasks = [matching_service_pb2.TaskRef(workflow_id="w" * 2_000) for _ in range(500)]
        await other.remote_matching.add_tasks(tasks)
        assert len(other.matching.added) == 500


async def test_hosts_reach_each_other_however_many_polls_wait() -> None:
    async with other_host(max_calls=2) as other:
        polls: list[asyncio.Task[Any]] = []
        for count in range(1, 4):
            polls.append(
                asyncio.create_task(other.remote_matching.call(table.POLL_ACTIVITY_TASKS, a_poll()))
            )
            await wait_until(lambda count=count: other.matching.waiting == count)
        await other.remote_matching.add_tasks([matching_service_pb2.TaskRef(workflow_id="w")])
        other.matching.tasks_ready.set()
        await asyncio.gather(*polls)
        assert [task.workflow_id for task in other.matching.added] == ["w"]


async def test_response_comes_back(other: OtherHost) -> None:
    expected = workflow_service_pb2.StartWorkflowResponse(run_id="r", started=True)
    other.history.answers["start_workflow"] = answering(expected)
    request = workflow_service_pb2.StartWorkflowRequest()
    assert await other.remote_history.call(table.START_WORKFLOW, "n", request) == expected


async def test_domain_error_comes_back_as_itself(other: OtherHost) -> None:
    request = workflow_service_pb2.StartWorkflowRequest()
    other.history.answers["start_workflow"] = refusing(WorkflowNotFoundError("w", "r"))
    with pytest.raises(WorkflowNotFoundError) as caught:
        await other.remote_history.call(table.START_WORKFLOW, "n", request)
    assert (caught.value.workflow_id, caught.value.run_id) == ("w", "r")


async def test_fault_of_the_other_host_is_no_domain_error(other: OtherHost) -> None:
    request = workflow_service_pb2.StartWorkflowRequest()
    other.history.answers["start_workflow"] = refusing(KeyError("x"))
    with pytest.raises(PeerFaultError):
        await other.remote_history.call(table.START_WORKFLOW, "n", request)


async def test_tasks_are_started_and_released(other: OtherHost) -> None:
    refs = [matching_service_pb2.TaskRef(workflow_id=name) for name in "ab"]
    started = await other.remote_history.start_tasks(
        history_service_pb2.StartTasksRequest(tasks=refs)
    )
    released = [
        TaskToken(namespace_id="n", workflow_id=name, run_id=RUN_ID, attempt=1) for name in "ab"
    ]
    await other.remote_history.release_tasks([TOKENS.seal_task(token) for token in released])
    assert [task.activity_task.activity_id for task in started.tasks] == ["a", "b"]
    assert other.history.released == released


async def test_aggregates_of_another_host_are_called_in_order(other: OtherHost) -> None:
    calls = [
        history_service_pb2.AggregateCall(request_id=f"{number}", payload=b"%d" % number)
        for number in range(3)
    ]
    outcomes = await other.remote_history.call_aggregates(calls)
    assert [outcome.answer for outcome in outcomes] == [b"0", b"1", b"2"]
    assert other.history.called == calls


async def test_matching_is_reached(other: OtherHost) -> None:
    other.matching.tasks_ready.set()
    matching = other.remote_matching
    await matching.add_tasks([matching_service_pb2.TaskRef(workflow_id="w")])
    await matching.call(
        table.NOTIFY_CANCELLATION,
        matching_service_pb2.NotifyCancellationRequest(worker_instance_id="worker"),
    )
    shutdown = matching_service_pb2.ShutdownWorkerRequest(namespace_id="n")
    await matching.call(table.SHUTDOWN_WORKER, shutdown)
    workflow_poll = matching_service_pb2.PollWorkflowTasksRequest(namespace_id="n")
    workflow_tasks = await matching.call(table.POLL_WORKFLOW_TASKS, workflow_poll)
    assert workflow_tasks.response.tasks[0].task_token == b"n"
    activity_tasks = await matching.call(table.POLL_ACTIVITY_TASKS, a_poll())
    assert activity_tasks.response.tasks[0].task_token == b"n"
    describe = matching_service_pb2.DescribeTaskQueueRequest()
    assert not (await matching.call(table.DESCRIBE_TASK_QUEUE, describe)).response.pollers
    assert [task.workflow_id for task in other.matching.added] == ["w"]
    assert [request.worker_instance_id for request in other.matching.notified] == ["worker"]
    assert [request.namespace_id for request in other.matching.shut_down] == ["n"]


async def test_caller_that_is_no_host_of_the_cluster_reaches_nothing(other: OtherHost) -> None:
    channel = (await other.pool.stubs(other.server.address)).channel
    services = [history_service_pb2.DESCRIPTOR, matching_service_pb2.DESCRIPTOR]
    methods = [
        f"/{service.full_name}/{method.name}"
        for file in services
        for service in file.services_by_name.values()
        for method in service.methods
    ]
    for method in methods:
        for metadata in (None, PeerCredentials({1: bytes(32)}).metadata):
            call: Any = channel.unary_unary(method)
            with pytest.raises(AioRpcError) as caught:
                await call(b"\xff", metadata=metadata)
            assert caught.value.code() is StatusCode.PERMISSION_DENIED, method
    assert len(methods) == 11
    assert not other.history.calls
    assert not other.matching.polls
    assert not other.matching.added


async def test_host_of_another_cluster_is_peer_unavailable_and_logged_once_in_a_while(
    other: OtherHost, capsys: pytest.CaptureFixture[str]
) -> None:
    request = workflow_service_pb2.SignalWorkflowRequest()
    async with ChannelPool(PeerCredentials({1: bytes(32)})) as pool:
        for _ in range(3):
            with pytest.raises(PeerUnavailableError, match="for the hosts of this cluster"):
                await RemoteHistory(pool, other.server.address).call(
                    table.SIGNAL_WORKFLOW, "n", request
                )
    logged = "".join(capsys.readouterr())
    assert logged.count("of another cluster") == 1
    assert other.server.address in logged
    assert not other.history.calls


async def test_internal_port_lists_nothing_and_tells_its_health(other: OtherHost) -> None:
    channel = (await other.pool.stubs(other.server.address)).channel
    reflected: Any = reflection_pb2_grpc.ServerReflectionStub(cast("Any", channel))
    with pytest.raises(AioRpcError) as caught:
        await reflected.ServerReflectionInfo(iter([])).read()
    assert caught.value.code() is StatusCode.UNIMPLEMENTED
    assert await other.server.is_reached_at(other.server.address.replace("127.0.0.1", "localhost"))


async def test_internal_port_in_use_is_a_config_error_that_names_its_flags(
    other: OtherHost,
) -> None:
    settings = InternalSettings(port=other.server.port)
    with pytest.raises(ConfigError, match=r"^internal\.port: .*--internal-port"):
        async with serve_internal(settings, GrpcSettings(), []):
            pass


@pytest.mark.parametrize("port,expected", [(0, 0), (7233, 7234), (65535, 0)])
def test_internal_port_is_the_one_after_the_public_port_unless_it_is_set(
    port: int, expected: int
) -> None:
    assert internal_port(InternalSettings(), GrpcSettings(port=port)) == expected
    assert internal_port(InternalSettings(port=9), GrpcSettings(port=port)) == 9


async def test_poll_that_is_cancelled_here_is_cancelled_there(other: OtherHost) -> None:
    poll = asyncio.create_task(other.remote_matching.call(table.POLL_ACTIVITY_TASKS, a_poll()))
    await wait_until(lambda: other.matching.waiting)
    poll.cancel()
    await wait_until(lambda: other.matching.cancelled == 1)


async def test_poll_at_a_draining_host_is_sent_elsewhere(other: OtherHost) -> None:
    poll = asyncio.create_task(other.remote_matching.call(table.POLL_ACTIVITY_TASKS, a_poll()))
    await wait_until(lambda: other.matching.waiting)
    other.gate.begin_drain()
    with pytest.raises(DrainingError):
        await poll


async def test_host_that_is_gone_is_peer_unavailable(other: OtherHost) -> None:
    await other.server.stop(0)
    with pytest.raises(PeerUnavailableError):
        await other.remote_history.call(
            table.SIGNAL_WORKFLOW, "n", workflow_service_pb2.SignalWorkflowRequest()
        )


async def test_hosts_never_reach_each_other_through_a_proxy(
    other: OtherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("grpc_proxy", "https_proxy", "http_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    await other.remote_history.call(
        table.SIGNAL_WORKFLOW, "n", workflow_service_pb2.SignalWorkflowRequest()
    )
    assert await other.server.is_reached_at(f"localhost:{other.server.port}")


async def test_host_that_is_slow_to_answer_is_connected_to_at_the_first_try(
    other: OtherHost,
) -> None:
    async with grpc_proxy(other.server.address) as (proxy, address):
        proxy.is_holding = True
        request = workflow_service_pb2.SignalWorkflowRequest()
        history = RemoteHistory(other.pool, address)
        calling = asyncio.create_task(history.call(table.SIGNAL_WORKFLOW, "n", request))
        with pytest.raises(AssertionError):
            await wait_until(lambda: calling.done() or proxy.connection_count > 1, timeout=0.5)
        proxy.is_holding = False
        await calling
        assert proxy.connection_count == 1


async def test_host_whose_name_has_moved_is_found_where_it_is(other: OtherHost) -> None:
    async with name_server("127.0.0.9") as names:
        address = f"dns://{names.address}/host-b.test:{other.server.port}"
        history = RemoteHistory(other.pool, address)
        request = workflow_service_pb2.SignalWorkflowRequest()
        with pytest.raises(PeerUnavailableError, match=r"127\.0\.0\.9"):
            await history.call(table.SIGNAL_WORKFLOW, "n", request)
        names.answer = "127.0.0.1"

        async def is_reached() -> bool:
            try:
                await history.call(table.SIGNAL_WORKFLOW, "n", request)
            except PeerUnavailableError:
                return False
            return True

        await wait_until(is_reached, 10)


@pytest.mark.parametrize(
    "code", [StatusCode.UNIMPLEMENTED, StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED]
)
async def test_other_program_at_the_address_of_a_host_is_peer_unavailable_and_logged(
    code: StatusCode, capsys: pytest.CaptureFixture[str]
) -> None:
    async with stranger(code) as address, ChannelPool(CREDENTIALS) as pool:
        with pytest.raises(PeerUnavailableError, match="no host"):
            await RemoteHistory(pool, address).call(
                table.SIGNAL_WORKFLOW, "n", workflow_service_pb2.SignalWorkflowRequest()
            )
    logged = "".join(capsys.readouterr())
    assert logged.count("another program") == 1
    assert address in logged


async def test_host_that_is_not_reached_for_long_is_named_once_in_a_while(
    other: OtherHost, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def signal() -> bool:
        try:
            await other.remote_history.call(
                table.SIGNAL_WORKFLOW, "n", workflow_service_pb2.SignalWorkflowRequest()
            )
        except PeerUnavailableError:
            return False
        return True

    assert await signal()
    await other.server.stop(0)
    assert not await signal()
    assert "is not reached" not in "".join(capsys.readouterr())
    monkeypatch.setattr("aetheris_server.rpc.channels._SILENCE_SECONDS", 0.0)
    for _ in range(10):
        assert not await signal()
    logged = "".join(capsys.readouterr())
    assert logged.count("is not reached") == 1
    assert other.server.address in logged


async def test_routing_follows_a_shard_to_its_new_host(other: OtherHost) -> None:
    other.history.answers["signal_workflow"] = refusing(ShardNotOwnedError(1))
    local = FakeHistory()
    addresses = iter([other.server.address, None])
    routed = RoutedHistory(lambda _: next(addresses), local.serve(), other.pool, 4, TOKENS)
    request = workflow_service_pb2.SignalWorkflowRequest()
    request.workflow_execution.workflow_id = "w"
    await routed.call(table.SIGNAL_WORKFLOW, "n", request)
    assert len(other.history.calls) == len(local.calls) == 1


async def test_channel_out_of_use_is_closed_when_another_is_opened(
    other: OtherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    await other.pool.stubs("127.0.0.1:1")
    assert other.pool.addresses == {"127.0.0.1:1"}
    monkeypatch.setattr("aetheris_server.rpc.channels._IDLE_SECONDS", 0.0)
    await other.pool.stubs(other.server.address)
    assert other.pool.addresses == {other.server.address}


async def test_start_whose_response_is_lost_is_repeated_as_the_same_call(other: OtherHost) -> None:
    async with grpc_proxy(other.server.address) as (proxy, address):
        routed = RoutedHistory(lambda _: address, FakeHistory().serve(), other.pool, 1, TOKENS)
        before, request = (
            history_service_pb2.StartTasksRequest(
                tasks=[matching_service_pb2.TaskRef(namespace_id="n", workflow_id=workflow_id)]
            )
            for workflow_id in "vw"
        )
        await routed.start_tasks(before)
        proxy.holds_replies = True
        starting = asyncio.create_task(routed.start_tasks(request))
        await wait_until(lambda: len(other.history.requests) == 2)
        proxy.holds_replies = False
        proxy.cut()
        (task,) = (await starting).tasks
        assert task.activity_task.activity_id == "w"
        first, lost, again = [started.request_id for started in other.history.requests]
        assert lost == again != first


async def test_tasks_of_other_hosts_are_started_where_one_host_is_silent(
    other: OtherHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetheris_server.rpc.routing.START_TIMEOUT", 0.3)
    other.history.gate = asyncio.Event()
    silent = shard_of("n", "b", SHARD_COUNT)
    names = ["b", *(name for name in "acdefgh" if shard_of("n", name, SHARD_COUNT) != silent)]
    routed = RoutedHistory(
        lambda shard_id: other.server.address if shard_id == silent else None,
        FakeHistory().serve(),
        other.pool,
        SHARD_COUNT,
        TOKENS,
    )
    refs = [matching_service_pb2.TaskRef(namespace_id="n", workflow_id=name) for name in names]
    response = await routed.start_tasks(history_service_pb2.StartTasksRequest(tasks=refs))
    assert [task.WhichOneof("outcome") for task in response.tasks] == [
        "retry",
        *(["activity_task"] * (len(names) - 1)),
    ]
