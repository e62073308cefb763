"""Every combination of what a workflow id has, and what a start says about it."""

from collections.abc import AsyncGenerator
from itertools import product

import pytest

from aetheris.api.v1 import (
    command_pb2,
    common_pb2,
    task_queue_pb2,
    worker_service_pb2,
    workflow_pb2,
    workflow_service_pb2,
)
from aetheris_server.errors import WorkflowAlreadyStartedError
from aetheris_server.storage.executions import NewestRun
from tests.support.history_host import NAMESPACE_ID, HistoryBench, history_bench, start_request
from tests.support.runs import (
    application_failure,
    cancel_workflow,
    complete_workflow,
    continue_as_new,
    fail_workflow,
    seconds,
)
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

_REUSE = {
    name.removeprefix("WORKFLOW_ID_REUSE_POLICY_"): value
    for name, value in workflow_pb2.WorkflowIdReusePolicy.items()
}
_CONFLICT = {
    name.removeprefix("WORKFLOW_ID_CONFLICT_POLICY_"): value
    for name, value in workflow_pb2.WorkflowIdConflictPolicy.items()
}
_CLOSED = ["COMPLETED", "FAILED", "CANCELLED", "TERMINATED", "TIMED_OUT"]
_OPEN = ["RUNNING", "CONTINUED"]
_TASK = task_queue_pb2.TASK_QUEUE_TYPE_WORKFLOW


@pytest.fixture
async def bench(migrated_postgres_dsn: str) -> AsyncGenerator[HistoryBench]:
    async with history_bench(migrated_postgres_dsn) as bench:
        yield bench


def _start(workflow_id: str, request_id: str) -> workflow_service_pb2.StartWorkflowRequest:
    request = start_request(workflow_id)
    request.request_id = f"{request_id}-{workflow_id}"
    return request


async def _decide(bench: HistoryBench, workflow_id: str, command: command_pb2.Command) -> None:
    refs = await wait_until(
        lambda: [ref for ref in bench.refs_of(_TASK) if ref.workflow_id == workflow_id]
    )
    started = await bench.start_task(refs[-1])
    await bench.service.respond_workflow_task_completed(
        NAMESPACE_ID,
        worker_service_pb2.RespondWorkflowTaskCompletedRequest(
            task_token=started.workflow_task.task_token, commands=[command]
        ),
    )


async def _bring_to(bench: HistoryBench, workflow_id: str, status: str) -> NewestRun:
    """The newest run of a workflow id that has come to a status."""
    request = _start(workflow_id, "first")
    if status == "TIMED_OUT":
        request.workflow_run_timeout.CopyFrom(seconds(5))
    await bench.service.start_workflow(NAMESPACE_ID, request)
    execution = common_pb2.WorkflowExecution(workflow_id=workflow_id)
    match status:
        case "COMPLETED":
            await _decide(bench, workflow_id, complete_workflow())
        case "FAILED":
            await _decide(bench, workflow_id, fail_workflow(application_failure()))
        case "CANCELLED":
            await bench.service.cancel_workflow(
                NAMESPACE_ID,
                workflow_service_pb2.CancelWorkflowRequest(workflow_execution=execution),
            )
            await _decide(bench, workflow_id, cancel_workflow())
        case "TERMINATED":
            await bench.service.terminate_workflow(
                NAMESPACE_ID,
                workflow_service_pb2.TerminateWorkflowRequest(workflow_execution=execution),
            )
        case "TIMED_OUT":
            bench.advance(6)
        case "CONTINUED":
            await _decide(bench, workflow_id, continue_as_new())
        case _:
            assert status == "RUNNING"
    bench.matching.refs.clear()
    newest = await bench.runs.load_newest(NAMESPACE_ID, workflow_id)
    assert newest is not None
    assert (newest.close_time is None) == (status in _OPEN)
    return newest


@pytest.mark.parametrize("status", [*_CLOSED, *_OPEN])
async def test_start_does_what_its_policies_say_for_a_run_of_each_status(
    bench: HistoryBench, status: str
) -> None:
    for reuse, conflict in product(_REUSE, _CONFLICT):
        workflow_id = f"{status}-{reuse}-{conflict}"
        before = await _bring_to(bench, workflow_id, status)
        request = _start(workflow_id, "second")
        request.workflow_id_reuse_policy = _REUSE[reuse]
        request.workflow_id_conflict_policy = _CONFLICT[conflict]
        outcome, run_id = await _ask(bench, request)
        assert (run_id == before.run_id) == (outcome != "new")
        assert outcome == _expected(status, reuse, conflict), workflow_id
        now = await bench.runs.load(NAMESPACE_ID, workflow_id, before.run_id)
        terminates = status in _OPEN and conflict == "TERMINATE_EXISTING"
        was_open = before.close_time is None
        assert now.state.is_open == (was_open and not terminates)
        # The same request again has the same answer, and another one of the first its own.
        if outcome == "new":
            again = await bench.service.start_workflow(NAMESPACE_ID, request)
            assert (again.run_id, again.started) == (run_id, True)
        again = await bench.service.start_workflow(NAMESPACE_ID, _start(workflow_id, "first"))
        assert (again.run_id, again.started) == (before.first_execution_run_id, True)


async def _ask(
    bench: HistoryBench, request: workflow_service_pb2.StartWorkflowRequest
) -> tuple[str, str]:
    """What a start comes to, and the run that it names."""
    try:
        answer = await bench.service.start_workflow(NAMESPACE_ID, request)
    except WorkflowAlreadyStartedError as error:
        return "refused", error.run_id
    return "new" if answer.started else "used", answer.run_id


def _expected(status: str, reuse: str, conflict: str) -> str:
    if status in _OPEN:
        outcomes = {"USE_EXISTING": "used", "TERMINATE_EXISTING": "new"}
        return outcomes.get(conflict, "refused")
    if reuse == "REJECT_DUPLICATE":
        return "refused"
    if reuse == "ALLOW_DUPLICATE_FAILED_ONLY" and status == "COMPLETED":
        return "refused"
    return "new"
