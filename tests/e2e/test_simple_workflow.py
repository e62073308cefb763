"""A run from its start to its end, over the wire."""

import asyncio
from datetime import timedelta

from tests.support.log_audit import audit_log
from tests.support.raw import (
    COMPLETED,
    Raw,
    complete_workflow,
    ids,
    schedule_activity,
    text_of,
    types,
)

_SIMPLE = [
    "WORKFLOW_EXECUTION_STARTED",
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
    "WORKFLOW_TASK_COMPLETED",
    "ACTIVITY_TASK_SCHEDULED",
    "ACTIVITY_TASK_STARTED",
    "ACTIVITY_TASK_COMPLETED",
    "WORKFLOW_TASK_SCHEDULED",
    "WORKFLOW_TASK_STARTED",
    "WORKFLOW_TASK_COMPLETED",
    "WORKFLOW_EXECUTION_COMPLETED",
]


async def test_workflow_with_polled_tasks_completes(server: Raw, e2e_postgres_dsn: str) -> None:
    run = await server.start_run()
    await server.decide(await server.poll_workflow(), schedule_activity())
    await server.complete_activity(await server.poll_activity(), "42")
    task = await server.poll_workflow()
    assert types(task.history.events) == _SIMPLE[:9]
    await server.decide(task, complete_workflow(text_of(_result_of(task))))
    result = await server.result(run)
    assert result is not None
    assert result.status == COMPLETED
    assert text_of(result.result) == "42"
    events = await server.history(run)
    assert types(events) == _SIMPLE
    assert ids(events) == list(range(1, 12))
    assert audit_log(e2e_postgres_dsn)[run.run_id].record_count == 4


def _result_of(task):
    return task.history.events[6].activity_task_completed_event_attributes.result


async def test_workflow_with_eager_tasks_completes_in_four_calls(server: Raw) -> None:
    polling = asyncio.create_task(server.poll_workflow(sticky="sticky"))
    ending = asyncio.create_task(server.start_run(result_wait_timeout=timedelta(seconds=10)))
    decided = await server.decide(
        await polling,
        schedule_activity(request_eager_execution=True),
        sticky="sticky",
        return_new_workflow_task=True,
    )
    (activity,) = decided.activity_tasks
    completed = await server.complete_activity(activity, sticky_task_queue="sticky")
    assert types(completed.workflow_task.history.events) == _SIMPLE[3:9]
    await server.decide(completed.workflow_task, complete_workflow())
    run = await ending
    assert types(await server.history(run)) == _SIMPLE
