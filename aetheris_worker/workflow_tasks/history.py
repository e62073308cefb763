"""Completes the history that came with a workflow task, where the worker needs more of it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris.api.v1.worker_service_pb2 import WorkflowTask
from aetheris.api.v1.workflow_service_pb2 import (
    GetWorkflowHistoryRequest,
    GetWorkflowHistoryResponse,
)

PAGE_SIZE: Final = 1_000
# A task must be answered in seconds; the next attempt may find the history faster.
FETCH_TIMEOUT: Final = 60.0


GetHistory = Callable[[GetWorkflowHistoryRequest], Awaitable[GetWorkflowHistoryResponse]]
"""Reads a page; raises RpcError when the server cannot be reached for long, or refuses."""


async def fetch_history(
    get_history: GetHistory, namespace: str, task: WorkflowTask, *, whole: bool
) -> Sequence[HistoryEvent]:
    """The events of a task: those it came with, and the pages behind them.

    Args:
        get_history: The call.
        namespace: The run's.
        task: Its own events, if any, are the newest ones, or a page token leads to them.
        whole: From the first event of the run, whatever the task begins with.

    Raises:
        RpcError: The history cannot be read.
        TimeoutError: It takes too long.
    """
    events: list[HistoryEvent] = []
    own = task.history.events
    async with asyncio.timeout(FETCH_TIMEOUT):
        if whole and (not own or own[0].event_id > 1):
            await _read_pages(get_history, namespace, task, b"", events)
            if own:
                # Newer events may have come since the task was made: it does not know them.
                del events[own[0].event_id - 1 :]
        events.extend(own)
        if task.next_page_token:
            await _read_pages(get_history, namespace, task, task.next_page_token, events)
    return events


async def _read_pages(
    get_history: GetHistory,
    namespace: str,
    task: WorkflowTask,
    page_token: bytes,
    events: list[HistoryEvent],
) -> None:
    request = GetWorkflowHistoryRequest(
        namespace=namespace, page_size=PAGE_SIZE, page_token=page_token
    )
    request.workflow_execution.CopyFrom(task.workflow_execution)
    while True:
        response = await get_history(request)
        events.extend(response.history.events)
        request.page_token = response.next_page_token
        if not request.page_token:
            return


def first_event_id(events: Sequence[HistoryEvent]) -> int:
    """The id of the first event; 0 if there is none."""
    return events[0].event_id if events else 0
