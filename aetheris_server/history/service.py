"""What serves the calls of history: for each row of the RPC table its function, in a module under
`api`.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, TypeVar

from google.protobuf.message import Message

from aetheris_server.history.api.call_run import call_run
from aetheris_server.history.api.cancel_workflow import cancel_workflow
from aetheris_server.history.api.change_activity import (
    pause_activity,
    reset_activity,
    unpause_activity,
    update_activity_options,
)
from aetheris_server.history.api.describe_workflow import describe_workflow
from aetheris_server.history.api.fork_workflow import fork_workflow
from aetheris_server.history.api.get_workflow_history import (
    get_workflow_history,
    poll_workflow_result,
)
from aetheris_server.history.api.pause_workflow import pause_workflow, unpause_workflow
from aetheris_server.history.api.query_workflow import query_workflow, respond_query_task_completed
from aetheris_server.history.api.reset_workflow import reset_workflow
from aetheris_server.history.api.respond_activity_task import (
    record_activity_task_heartbeat,
    respond_activity_task_cancelled,
    respond_activity_task_completed,
    respond_activity_task_failed,
)
from aetheris_server.history.api.respond_workflow_task import (
    respond_workflow_task_completed,
    respond_workflow_task_failed,
)
from aetheris_server.history.api.signal_with_start_workflow import signal_with_start_workflow
from aetheris_server.history.api.signal_workflow import signal_workflow
from aetheris_server.history.api.start_tasks import release_tasks, start_tasks
from aetheris_server.history.api.start_workflow import start_workflow
from aetheris_server.history.api.terminate_workflow import terminate_workflow
from aetheris_server.history.api.update_with_start import update_with_start_workflow
from aetheris_server.history.api.update_workflow import poll_workflow_update, update_workflow
from aetheris_server.history.api.update_workflow_options import update_workflow_options
from aetheris_server.history.calls.answering import answer_calls
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.run import KIND
from aetheris_server.rpc import table
from aetheris_server.rpc.peers import LocalHistory
from aetheris_server.rpc.table import HistoryMethod

__all__ = ["serve_history"]

S = TypeVar("S")
Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_handlers: dict[HistoryMethod[Any, Any, Any], Callable[[Runs, Any, Any], Awaitable[Any]]] = {}


def _serve(method: HistoryMethod[S, Q, R], handler: Callable[[Runs, S, Q], Awaitable[R]]) -> None:
    """Register a function; its types are checked against the row."""
    _handlers[method] = handler


_serve(table.START_WORKFLOW, start_workflow)
_serve(table.SIGNAL_WITH_START_WORKFLOW, signal_with_start_workflow)
_serve(table.SIGNAL_WORKFLOW, signal_workflow)
_serve(table.QUERY_WORKFLOW, query_workflow)
_serve(table.CANCEL_WORKFLOW, cancel_workflow)
_serve(table.TERMINATE_WORKFLOW, terminate_workflow)
_serve(table.PAUSE_WORKFLOW, pause_workflow)
_serve(table.UNPAUSE_WORKFLOW, unpause_workflow)
_serve(table.PAUSE_ACTIVITY, pause_activity)
_serve(table.UNPAUSE_ACTIVITY, unpause_activity)
_serve(table.RESET_ACTIVITY, reset_activity)
_serve(table.UPDATE_ACTIVITY_OPTIONS, update_activity_options)
_serve(table.UPDATE_WORKFLOW_OPTIONS, update_workflow_options)
_serve(table.RESET_WORKFLOW, reset_workflow)
_serve(table.FORK_WORKFLOW, fork_workflow)
_serve(table.DESCRIBE_WORKFLOW, describe_workflow)
_serve(table.GET_WORKFLOW_HISTORY, get_workflow_history)
_serve(table.POLL_WORKFLOW_RESULT, poll_workflow_result)
_serve(table.UPDATE_WORKFLOW, update_workflow)
_serve(table.POLL_WORKFLOW_UPDATE, poll_workflow_update)
_serve(table.UPDATE_WITH_START_WORKFLOW, update_with_start_workflow)
_serve(table.RESPOND_WORKFLOW_TASK_COMPLETED, respond_workflow_task_completed)
_serve(table.RESPOND_WORKFLOW_TASK_FAILED, respond_workflow_task_failed)
_serve(table.RESPOND_QUERY_TASK_COMPLETED, respond_query_task_completed)
_serve(table.RESPOND_ACTIVITY_TASK_COMPLETED, respond_activity_task_completed)
_serve(table.RESPOND_ACTIVITY_TASK_FAILED, respond_activity_task_failed)
_serve(table.RESPOND_ACTIVITY_TASK_CANCELLED, respond_activity_task_cancelled)
_serve(table.RECORD_ACTIVITY_TASK_HEARTBEAT, record_activity_task_heartbeat)


def serve_history(runs: Runs) -> LocalHistory:
    """History for the shards that this host has."""
    return LocalHistory(
        {method: partial(handler, runs) for method, handler in _handlers.items()},
        partial(start_tasks, runs),
        partial(release_tasks, runs),
        partial(answer_calls, runs.engine, by_kind={KIND: partial(call_run, runs)}),
    )
