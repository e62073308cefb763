"""What cannot be stored, sent on or read again is refused before it touches anything."""

import asyncio
import json
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from aetheris.api.v1 import common_pb2, failure_pb2, worker_service_pb2, workflow_pb2
from tests.support.log_audit import audit_log
from tests.support.processes import FAST, ServerProcess, running, start_arguments
from tests.support.raw import (
    COMPLETED,
    Raw,
    application_failure,
    complete_workflow,
    detail_of,
    schedule_activity,
)
from tests.support.stores import SessionStores

ONCE = common_pb2.RetryPolicy(maximum_attempts=1)
TERMINATE = workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING


def attributes(data: bytes) -> common_pb2.SearchAttributes:
    return common_pb2.SearchAttributes(indexed_fields={"a": common_pb2.Payload(data=data)})


def chain(length: int) -> failure_pb2.Failure:
    outermost = link = application_failure()
    for _ in range(length - 1):
        link = link.cause
        link.message = "cause"
    return outermost


def unknown_groups(depth: int) -> bytes:
    """A field that no message has: groups inside each other."""
    return b"\x9b\x06" * depth + b"\x9c\x06" * depth


@pytest.fixture
async def own_server(
    migrated_postgres_dsn: str, stores: SessionStores, tmp_path: Path
) -> AsyncGenerator[ServerProcess]:
    """A server of this test's own, which it may kill."""
    process = ServerProcess(
        tmp_path,
        start_arguments(migrated_postgres_dsn, stores.redis_url),
        {**FAST, "AETHERIS_REDIS__KEY_PREFIX": f"border-{secrets.token_hex(4)}"},
    )
    async with running(process):
        yield process


async def refused_field(call: Callable[[], Awaitable[object]]) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value
    return detail_of(caught.value, "BadRequestDetail").field


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"[" * 300 + b"]" * 300, id="300-deep"),
        pytest.param(b"[" * 5000 + b"]" * 5000, id="5000-deep"),
        pytest.param(b'{"a":' * 40 + b"1" + b"}" * 40, id="objects"),
        pytest.param(b"1e400", id="infinite"),
        pytest.param(b"123456789012345678901234567890", id="integer"),
        pytest.param(rb'["\ud800"]', id="surrogate"),
        pytest.param(rb'{"\u0000": 1}', id="nul"),
        pytest.param(b'{"a": 1, "a": 2}', id="twice"),
        pytest.param(b'"' + b"x" * 100_000 + b'"', id="long"),
    ],
)
async def test_json_that_could_fail_later_is_refused_and_harms_no_run(
    server: Raw, e2e_postgres_dsn: str, data: bytes
) -> None:
    run = await server.start_run()
    await server.signal(run, "one")
    field = await refused_field(
        lambda: server.start(
            run.workflow_id,
            search_attributes=attributes(data),
            workflow_id_conflict_policy=TERMINATE,
        )
    )
    assert field.startswith("search_attributes")
    await server.signal(run, "two")
    events = await server.history(run)
    assert [
        event.workflow_execution_signaled_event_attributes.signal_name for event in events[2:]
    ] == ["one", "two"]
    [info] = await server.list(workflow_id=run.workflow_id)
    assert info.execution.run_id == run.run_id
    await asyncio.to_thread(audit_log, e2e_postgres_dsn)


async def test_json_at_its_bounds_is_kept(server: Raw) -> None:
    data = b"[" * 32 + b'9223372036854775807,1.7976931348623157e308,5e-324,"x"' + b"]" * 32
    run = await server.start_run(search_attributes=attributes(data))
    [info] = await server.list(workflow_id=run.workflow_id)
    found = info.search_attributes.indexed_fields["a"].data
    assert json.loads(found) == json.loads(data)


async def test_failure_too_deep_to_be_read_from_the_log_is_refused(
    own_server: ServerProcess,
) -> None:
    async with Raw(own_server.address) as raw:
        run = await raw.start_run()
        await raw.decide(await raw.poll_workflow(), schedule_activity(retry_policy=ONCE))
        request: Any = worker_service_pb2.RespondActivityTaskFailedRequest(
            namespace="default",
            task_token=(await raw.poll_activity()).task_token,
            failure=chain(98),
        )
        field = await refused_field(lambda: raw.workers.RespondActivityTaskFailed(request))
        assert field.startswith("failure.cause.cause")
        request.failure.CopyFrom(chain(60))
        await raw.workers.RespondActivityTaskFailed(request)
        # Memory is gone with the process: what follows reads the log.
        await own_server.restart()
        await raw.decide(await raw.poll_workflow(), complete_workflow())
        result = await raw.result(run)
        assert result is not None
        assert result.status == COMPLETED


async def test_what_the_server_does_not_know_does_not_get_into_the_log(
    own_server: ServerProcess,
) -> None:
    known = common_pb2.Payload(data=b"1")
    payload = common_pb2.Payload.FromString(known.SerializeToString() + unknown_groups(96))
    async with Raw(own_server.address) as raw:
        run = await raw.start_run(input=common_pb2.Payloads(payloads=[payload]))
        await own_server.restart()
        [started, *_] = await raw.history(run)
    attributes = started.workflow_execution_started_event_attributes
    assert attributes.input.payloads[0].SerializeToString() == known.SerializeToString()


async def test_answer_that_is_refused_fails_no_other_of_its_batch(server: Raw) -> None:
    await server.start_run()
    await server.decide(
        await server.poll_workflow(), schedule_activity("a"), schedule_activity("b")
    )
    one, two = await server.poll_activity(), await server.poll_activity()
    request = worker_service_pb2.RespondTasksRequest(namespace="default")
    failed = request.answers.add().activity_task_failed
    failed.task_token = one.task_token
    failed.failure.CopyFrom(chain(90))
    request.answers.add().activity_task_completed.task_token = two.task_token
    results = (await server.workers.RespondTasks(request)).results
    assert results[0].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert results[1].WhichOneof("result") == "activity_task_completed"
