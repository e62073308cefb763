"""Queries, whatever state the run is in."""

import asyncio

import grpc
import pytest

from aetheris.api.v1 import common_pb2, worker_service_pb2, workflow_service_pb2
from tests.support.log_audit import audit_log
from tests.support.processes import Stopwatch
from tests.support.raw import Raw, complete_workflow, query_answer, query_failure, start_timer
from tests.support.wait import wait_until


async def _idle_run(server: Raw) -> common_pb2.WorkflowExecution:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), start_timer("t", 600))
    return run


async def test_query_of_an_idle_run_is_asked_by_itself_and_writes_nothing(
    server: Raw, e2e_postgres_dsn: str
) -> None:
    run = await _idle_run(server)
    before = (await asyncio.to_thread(audit_log, e2e_postgres_dsn))[run.run_id].record_count
    asking = asyncio.create_task(server.query(run, "state"))
    task = await server.poll_workflow()
    assert task.query.query_type == "state"
    assert task.history.events[0].event_id == 1
    await server.answer_query(task, query_answer("fine"))
    assert await asking == "fine"
    after = (await asyncio.to_thread(audit_log, e2e_postgres_dsn))[run.run_id].record_count
    assert before == after


async def test_query_with_a_pending_task_goes_along_with_it(server: Raw) -> None:
    run = await server.start_run()
    asking = asyncio.create_task(server.query(run))
    task = await _poll_with_query(server)
    (query_id,) = task.queries
    await server.decide(
        task, start_timer("t", 600), query_results={query_id: query_answer("along")}
    )
    assert await asking == "along"


async def _poll_with_query(server: Raw) -> worker_service_pb2.WorkflowTask:
    async def poll() -> worker_service_pb2.WorkflowTask | None:
        task = await server.poll_workflow()
        if task.queries:
            return task
        await server.fail_decision(task)
        return None

    task = await wait_until(poll, 20, "a workflow task with a query")
    assert task is not None
    return task


async def test_query_that_comes_while_the_task_is_out_is_asked_after_it(server: Raw) -> None:
    run = await server.start_run()
    task = await server.poll_workflow()
    asking = asyncio.create_task(server.query(run))
    await server.signal(run)
    await server.decide(task)
    following = await server.poll_workflow()
    answers = {query_id: query_answer("late") for query_id in following.queries}
    await server.decide(following, query_results=answers)
    if not answers:
        await server.answer_query(await server.poll_workflow(), query_answer("late"))
    assert await asking == "late"


async def test_query_of_a_closed_run_is_answered(server: Raw) -> None:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), complete_workflow())
    asking = asyncio.create_task(server.query(run))
    await server.answer_query(await server.poll_workflow(), query_answer("closed"))
    assert await asking == "closed"


async def test_query_that_waits_when_the_run_is_terminated_is_asked_at_once(server: Raw) -> None:
    run = await _idle_run(server)
    await server.signal(run)
    task = await server.poll_workflow()
    asking = asyncio.create_task(server.query(run))
    await server.describe(run)
    await server.terminate(run)
    del task
    watch = Stopwatch()
    await server.answer_query(await server.poll_workflow(), query_answer("end"))
    assert await asking == "end"
    assert watch.seconds < 5


async def test_query_refused_for_a_status_is_not_asked(server: Raw) -> None:
    run = await server.start_run()
    await server.terminate(run)
    for condition in (
        workflow_service_pb2.QUERY_REJECT_CONDITION_NOT_OPEN,
        workflow_service_pb2.QUERY_REJECT_CONDITION_NOT_COMPLETED_CLEANLY,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.query(run, query_reject_condition=condition)
        assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION


async def test_query_of_a_run_that_closed_before_its_code_ran_fails(server: Raw) -> None:
    run = await server.start_run()
    await server.terminate(run)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.query(run)
    assert "before its code ever ran" in (caught.value.details() or "")


async def test_query_that_fails_says_why(server: Raw) -> None:
    run = await _idle_run(server)
    asking = asyncio.create_task(server.query(run))
    await server.answer_query(await server.poll_workflow(), query_failure("no such query"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asking
    assert "no such query" in (caught.value.details() or "")


@pytest.mark.slow
async def test_query_that_no_worker_answers_ends_as_not_ready(server: Raw) -> None:
    run = await _idle_run(server)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.query(run)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    assert server.queue in (caught.value.details() or "")


async def test_query_of_a_run_whose_task_keeps_failing_fails_at_once(server: Raw) -> None:
    run = await server.start_run()
    for _ in range(3):
        await server.fail_decision(await server.poll_workflow(), "bug")
    watch = Stopwatch()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.query(run)
    assert watch.seconds < 2
    assert "bug" in (caught.value.details() or "")


async def test_second_answer_to_a_query_is_refused(server: Raw) -> None:
    run = await _idle_run(server)
    asking = asyncio.create_task(server.query(run))
    task = await server.poll_workflow()
    await server.answer_query(task, query_answer("one"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await server.answer_query(task, query_answer("two"))
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert await asking == "one"
