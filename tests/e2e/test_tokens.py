"""Tokens and names that are wrong: refused, with nothing written and nothing told."""

import asyncio
import secrets
from binascii import crc32
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest

from aetheris.api.v1 import worker_service_pb2
from aetheris.api.v1.workflow_pb2 import (
    WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING as TERMINATE_EXISTING,
)
from aetheris.server.v1.token_pb2 import TaskToken
from tests.support.log_audit import audit_log
from tests.support.raw import (
    Raw,
    complete_workflow,
    detail_of,
    record_marker,
    schedule_activity,
)

Call = Callable[[], Awaitable[object]]


async def _refusal(call: Call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    return caught.value


def _damaged(token: bytes) -> list[bytes]:
    flipped = bytearray(token)
    flipped[len(token) // 2] ^= 1
    return [b"", b"\0", token[:-1], token + b"\0", bytes(flipped), secrets.token_bytes(40)]


async def test_corrupt_task_token_is_an_invalid_argument(
    server: Raw, e2e_postgres_dsn: str
) -> None:
    run = await server.start_run()
    task = await server.poll_workflow()
    for token in _damaged(task.task_token):
        damaged = worker_service_pb2.WorkflowTask(task_token=token)
        activity = worker_service_pb2.ActivityTask(task_token=token)
        for call in (
            lambda damaged=damaged: server.decide(damaged, complete_workflow()),
            lambda damaged=damaged: server.fail_decision(damaged),
            lambda activity=activity: server.complete_activity(activity),
            lambda activity=activity: server.heartbeat(activity),
        ):
            error = await _refusal(call)
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
            assert detail_of(error, "BadRequestDetail").field == "task_token"
    assert (await asyncio.to_thread(audit_log, e2e_postgres_dsn))[run.run_id].record_count == 1


@pytest.mark.parametrize("seconds", [-(2**63), 2**62, -62_135_596_800, 253_402_300_799, 0])
async def test_token_that_no_host_has_sealed_is_refused_and_harms_no_run(
    server: Raw, e2e_postgres_dsn: str, seconds: int
) -> None:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), schedule_activity())
    task = await server.poll_activity()
    forged = TaskToken(
        namespace_id=await server.namespace_id(),
        workflow_id=run.workflow_id,
        run_id=run.run_id,
        scheduled_event_id=task.scheduled_event_id,
        attempt=1,
    )
    forged.started_time.seconds = seconds
    body = forged.SerializeToString()
    for token in (crc32(body).to_bytes(4) + body, bytes([1]) + bytes(16) + body):
        activity = worker_service_pb2.ActivityTask(task_token=token)
        for call in (
            lambda activity=activity: server.heartbeat(activity),
            lambda activity=activity: server.fail_activity(activity),
            lambda activity=activity: server.cancel_activity(activity),
            lambda activity=activity: server.complete_activity(activity),
        ):
            error = await _refusal(call)
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
            assert detail_of(error, "BadRequestDetail").field == "task_token"
    assert (await asyncio.to_thread(audit_log, e2e_postgres_dsn))[run.run_id].record_count == 2
    await server.complete_activity(task)


async def test_page_token_of_another_query_is_refused(server: Raw) -> None:
    workflow_id = (await server.start_run()).workflow_id
    await server.start(workflow_id, workflow_id_conflict_policy=TERMINATE_EXISTING)
    page = await server.list_page(page_size=1, workflow_id=workflow_id)
    assert page.next_page_token
    found = await server.list_page(page.next_page_token, workflow_id=workflow_id)
    assert len(found.executions) == 1
    others: list[dict[str, Any]] = [
        {},
        {"workflow_id": "another"},
        {"workflow_id": workflow_id, "statuses": [1]},
    ]
    for filters in others:
        error = await _refusal(
            lambda filters=filters: server.list_page(page.next_page_token, **filters)
        )
        assert error.code() == grpc.StatusCode.INVALID_ARGUMENT, error
        assert detail_of(error, "BadRequestDetail").field == "page_token"


async def test_stale_task_token_is_not_found_but_for_the_newest_decision(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow()
    await server.decide(task, schedule_activity())
    # Its worker may not have heard of it.
    await server.decide(task, schedule_activity())
    assert (await _refusal(lambda: server.fail_decision(task))).code() == grpc.StatusCode.NOT_FOUND
    await server.complete_activity(await server.poll_activity())
    await server.decide(await server.poll_workflow(), complete_workflow())
    assert (await _refusal(lambda: server.decide(task))).code() == grpc.StatusCode.NOT_FOUND
    assert len(await server.history(run)) == 11


async def test_token_of_another_kind_is_refused(server: Raw) -> None:
    await server.start_run()
    task = await server.poll_workflow()
    await server.decide(task, schedule_activity())
    activity = await server.poll_activity()
    as_workflow = worker_service_pb2.WorkflowTask(task_token=activity.task_token)
    as_activity = worker_service_pb2.ActivityTask(task_token=task.task_token)
    for call in (
        lambda: server.decide(as_workflow, complete_workflow()),
        lambda: server.complete_activity(as_activity),
        lambda: server.heartbeat(as_activity),
    ):
        assert (await _refusal(call)).code() in (
            grpc.StatusCode.NOT_FOUND,
            grpc.StatusCode.INVALID_ARGUMENT,
        )
    await server.complete_activity(activity)


async def test_token_of_another_namespace_tells_nothing(server: Raw) -> None:
    name = f"other-{secrets.token_hex(4)}"
    await server.create_namespace(name)
    run = await server.start_run()
    task = await server.poll_workflow()
    await server.decide(task, *(record_marker(f"{n}") for n in range(300)), schedule_activity())
    activity = await server.poll_activity()
    page = await server.history_page(run, page_size=10)
    server.namespace = name
    for call in (
        lambda: server.decide(task, complete_workflow()),
        lambda: server.complete_activity(activity),
        lambda: server.heartbeat(activity),
        lambda: server.describe(run),
        lambda: server.history_page(run, page_token=page.next_page_token),
        lambda: server.signal(run),
        lambda: server.result(run),
        lambda: server.query(run),
        lambda: server.terminate(run),
    ):
        error = await _refusal(call)
        assert error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)
        assert "300" not in (error.details() or "")
    assert not await server.list()
    server.namespace = "default"
    await server.complete_activity(activity)


async def test_page_token_of_another_run_is_refused(server: Raw) -> None:
    one, two = await server.start_run(), await server.start_run()
    page = await server.history_page(one, page_size=1)
    error = await _refusal(lambda: server.history_page(two, page_token=page.next_page_token))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert detail_of(error, "BadRequestDetail").field == "page_token"


async def test_unknown_namespace_is_not_found(server: Raw) -> None:
    server.namespace = "nowhere"
    for call in (server.start_run, server.list, server.poll_workflow):
        assert (await _refusal(call)).code() == grpc.StatusCode.NOT_FOUND
