"""Calls of runs whose target goes on as another run before the caller has heard of it."""

from typing import Any

import pytest

from aetheris.api.v1 import task_queue_pb2, worker_service_pb2
from aetheris_server.history.runs.run import LoadedRun
from tests.support.history_host import (
    NAMESPACE_ID,
    HistoryBench,
    history_bench,
    start_request,
)
from tests.support.raw import cancel_run, signal_run, types
from tests.support.runs import continue_as_new
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

_WORKFLOW = task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW


async def _decide(bench: HistoryBench, workflow_id: str, *commands: Any) -> None:
    """The next workflow task of a workflow id is decided."""

    def find() -> Any:
        refs = bench.refs_of(_WORKFLOW)
        return next((ref for ref in refs if ref.workflow_id == workflow_id), None)

    ref = await wait_until(find, what=f"a task of {workflow_id}")
    bench.matching.refs.remove(ref)
    started = await bench.start_task(ref)
    await bench.service.respond_workflow_task_completed(
        NAMESPACE_ID,
        worker_service_pb2.RespondWorkflowTaskCompletedRequest(
            task_token=started.workflow_task.task_token, commands=commands, identity="bench"
        ),
    )


async def _names(run: LoadedRun) -> list[str]:
    await run.wait_committed()
    events = run.tail.try_slice(1, run.state.next_event_id)
    assert events is not None
    return types(events)


@pytest.mark.parametrize(
    "command,recorded,done",
    [
        (
            signal_run("target"),
            "WORKFLOW_EXECUTION_SIGNALED",
            "EXTERNAL_WORKFLOW_EXECUTION_SIGNALED",
        ),
        (
            cancel_run("target"),
            "WORKFLOW_EXECUTION_CANCEL_REQUESTED",
            "EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED",
        ),
    ],
    ids=["signal", "cancel"],
)
async def test_call_whose_target_went_on_twice_meanwhile_is_recorded_once(
    migrated_postgres_dsn: str, command: Any, recorded: str, done: str
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        for workflow_id in ("target", "caller"):
            await bench.service.start_workflow(NAMESPACE_ID, start_request(workflow_id))
        first = await bench.runs.load(NAMESPACE_ID, "target")
        caller = await bench.runs.load(NAMESPACE_ID, "caller")
        bench.calls.loses_answers = True
        await _decide(bench, "caller", command)
        await wait_until(lambda: first.state.request_ids or first.state.cancel_requested)
        for _ in range(2):
            await _decide(bench, "target", continue_as_new())
            # A run that goes on at once waits a moment.
            bench.advance(2)
        newest = await bench.runs.load(NAMESPACE_ID, "target")
        assert newest.state.started.first_execution_run_id == first.key.run_id
        bench.advance(3600)
        bench.calls.loses_answers = False
        await wait_until(lambda: not _owes_call(caller), 20, "the call to be answered")
        assert done in await _names(caller)
        second_id = newest.state.started.continued_execution_run_id
        second = await bench.runs.load(NAMESPACE_ID, "target", second_id)
        counts = [(await _names(run)).count(recorded) for run in (first, second, newest)]
        assert counts == [1, 0, 0]


def _owes_call(run: LoadedRun) -> bool:
    return bool(run.state.parts)


async def test_run_that_owes_a_call_says_so_in_its_row_once_it_has_closed(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.start_workflow(NAMESPACE_ID, start_request("caller"))
        await bench.service.start_workflow(NAMESPACE_ID, start_request("target"))
        bench.calls.gate.clear()
        await _decide(bench, "caller", signal_run("target"), continue_as_new())
        rows = await bench.db.fetch(
            "SELECT owes FROM executions WHERE workflow_id = 'caller' AND close_time IS NOT NULL"
        )
        assert rows == [(True,)]
    # Another host takes the shard.
    async with history_bench(migrated_postgres_dsn) as bench:
        target = await bench.runs.load(NAMESPACE_ID, "target")
        await wait_until(lambda: target.state.signal_count == 1, 20, "the signal")

        async def is_settled() -> bool:
            rows = await bench.db.fetch(
                "SELECT owes FROM executions WHERE workflow_id = 'caller'"
                " AND close_time IS NOT NULL"
            )
            return rows == [(False,)]

        await wait_until(is_settled, 20, "the row to say that nothing is owed")
