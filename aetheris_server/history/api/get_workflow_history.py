"""GetWorkflowHistory and PollWorkflowResult: a run's events by the page, and waiting for more."""

import asyncio

from aetheris.api.v1 import history_pb2, workflow_service_pb2
from aetheris.server.v1 import token_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.history.runs.events import PAGE_SIZE, read_events
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.machines.lifecycle.close import to_result
from aetheris_server.history.times import from_duration
from aetheris_server.rpc.tokens import (
    LISTING_HISTORY,
    LISTING_TASK_HISTORY,
)

_LISTINGS = frozenset({LISTING_HISTORY, LISTING_TASK_HISTORY})
_WAIT_TIMEOUT = 20.0

HistoryRequest = workflow_service_pb2.GetWorkflowHistoryRequest
HistoryResponse = workflow_service_pb2.GetWorkflowHistoryResponse


async def get_workflow_history(
    runs: Runs, namespace_id: str, request: HistoryRequest
) -> HistoryResponse:
    """A page of events; at the end of an open run, if asked, waits for the next one.

    Raises:
        WorkflowNotFoundError: There is no such run.
        InvalidArgumentError: The page token is of another listing or another run,
            or not of this cluster.
    """
    execution = request.workflow_execution
    token = runs.tokens.open_page(request.page_token, _LISTINGS, namespace_id.encode())
    run_id = execution.run_id
    if token is not None:
        run_id = run_id or token.run_id
        _check_token(token, run_id)
    run = await runs.load(namespace_id, execution.workflow_id, run_id)
    next_id = token.next_event_id if token is not None else 1
    close_only = request.filter == workflow_service_pb2.HISTORY_EVENT_FILTER_CLOSE_EVENT
    if request.wait_new_event:
        run = await _wait_for(runs, run, next_id, close_only=close_only)
    if close_only:
        response = _close_page(runs, run, request)
        await run.wait_committed()
        return response
    return await _page(runs, run, request, token, next_id)


def _check_token(token: token_pb2.PageToken, run_id: str) -> None:
    if token.run_id != run_id:
        raise InvalidArgumentError("page_token", "the token is of another run")
    if token.next_event_id < 1:
        raise InvalidArgumentError("page_token", "the token names no event")


async def _page(
    runs: Runs,
    run: LoadedRun,
    request: HistoryRequest,
    token: token_pb2.PageToken | None,
    next_id: int,
) -> HistoryResponse:
    end_id = run.state.next_event_id
    is_open = run.state.is_open
    await run.wait_committed()
    events = await read_events(runs.db, run, next_id, end_id, request.page_size or PAGE_SIZE)
    response = HistoryResponse(history=history_pb2.History(events=events))
    next_id += len(events)
    listing = token.listing if token is not None else LISTING_HISTORY
    at_end = next_id >= end_id
    if at_end and listing == LISTING_TASK_HISTORY:
        response.history.events.extend(_task_events(run, next_id))
    elif not at_end or (request.wait_new_event and is_open):
        response.next_page_token = _seal_token(runs, run, listing, next_id)
    return response


def _task_events(run: LoadedRun, next_id: int) -> list[history_pb2.HistoryEvent]:
    """The events of the workflow task in flight, which are not in the log yet."""
    started = run.inflight.workflow_task
    if started is None:
        return []
    events = [event for event in (started.scheduled_event, started.started_event) if event]
    return events if events[0].event_id == next_id else []


def _close_page(runs: Runs, run: LoadedRun, request: HistoryRequest) -> HistoryResponse:
    close_event = run.state.close_event
    if close_event is not None:
        return HistoryResponse(history=history_pb2.History(events=[close_event]))
    response = HistoryResponse(history=history_pb2.History())
    if request.wait_new_event:
        next_id = run.state.next_event_id
        response.next_page_token = _seal_token(runs, run, LISTING_HISTORY, next_id)
    return response


def _seal_token(runs: Runs, run: LoadedRun, listing: str, next_id: int) -> bytes:
    token = token_pb2.PageToken(listing=listing, run_id=run.key.run_id, next_event_id=next_id)
    return runs.tokens.seal_page(token, run.key.namespace_id.encode())


async def _wait_for(
    runs: Runs,
    run: LoadedRun,
    next_id: int,
    *,
    close_only: bool,
    timeout: float = _WAIT_TIMEOUT,
) -> LoadedRun:
    """Wait, for a bounded time, for an event with an id of next_id or more, or for the close.

    Returns:
        The run as it is then in memory; it may have been loaded anew meanwhile.
    """
    key = run.key
    try:
        async with asyncio.timeout(timeout):
            while not _has_come(run, next_id, close_only=close_only):
                await run.wait_changed()
                if run.is_dropped:
                    run = await runs.load(key.namespace_id, key.workflow_id, key.run_id)
    except TimeoutError:
        pass
    if run.is_dropped:
        run = await runs.load(key.namespace_id, key.workflow_id, key.run_id)
    return run


def _has_come(run: LoadedRun, next_id: int, *, close_only: bool) -> bool:
    if not run.state.is_open and run.is_committed:
        return True
    return not close_only and run.committed_event_id > next_id


async def poll_workflow_result(
    runs: Runs,
    namespace_id: str,
    request: workflow_service_pb2.PollWorkflowResultRequest,
) -> workflow_service_pb2.PollWorkflowResultResponse:
    """Wait until the run has closed, for as long as the frontend has filled in.

    Raises:
        WorkflowNotFoundError: There is no such run.
    """
    execution = request.workflow_execution
    run = await runs.load(
        namespace_id, execution.workflow_id, execution.run_id, request.first_execution_run_id
    )
    timeout = from_duration(request.wait_timeout).total_seconds()
    run = await _wait_for(runs, run, 0, close_only=True, timeout=timeout)
    response = workflow_service_pb2.PollWorkflowResultResponse(run_id=run.key.run_id)
    if not run.state.is_open:
        response.result.CopyFrom(to_result(run.state))
        await run.wait_committed()
    return response
