# ruff: noqa: D103 - a check is named for what it checks
"""Checks of the requests of WorkflowService. The namespace is checked where it is looked up."""

from google.protobuf.descriptor import Descriptor

from aetheris.api.v1 import workflow_pb2, workflow_service_pb2
from aetheris.server.v1.token_pb2 import PageToken
from aetheris_server.config import LimitSettings
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.frontend.checks.fields import (
    check_duration,
    check_enum,
    check_execution,
    check_id,
    check_long_text,
    check_no_nul,
    check_priority,
    check_range,
    check_retry_policy,
    check_run_id,
    check_set_duration,
    check_size,
    check_text,
    set_values_of,
    shown,
    values_of,
)
from aetheris_server.rpc.search_attributes import check_search_attributes
from aetheris_server.rpc.table import LONGEST_WAIT
from aetheris_server.rpc.tokens import LISTING_WORKFLOWS, Tokens

MAX_WORKFLOW_TASK_TIMEOUT_SECONDS = 120

_OPTION_TIMEOUTS = (
    "schedule_to_close_timeout",
    "schedule_to_start_timeout",
    "start_to_close_timeout",
    "heartbeat_timeout",
)
_ActivityChange = (
    workflow_service_pb2.PauseActivityRequest
    | workflow_service_pb2.UnpauseActivityRequest
    | workflow_service_pb2.ResetActivityRequest
    | workflow_service_pb2.UpdateActivityOptionsRequest
)

_REUSE_POLICIES = values_of(workflow_pb2.WorkflowIdReusePolicy)
_CONFLICT_POLICIES = values_of(workflow_pb2.WorkflowIdConflictPolicy)
_REJECT_CONDITIONS = values_of(workflow_service_pb2.QueryRejectCondition)
_EVENT_FILTERS = values_of(workflow_service_pb2.HistoryEventFilter)
_UPDATE_STAGES = set_values_of(workflow_pb2.UpdateStage)
_JOINABLE = frozenset(
    {
        workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
        workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
    }
)
_TASK_POINTS = set_values_of(workflow_service_pb2.WorkflowTaskPoint)
_REAPPLY_EXCLUDES = set_values_of(workflow_service_pb2.ReapplyExclude)
_STATUSES = set_values_of(workflow_pb2.WorkflowExecutionStatus)


def check_start_workflow(
    request: workflow_service_pb2.StartWorkflowRequest, limits: LimitSettings
) -> None:
    check_id("workflow_id", request.workflow_id, limits)
    check_id("workflow_type.name", request.workflow_type.name, limits)
    check_id("task_queue.name", request.task_queue.name, limits)
    check_size("input", request.input, limits)
    check_text("identity", request.identity, limits)
    check_text("request_id", request.request_id, limits)
    check_enum("workflow_id_reuse_policy", request.workflow_id_reuse_policy, _REUSE_POLICIES)
    check_enum(
        "workflow_id_conflict_policy", request.workflow_id_conflict_policy, _CONFLICT_POLICIES
    )
    check_text("pinned_build_id", request.pinned_build_id, limits)
    _check_start_timeouts(request)
    _check_start_notes(request, limits)
    check_retry_policy("retry_policy", request.retry_policy, limits)
    if request.cron_schedule:
        raise InvalidArgumentError("cron_schedule", "not served by this version")


def check_signal_with_start_workflow(
    request: workflow_service_pb2.SignalWithStartWorkflowRequest, limits: LimitSettings
) -> None:
    start = request.start
    try:
        check_start_workflow(start, limits)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"start.{error.field}", error.description) from None
    if start.workflow_id_conflict_policy == workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_FAIL:
        raise InvalidArgumentError(
            "start.workflow_id_conflict_policy",
            "expected USE_EXISTING or TERMINATE_EXISTING, found FAIL: an open run gets the signal",
        )
    check_id("signal_name", request.signal_name, limits)
    check_size("signal_input", request.signal_input, limits)
    check_size("signal_header", request.signal_header, limits)


def check_signal_workflow(
    request: workflow_service_pb2.SignalWorkflowRequest, limits: LimitSettings
) -> None:
    check_execution(request.workflow_execution, limits)
    check_run_id("first_execution_run_id", request.first_execution_run_id)
    check_id("signal_name", request.signal_name, limits)
    check_size("input", request.input, limits)
    check_size("header", request.header, limits)
    check_text("identity", request.identity, limits)
    check_text("request_id", request.request_id, limits)


def check_query_workflow(
    request: workflow_service_pb2.QueryWorkflowRequest, limits: LimitSettings
) -> None:
    check_execution(request.workflow_execution, limits)
    check_run_id("first_execution_run_id", request.first_execution_run_id)
    check_id("query_type", request.query_type, limits)
    check_size("query_args", request.query_args, limits)
    check_size("header", request.header, limits)
    check_enum("query_reject_condition", request.query_reject_condition, _REJECT_CONDITIONS)
    check_text("identity", request.identity, limits)


def check_update_workflow(
    request: workflow_service_pb2.UpdateWorkflowRequest, limits: LimitSettings
) -> None:
    check_execution(request.workflow_execution, limits)
    _check_update(request, limits)


def check_poll_workflow_update(
    request: workflow_service_pb2.PollWorkflowUpdateRequest, limits: LimitSettings
) -> None:
    check_execution(request.workflow_execution, limits)
    check_id("update_id", request.update_id, limits)
    check_enum("wait_stage", request.wait_stage, _UPDATE_STAGES)
    check_duration("wait_timeout", request.wait_timeout, LONGEST_WAIT)


def check_update_with_start_workflow(
    request: workflow_service_pb2.UpdateWithStartWorkflowRequest, limits: LimitSettings
) -> None:
    start, update = request.start, request.update
    try:
        check_start_workflow(start, limits)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"start.{error.field}", error.description) from None
    policy = start.workflow_id_conflict_policy
    check_enum("start.workflow_id_conflict_policy", policy, _JOINABLE)
    for field in ("start_delay", "result_wait_timeout"):
        if start.HasField(field):
            raise InvalidArgumentError(f"start.{field}", "expected none: the update waits")
    try:
        _check_update(update, limits)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"update.{error.field}", error.description) from None
    _check_same("start.namespace", start.namespace, request.namespace)
    _check_same("update.namespace", update.namespace, request.namespace)
    execution = update.workflow_execution
    _check_same("update.workflow_execution.workflow_id", execution.workflow_id, start.workflow_id)
    _check_same("update.workflow_execution.run_id", execution.run_id, "")
    _check_same("update.first_execution_run_id", update.first_execution_run_id, "")


def _check_same(field: str, found: str, expected: str) -> None:
    """One that may be left out."""
    if found not in ("", expected):
        raise InvalidArgumentError(
            field, f"expected {shown(expected) if expected else 'none'}, found {shown(found)}"
        )


def _check_update(
    request: workflow_service_pb2.UpdateWorkflowRequest, limits: LimitSettings
) -> None:
    update = request.request
    check_text("request.update_id", update.update_id, limits)
    check_text("request.identity", update.identity, limits)
    check_id("request.name", update.name, limits)
    check_size("request.input", update.input, limits)
    check_size("request.header", update.header, limits)
    check_enum("wait_stage", request.wait_stage, _UPDATE_STAGES)
    check_duration("wait_timeout", request.wait_timeout, LONGEST_WAIT)
    if request.first_execution_run_id:
        check_run_id("first_execution_run_id", request.first_execution_run_id)


def check_cancel_workflow(
    request: workflow_service_pb2.CancelWorkflowRequest, limits: LimitSettings
) -> None:
    check_execution(request.workflow_execution, limits)
    check_run_id("first_execution_run_id", request.first_execution_run_id)
    check_long_text("reason", request.reason, limits)
    check_text("identity", request.identity, limits)
    check_text("request_id", request.request_id, limits)


def check_terminate_workflow(
    request: workflow_service_pb2.TerminateWorkflowRequest, limits: LimitSettings
) -> None:
    check_execution(request.workflow_execution, limits)
    check_run_id("first_execution_run_id", request.first_execution_run_id)
    check_long_text("reason", request.reason, limits)
    check_size("details", request.details, limits)
    check_text("identity", request.identity, limits)
    check_text("request_id", request.request_id, limits)


def check_pause_workflow(
    request: workflow_service_pb2.PauseWorkflowRequest
    | workflow_service_pb2.UnpauseWorkflowRequest,
    limits: LimitSettings,
) -> None:
    check_execution(request.workflow_execution, limits)
    check_run_id("first_execution_run_id", request.first_execution_run_id)
    check_long_text("reason", request.reason, limits)
    check_text("identity", request.identity, limits)
    check_text("request_id", request.request_id, limits)


def check_pause_activity(
    request: workflow_service_pb2.PauseActivityRequest, limits: LimitSettings
) -> None:
    _check_activity_change(request, limits)


def check_unpause_activity(
    request: workflow_service_pb2.UnpauseActivityRequest
    | workflow_service_pb2.ResetActivityRequest,
    limits: LimitSettings,
) -> None:
    _check_activity_change(request, limits)
    check_duration("jitter", request.jitter)


def check_update_activity_options(
    request: workflow_service_pb2.UpdateActivityOptionsRequest, limits: LimitSettings
) -> None:
    _check_activity_change(request, limits)
    mask = request.update_mask
    if not mask.paths:
        raise InvalidArgumentError("update_mask", "expected at least one path, found none")
    for index, path in enumerate(mask.paths):
        field = f"update_mask.paths[{index}]"
        if not _is_path(path, workflow_pb2.ActivityOptions.DESCRIPTOR):
            raise InvalidArgumentError(
                field, f"expected a field of activity_options, found {shown(path)}"
            )
    options = request.activity_options
    check_size("activity_options", options, limits)
    if any(path.partition(".")[0] == "task_queue" for path in mask.paths):
        check_id("activity_options.task_queue.name", options.task_queue.name, limits)
    for name in _OPTION_TIMEOUTS:
        check_duration(f"activity_options.{name}", getattr(options, name))


def _is_path(path: str, descriptor: Descriptor) -> bool:
    """Whether it names a field of such a message, or of one in it."""
    name, dot, rest = path.partition(".")
    field = descriptor.fields_by_name.get(name)
    if field is None:
        return False
    return not dot or (field.message_type is not None and _is_path(rest, field.message_type))


def _check_activity_change(request: _ActivityChange, limits: LimitSettings) -> None:
    check_execution(request.workflow_execution, limits)
    check_id("activity_id", request.activity_id, limits)
    check_long_text("reason", request.reason, limits)
    check_text("identity", request.identity, limits)
    check_text("request_id", request.request_id, limits)


def check_update_workflow_options(
    request: workflow_service_pb2.UpdateWorkflowOptionsRequest, limits: LimitSettings
) -> None:
    check_execution(request.workflow_execution, limits)
    if not request.HasField("pinned_build_id"):
        raise InvalidArgumentError(
            "pinned_build_id", "expected a build id, or an empty one for none; found it unset"
        )
    check_text("pinned_build_id", request.pinned_build_id, limits)
    check_long_text("reason", request.reason, limits)
    check_text("identity", request.identity, limits)
    check_text("request_id", request.request_id, limits)
    check_run_id("first_execution_run_id", request.first_execution_run_id)


def check_reset_workflow(
    request: workflow_service_pb2.ResetWorkflowRequest, limits: LimitSettings
) -> None:
    _check_new_run(request, limits)


def check_fork_workflow(
    request: workflow_service_pb2.ForkWorkflowRequest, limits: LimitSettings
) -> None:
    _check_new_run(request, limits)
    check_id("workflow_id", request.workflow_id, limits)
    if request.workflow_id == request.workflow_execution.workflow_id:
        raise InvalidArgumentError(
            "workflow_id", "expected another one than that of the run to fork"
        )


def _check_new_run(
    request: workflow_service_pb2.ResetWorkflowRequest | workflow_service_pb2.ForkWorkflowRequest,
    limits: LimitSettings,
) -> None:
    check_execution(request.workflow_execution, limits)
    _check_point(request.point, limits)
    for index, excluded in enumerate(request.reapply_exclude):
        check_enum(f"reapply_exclude[{index}]", excluded, _REAPPLY_EXCLUDES)
    check_long_text("reason", request.reason, limits)
    check_text("identity", request.identity, limits)
    check_text("request_id", request.request_id, limits)


def _check_point(point: workflow_service_pb2.ResetPoint, limits: LimitSettings) -> None:
    match point.WhichOneof("point"):
        case "event_id":
            if point.event_id < 1:
                raise InvalidArgumentError(
                    "point.event_id", f"expected 1 or more, found {point.event_id}"
                )
        case "workflow_task":
            check_enum("point.workflow_task", point.workflow_task, _TASK_POINTS)
        case "build_id":
            check_id("point.build_id", point.build_id, limits)
        case None:
            raise InvalidArgumentError("point", "expected one, found none")


def check_describe_workflow(
    request: workflow_service_pb2.DescribeWorkflowRequest, limits: LimitSettings
) -> None:
    check_execution(request.workflow_execution, limits)


def check_get_workflow_history(
    request: workflow_service_pb2.GetWorkflowHistoryRequest, limits: LimitSettings
) -> None:
    check_execution(request.workflow_execution, limits)
    check_range("page_size", request.page_size, 0, limits.page_max_size)
    check_enum("filter", request.filter, _EVENT_FILTERS)


def check_poll_workflow_result(
    request: workflow_service_pb2.PollWorkflowResultRequest, limits: LimitSettings
) -> None:
    check_execution(request.workflow_execution, limits)
    check_run_id("first_execution_run_id", request.first_execution_run_id)
    check_duration("wait_timeout", request.wait_timeout, LONGEST_WAIT)


def check_list_workflows(
    request: workflow_service_pb2.ListWorkflowsRequest, limits: LimitSettings
) -> None:
    check_range("page_size", request.page_size, 0, limits.page_max_size)
    wanted = request.filter
    check_text("filter.workflow_id", wanted.workflow_id, limits)
    check_text("filter.workflow_type", wanted.workflow_type, limits)
    for index, status in enumerate(wanted.statuses):
        check_enum(f"filter.statuses[{index}]", status, _STATUSES)


def check_workflows_page(
    request: workflow_service_pb2.ListWorkflowsRequest, namespace_id: str, tokens: Tokens
) -> PageToken | None:
    """Returns the page's token; None for the first page."""
    query = workflows_query(request, namespace_id)
    token = tokens.open_page(request.page_token, frozenset({LISTING_WORKFLOWS}), *query)
    if token is not None:
        if not token.last_key:
            raise InvalidArgumentError("page_token", "the token names no run")
        check_run_id("page_token", token.last_key)
    return token


def workflows_query(
    request: workflow_service_pb2.ListWorkflowsRequest, namespace_id: str
) -> tuple[bytes, bytes]:
    """What a page's token is bound to: another page may be of another size, of nothing else."""
    return namespace_id.encode(), request.filter.SerializeToString(deterministic=True)


def _check_start_timeouts(request: workflow_service_pb2.StartWorkflowRequest) -> None:
    check_set_duration("workflow_execution_timeout", request)
    check_set_duration("workflow_run_timeout", request)
    check_set_duration("workflow_task_timeout", request, MAX_WORKFLOW_TASK_TIMEOUT_SECONDS)
    check_duration("start_delay", request.start_delay)
    check_duration("result_wait_timeout", request.result_wait_timeout)


def _check_start_notes(
    request: workflow_service_pb2.StartWorkflowRequest, limits: LimitSettings
) -> None:
    check_size("memo", request.memo, limits)
    for name in request.memo.fields:
        check_no_nul("memo.fields", name)
    check_search_attributes(request.search_attributes, limits.id_max_bytes)
    check_size("header", request.header, limits)
    check_priority(request.priority, limits)
