"""What workflow code uses: the decorators, and what a run may ask for.

Workflow code must be deterministic: the same history must lead it to the same commands. So it takes
time, chance and the results of the outside world from here; the usual asyncio tools (sleep, gather,
wait_for, timeout, Event, Lock, Queue, TaskGroup) work on the run's own event loop.
"""

from aetheris_client.retry import RetryPolicy
from aetheris_worker.runtime.definitions import HandlerUnfinishedPolicy
from aetheris_worker.runtime.errors import ContinueAsNewError, NondeterminismError
from aetheris_worker.runtime.info import ParentInfo, RootInfo, WorkflowInfo
from aetheris_worker.runtime.machines.activity import ActivityCancellationType, ActivityHandle
from aetheris_worker.runtime.machines.child import (
    ChildWorkflowCancellationType,
    ChildWorkflowHandle,
    ParentClosePolicy,
)
from aetheris_worker.runtime.machines.update import UpdateInfo
from aetheris_worker.workflow.activity_options import StartActivityOptions
from aetheris_worker.workflow.children import (
    ExternalWorkflowHandle,
    StartChildOptions,
    execute_child_workflow,
    get_external_workflow_handle,
    start_child_workflow,
)
from aetheris_worker.workflow.continuing import ContinueAsNewOptions, continue_as_new
from aetheris_worker.workflow.current_run import NotInWorkflowError
from aetheris_worker.workflow.decorators import defn, query, run, signal, update
from aetheris_worker.workflow.executing import execute_activity, execute_activity_method
from aetheris_worker.workflow.handlers import (
    all_handlers_finished,
    current_update_info,
    set_dynamic_query_handler,
    set_dynamic_signal_handler,
    set_dynamic_update_handler,
    set_query_handler,
    set_signal_handler,
    set_update_handler,
)
from aetheris_worker.workflow.local_activity_options import StartLocalActivityOptions
from aetheris_worker.workflow.local_executing import (
    execute_local_activity,
    execute_local_activity_method,
)
from aetheris_worker.workflow.local_starting import (
    start_local_activity,
    start_local_activity_method,
)
from aetheris_worker.workflow.notes import (
    last_completion_result,
    last_failure,
    memo,
    memo_value,
    search_attributes,
    upsert_memo,
    upsert_search_attributes,
)
from aetheris_worker.workflow.recording import deprecate_patch, patched, side_effect
from aetheris_worker.workflow.replaying import logger, unsafe
from aetheris_worker.workflow.run_info import (
    build_id,
    history_bytes,
    history_length,
    in_workflow,
    info,
    is_cancel_requested,
    is_continue_as_new_suggested,
    now,
    random,
    time,
    time_ns,
    uuid4,
)
from aetheris_worker.workflow.starting import start_activity, start_activity_method
from aetheris_worker.workflow.waiting import as_completed, sleep, wait, wait_condition

__all__ = [
    "ActivityCancellationType",
    "ActivityHandle",
    "ChildWorkflowCancellationType",
    "ChildWorkflowHandle",
    "ContinueAsNewError",
    "ContinueAsNewOptions",
    "ExternalWorkflowHandle",
    "HandlerUnfinishedPolicy",
    "NondeterminismError",
    "NotInWorkflowError",
    "ParentClosePolicy",
    "ParentInfo",
    "RetryPolicy",
    "RootInfo",
    "StartActivityOptions",
    "StartChildOptions",
    "StartLocalActivityOptions",
    "UpdateInfo",
    "WorkflowInfo",
    "all_handlers_finished",
    "as_completed",
    "build_id",
    "continue_as_new",
    "current_update_info",
    "defn",
    "deprecate_patch",
    "execute_activity",
    "execute_activity_method",
    "execute_child_workflow",
    "execute_local_activity",
    "execute_local_activity_method",
    "get_external_workflow_handle",
    "history_bytes",
    "history_length",
    "in_workflow",
    "info",
    "is_cancel_requested",
    "is_continue_as_new_suggested",
    "last_completion_result",
    "last_failure",
    "logger",
    "memo",
    "memo_value",
    "now",
    "patched",
    "query",
    "random",
    "run",
    "search_attributes",
    "set_dynamic_query_handler",
    "set_dynamic_signal_handler",
    "set_dynamic_update_handler",
    "set_query_handler",
    "set_signal_handler",
    "set_update_handler",
    "side_effect",
    "signal",
    "sleep",
    "start_activity",
    "start_activity_method",
    "start_child_workflow",
    "start_local_activity",
    "start_local_activity_method",
    "time",
    "time_ns",
    "unsafe",
    "update",
    "upsert_memo",
    "upsert_search_attributes",
    "uuid4",
    "wait",
    "wait_condition",
]
