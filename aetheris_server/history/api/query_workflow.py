"""QueryWorkflow: a question to the run's code, as of all that was acknowledged before.

Writes nothing.

A run with a pending workflow task answers along with it. Any other is asked by itself, through
matching, by whoever of its workers is free.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from aetheris.api.v1 import worker_service_pb2, workflow_pb2, workflow_service_pb2
from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.errors import (
    InvalidArgumentError,
    NotReadyError,
    QueryFailedError,
    QueryRejectedError,
    ShardNotOwnedError,
    TaskNotFoundError,
    UnavailableError,
)
from aetheris_server.history.runs.by_token import load_by_token
from aetheris_server.history.runs.run import LoadedRun, WaitingQuery
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.run import RunState
from aetheris_server.ids import new_run_id

_ANSWER_TIMEOUT = 20.0
_MAX_WAITING = 100
# A workflow task that has failed so often in a row will not answer soon.
_MAX_FAILED_ATTEMPTS = 3


async def query_workflow(
    runs: Runs, namespace_id: str, request: workflow_service_pb2.QueryWorkflowRequest
) -> workflow_service_pb2.QueryWorkflowResponse:
    """Ask the run's code, and wait for the answer.

    Raises:
        WorkflowNotFoundError: There is no such run.
        QueryRejectedError: The run's status is one that the caller ruled out.
        QueryFailedError: The code could not answer.
        NotReadyError: No worker answered in time.
    """
    execution = request.workflow_execution
    run = await runs.load(
        namespace_id, execution.workflow_id, execution.run_id, request.first_execution_run_id
    )
    try:
        _check_status(run.state, request.query_reject_condition)
        _check_can_answer(run.state)
    finally:
        # Of this moment, be it a refusal or not; what changes meanwhile may not be on disk.
        await run.wait_committed()
    if run.is_dropped:
        raise ShardNotOwnedError(run.shard_id)
    if len(run.queries) >= _MAX_WAITING:
        raise UnavailableError(f"{_MAX_WAITING} queries of the run wait already")
    waiting = _to_waiting(request, runs.clock.now())
    run.queries[waiting.query_id] = waiting
    try:
        if _is_asked_by_itself(run):
            runs.queries.offer(run, waiting)
        async with asyncio.timeout(_ANSWER_TIMEOUT):
            result = await waiting.answer
            # The worker may know a decision that is on its way to the disk.
            await run.wait_committed()
        return _to_response(result)
    except TimeoutError:
        raise NotReadyError(f"a worker of task queue {run.state.task_queue!r}") from None
    finally:
        run.queries.pop(waiting.query_id, None)


def _to_waiting(request: workflow_service_pb2.QueryWorkflowRequest, now: datetime) -> WaitingQuery:
    return WaitingQuery(
        query_id=new_run_id(),
        query=worker_service_pb2.WorkflowQuery(
            query_type=request.query_type,
            query_args=request.query_args if request.HasField("query_args") else None,
            header=request.header if request.HasField("header") else None,
        ),
        answer=asyncio.get_running_loop().create_future(),
        expire_time=now + timedelta(seconds=_ANSWER_TIMEOUT),
    )


def _check_status(
    state: RunState, condition: "workflow_service_pb2.QueryRejectCondition.ValueType"
) -> None:
    match condition:
        case (
            workflow_service_pb2.QUERY_REJECT_CONDITION_UNSPECIFIED
            | workflow_service_pb2.QUERY_REJECT_CONDITION_NONE
        ):
            rejected = False
        case workflow_service_pb2.QUERY_REJECT_CONDITION_NOT_OPEN:
            rejected = not state.is_open
        case workflow_service_pb2.QUERY_REJECT_CONDITION_NOT_COMPLETED_CLEANLY:
            completed = workflow_pb2.WORKFLOW_EXECUTION_STATUS_COMPLETED
            rejected = not state.is_open and state.status != completed
        case unknown:
            raise InvalidArgumentError(
                "query_reject_condition", f"expected a condition of this version, found {unknown}"
            )
    if rejected:
        name = workflow_pb2.WorkflowExecutionStatus.Name(state.status)
        raise QueryRejectedError(name.removeprefix("WORKFLOW_EXECUTION_STATUS_"))


def _check_can_answer(state: RunState) -> None:
    if not state.is_open and state.previous_started_event_id == 0:
        raise QueryFailedError("the run closed before its code ever ran")
    if state.first_task_time is not None:
        raise NotReadyError("the run's code, whose start is delayed")
    if state.is_paused and state.previous_started_event_id == 0:
        raise NotReadyError("the run's code, which was paused before it ever ran")
    task = state.workflow_task
    if task is not None and task.attempt > _MAX_FAILED_ATTEMPTS:
        reason = task.last_failure.message if task.last_failure is not None else "unknown"
        raise QueryFailedError(
            f"the run's workflow task has failed {task.attempt - 1} times in a row: {reason}"
        )


def settle_queries(
    runs: Runs,
    run: LoadedRun,
    query_ids: Sequence[str],
    results: Mapping[str, worker_service_pb2.WorkflowQueryResult],
) -> None:
    """Answer the queries that went along with a workflow task that has closed.

    Those that it did not answer, and those that came while it was in flight, are asked again: along
    with the next workflow task if there is one, else by themselves. Those of a run that has closed
    has been asked again.
    """
    for query_id in query_ids:
        waiting = run.queries.get(query_id)
        if waiting is not None and query_id in results and not waiting.answer.done():
            waiting.answer.set_result(results[query_id])
    if run.state.is_open and _is_asked_by_itself(run):
        runs.queries.offer_all(run)


def _is_asked_by_itself(run: LoadedRun) -> bool:
    """Whether no workflow task is to come along with which a query could be asked."""
    if run.state.is_paused:
        return run.inflight.workflow_task is None
    return run.state.workflow_task is None


async def respond_query_task_completed(
    runs: Runs,
    token: TaskToken,
    request: worker_service_pb2.RespondQueryTaskCompletedRequest,
) -> worker_service_pb2.RespondQueryTaskCompletedResponse:
    """Pass on the answer to a query that was asked by itself.

    Raises:
        TaskNotFoundError: Nobody waits for it any more.
    """
    run = await load_by_token(runs, token)
    waiting = run.queries.get(token.query_id)
    if waiting is None or waiting.answer.done():
        raise TaskNotFoundError("nobody waits for the query's answer any more")
    waiting.answer.set_result(request.result)
    return worker_service_pb2.RespondQueryTaskCompletedResponse()


def _to_response(
    result: worker_service_pb2.WorkflowQueryResult,
) -> workflow_service_pb2.QueryWorkflowResponse:
    match result.result_type:
        case worker_service_pb2.QUERY_RESULT_TYPE_ANSWERED:
            return workflow_service_pb2.QueryWorkflowResponse(
                query_result=result.answer if result.HasField("answer") else None
            )
        case worker_service_pb2.QUERY_RESULT_TYPE_FAILED:
            raise QueryFailedError(
                result.error_message or result.failure.message or "the worker gave no reason"
            )
        case unknown:
            raise QueryFailedError(f"result_type is {unknown}, which this version does not know")
