from collections.abc import AsyncGenerator

import pytest
from google.protobuf.message import Message

from aetheris.api.v1 import task_queue_pb2, worker_service_pb2, workflow_service_pb2
from aetheris.server.v1 import history_service_pb2, matching_service_pb2
from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.errors import ShardNotOwnedError, TaskNotFoundError
from aetheris_server.ids import shard_of
from aetheris_server.rpc import table
from aetheris_server.rpc.channels import ChannelPool
from aetheris_server.rpc.errors import PeerUnavailableError
from aetheris_server.rpc.routing import RoutedHistory, RoutedMatching
from tests.support.fake_history import FakeHistory
from tests.support.messages import RUN_ID
from tests.support.peers import FakeMatching, refusing
from tests.support.secrets import CREDENTIALS, TOKENS

SHARD_COUNT = 8
NOBODY = "127.0.0.1:1"


@pytest.fixture
async def pool() -> AsyncGenerator[ChannelPool]:
    async with ChannelPool(CREDENTIALS) as pool:
        yield pool


def a_signal(workflow_id: str) -> workflow_service_pb2.SignalWorkflowRequest:
    request = workflow_service_pb2.SignalWorkflowRequest()
    request.workflow_execution.workflow_id = workflow_id
    return request


def a_token(workflow_id: str) -> bytes:
    return TOKENS.seal_task(
        TaskToken(namespace_id="n", workflow_id=workflow_id, run_id=RUN_ID, attempt=1)
    )


async def test_request_is_located_by_the_shard_of_its_workflow(pool: ChannelPool) -> None:
    located: list[int] = []
    local = FakeHistory()
    routed = RoutedHistory(located.append, local.serve(), pool, SHARD_COUNT, TOKENS)
    await routed.call(
        table.START_WORKFLOW, "n", workflow_service_pb2.StartWorkflowRequest(workflow_id="a")
    )
    await routed.call(table.SIGNAL_WORKFLOW, "n", a_signal("b"))
    await routed.call(
        table.RECORD_ACTIVITY_TASK_HEARTBEAT,
        TOKENS.open_task(a_token("c")),
        worker_service_pb2.RecordActivityTaskHeartbeatRequest(),
    )
    assert located == [shard_of("n", workflow_id, SHARD_COUNT) for workflow_id in "abc"]
    assert [method for method, _, _ in local.calls] == [
        "start_workflow",
        "signal_workflow",
        "record_activity_task_heartbeat",
    ]


async def test_local_call_gets_the_very_request(pool: ChannelPool) -> None:
    local = FakeHistory()
    request = a_signal("w")
    await RoutedHistory(lambda _: None, local.serve(), pool, SHARD_COUNT, TOKENS).call(
        table.SIGNAL_WORKFLOW, "n", request
    )
    assert local.calls[0][2] is request


async def test_shard_that_is_not_here_is_looked_up_again(pool: ChannelPool) -> None:
    located: list[int] = []
    local = FakeHistory()

    async def answer(namespace_id: str, request: object) -> Message:
        del namespace_id, request
        if len(located) < 3:
            raise ShardNotOwnedError(located[-1])
        return workflow_service_pb2.SignalWorkflowResponse()

    local.answers["signal_workflow"] = answer
    await RoutedHistory(located.append, local.serve(), pool, SHARD_COUNT, TOKENS).call(
        table.SIGNAL_WORKFLOW, "n", a_signal("w")
    )
    assert len(located) == len(local.calls) == 3


async def test_host_that_does_not_answer_is_looked_up_again(pool: ChannelPool) -> None:
    addresses = iter([NOBODY, None])
    local = FakeHistory()
    routed = RoutedHistory(lambda _: next(addresses), local.serve(), pool, SHARD_COUNT, TOKENS)
    await routed.call(table.SIGNAL_WORKFLOW, "n", a_signal("w"))
    assert len(local.calls) == 1


async def test_refusal_is_not_repeated(pool: ChannelPool) -> None:
    local = FakeHistory()
    local.answers["signal_workflow"] = refusing(TaskNotFoundError("gone"))
    routed = RoutedHistory(lambda _: None, local.serve(), pool, SHARD_COUNT, TOKENS)
    with pytest.raises(TaskNotFoundError):
        await routed.call(table.SIGNAL_WORKFLOW, "n", a_signal("w"))
    assert len(local.calls) == 1


async def test_host_that_never_answers_ends_in_an_error(
    pool: ChannelPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetheris_server.rpc.routing._RETRY_SECONDS", 0.1)
    routed = RoutedHistory(lambda _: NOBODY, FakeHistory().serve(), pool, SHARD_COUNT, TOKENS)
    with pytest.raises(PeerUnavailableError):
        await routed.call(table.SIGNAL_WORKFLOW, "n", a_signal("w"))


def refs(*workflow_ids: str) -> list[matching_service_pb2.TaskRef]:
    return [
        matching_service_pb2.TaskRef(namespace_id="n", workflow_id=workflow_id, task_queue="q")
        for workflow_id in workflow_ids
    ]


async def test_start_tasks_at_one_host_passes_the_very_request(pool: ChannelPool) -> None:
    local = FakeHistory()
    request = history_service_pb2.StartTasksRequest(tasks=refs("a", "b"))
    await RoutedHistory(lambda _: None, local.serve(), pool, SHARD_COUNT, TOKENS).start_tasks(
        request
    )
    assert local.requests[0] is request


async def test_start_tasks_at_a_lost_host_offers_its_tasks_again_in_order(
    pool: ChannelPool,
) -> None:
    lost = shard_of("n", "b", SHARD_COUNT)
    workflow_ids = [name for name in "abcdefgh" if shard_of("n", name, SHARD_COUNT) != lost]
    names = [workflow_ids[0], "b", *workflow_ids[1:]]
    routed = RoutedHistory(
        lambda shard_id: NOBODY if shard_id == lost else None,
        FakeHistory().serve(),
        pool,
        SHARD_COUNT,
        TOKENS,
    )
    response = await routed.start_tasks(
        history_service_pb2.StartTasksRequest(tasks=refs(*names), identity="worker")
    )
    assert [task.activity_task.activity_id or "again" for task in response.tasks] == [
        "again" if name == "b" else name for name in names
    ]


async def test_release_tasks_reaches_every_host_even_if_one_fails(
    pool: ChannelPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetheris_server.rpc.routing._RETRY_SECONDS", 0.1)
    lost = shard_of("n", "b", SHARD_COUNT)
    names = [name for name in "abcdefgh" if shard_of("n", name, SHARD_COUNT) != lost]
    local = FakeHistory()
    routed = RoutedHistory(
        lambda shard_id: NOBODY if shard_id == lost else None,
        local.serve(),
        pool,
        SHARD_COUNT,
        TOKENS,
    )
    with pytest.raises(PeerUnavailableError):
        await routed.release_tasks([a_token("b"), *(a_token(name) for name in names)])
    assert sorted(token.workflow_id for token in local.released) == names


async def test_add_tasks_goes_to_the_host_of_each_queue(
    pool: ChannelPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetheris_server.rpc.routing._RETRY_SECONDS", 0.1)
    local = FakeMatching()
    tasks = refs("a", "b", "c")
    tasks[1].task_queue = "elsewhere"
    routed = RoutedMatching(
        lambda _namespace, queue, _type: NOBODY if queue == "elsewhere" else None,
        local.serve(),
        pool,
    )
    with pytest.raises(PeerUnavailableError):
        await routed.add_tasks(tasks)
    assert [task.workflow_id for task in local.added] == ["a", "c"]


async def test_poll_is_located_by_queue_and_type(pool: ChannelPool) -> None:
    asked: list[tuple[str, str, int]] = []

    def locate(namespace_id: str, queue: str, kind: task_queue_pb2.TaskQueueType.ValueType) -> None:
        asked.append((namespace_id, queue, kind))

    routed = RoutedMatching(locate, FakeMatching(answers_at_once=True).serve(), pool)
    await routed.call(
        table.POLL_WORKFLOW_TASKS,
        matching_service_pb2.PollWorkflowTasksRequest(
            namespace_id="n", request=worker_service_pb2.PollWorkflowTasksRequest(task_queue="q")
        ),
    )
    await routed.call(
        table.POLL_ACTIVITY_TASKS,
        matching_service_pb2.PollActivityTasksRequest(
            namespace_id="n", request=worker_service_pb2.PollActivityTasksRequest(task_queue="q")
        ),
    )
    await routed.call(
        table.SHUTDOWN_WORKER,
        matching_service_pb2.ShutdownWorkerRequest(
            namespace_id="n",
            task_queue_type=task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW,
            request=worker_service_pb2.ShutdownWorkerRequest(task_queue="q"),
        ),
    )
    assert asked == [
        ("n", "q", task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW),
        ("n", "q", task_queue_pb2.TASK_QUEUE_TYPE_ACTIVITY),
        ("n", "q", task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW),
    ]


def _call(target: str) -> history_service_pb2.AggregateCall:
    call = history_service_pb2.AggregateCall(request_id=target, payload=target.encode())
    call.target.namespace_id = "n"
    call.target.name = target
    return call


async def test_calls_of_a_lost_host_are_to_be_made_again_and_no_others(pool: ChannelPool) -> None:
    local = FakeHistory()
    names = [f"{number}" for number in range(10)]
    lost = shard_of("n", names[0], SHARD_COUNT)
    routed = RoutedHistory(
        lambda shard_id: NOBODY if shard_id == lost else None,
        local.serve(),
        pool,
        SHARD_COUNT,
        TOKENS,
    )
    outcomes = await routed.call_aggregates([_call(name) for name in names])
    for name, outcome in zip(names, outcomes, strict=True):
        if shard_of("n", name, SHARD_COUNT) == lost:
            assert outcome.HasField("retry")
        else:
            assert outcome.answer == name.encode()
    assert 0 < len(local.called) < len(names)
