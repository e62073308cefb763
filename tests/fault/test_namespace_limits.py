"""Limits that a namespace gets while servers run: both hosts go by them, and no run is ended."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from aetheris.api.v1 import history_pb2, workflow_pb2
from aetheris.api.v1.common_pb2 import WorkflowExecution
from aetheris.api.v1.operator_service_pb2 import (
    DescribeNamespaceRequest,
    NamespaceLimits,
    UpdateNamespaceRequest,
)
from tests.fault.conftest import NewServer
from tests.support.processes import running
from tests.support.raw import Raw, detail_of, payloads, schedule_activity
from tests.support.wait import wait_until

# What is promised, and what a slow machine adds.
DEADLINE = 20.0
RUNS = 12


async def _set(server: Raw, *unset: str, **limits: int) -> None:
    request = UpdateNamespaceRequest(
        namespace="default", limits=NamespaceLimits(**limits), unset_limits=unset
    )
    await server.operators.UpdateNamespace(request)


async def _refusal(call: Callable[[], Awaitable[Any]]) -> str:
    """The field for which a call is refused; empty where it is not."""
    try:
        await call()
    except grpc.aio.AioRpcError as error:
        return detail_of(error, "BadRequestDetail").field
    return ""


async def _are_all(wanted: bool, calls: list[Callable[[], Awaitable[Any]]], field: str) -> bool:
    refusals = await asyncio.gather(*map(_refusal, calls))
    return all(refusal == (field if wanted else "") for refusal in refusals)


async def test_limits_of_a_namespace_count_on_both_hosts_soon_after_they_are_set(
    new_server: NewServer,
) -> None:
    settings = {"AETHERIS_HISTORY__SHARD_COUNT": "16"}
    servers = new_server(**settings), new_server(**settings)
    async with (
        running(*servers),
        Raw(servers[0].address) as one,
        Raw(servers[1].address) as two,
    ):
        # Runs of both hosts, each with a signal.
        runs = [await one.start_run() for _ in range(RUNS)]
        await asyncio.gather(*(two.signal(run) for run in runs))
        signals: list[Callable[[], Awaitable[Any]]] = [
            lambda run=run, via=via: via.signal(run)  # type: ignore[misc]
            for run in runs
            for via in (one, two)
        ]
        await _set(one, max_signals=1)
        await wait_until(lambda: _are_all(True, signals, "signal_name"), DEADLINE, "the limit")
        assert all([(await one.describe(run)).pending_workflow_task for run in runs])
        await _set(two, "max_signals")
        await wait_until(lambda: _are_all(False, signals, ""), DEADLINE, "the end of the limit")

        big = payloads("x" * 300)
        starts: list[Callable[[], Awaitable[Any]]] = [
            lambda via=via: via.start_run(input=big)  # type: ignore[misc]
            for via in (one, two)
        ]
        await _set(one, payload_max_bytes=256)
        await wait_until(lambda: _are_all(True, starts, "input"), DEADLINE, "the limit of inputs")
        described = await two.operators.DescribeNamespace(
            DescribeNamespaceRequest(namespace="default")
        )
        info = described.namespace_info
        assert info.limits == NamespaceLimits(payload_max_bytes=256)
        assert (info.effective_limits.payload_max_bytes, info.effective_limits.max_signals) == (
            256,
            10_000,
        )


async def test_run_over_a_limit_of_its_namespace_has_its_task_fail_and_goes_on(
    new_server: NewServer,
) -> None:
    server = new_server()
    async with running(server), Raw(server.address) as raw:
        await _set(raw, max_pending_activities=1)

        async def decide_too_much() -> WorkflowExecution | None:
            """The run whose decision is refused; None while the limit does not count yet."""
            run = await raw.start_run()
            task = await raw.poll_workflow()
            two = schedule_activity("a"), schedule_activity("b")
            if await _refusal(lambda: raw.decide(task, *two)) == "commands[1]":
                return run
            await raw.terminate(run)
            return None

        run = await wait_until(decide_too_much, DEADLINE, "the limit on activities")
        assert run is not None
        failed = (await raw.history(run))[-1].workflow_task_failed_event_attributes
        assert failed.cause == (
            history_pb2.WORKFLOW_TASK_FAILED_CAUSE_PENDING_ACTIVITIES_LIMIT_EXCEEDED
        )
        await raw.decide(await raw.poll_workflow(), schedule_activity("a"))
        info = (await raw.describe(run)).workflow_execution_info
        assert info.status == workflow_pb2.WORKFLOW_EXECUTION_STATUS_RUNNING
