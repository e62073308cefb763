from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ByteSize

from aetheris.api.v1 import command_pb2
from aetheris.server.v1.token_pb2 import PageToken, TaskToken
from aetheris_server.config import LimitSettings
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.frontend.checks import operator, worker, workflow
from aetheris_server.frontend.checks.fields import check_namespace_name
from aetheris_server.history.times import MAX_DURATION
from aetheris_server.rpc.tokens import LISTING_NAMESPACES, LISTING_WORKFLOWS, Tokens
from tests.support.messages import RUN_ID
from tests.support.peers import NAMESPACE_ID
from tests.support.requests import good_request
from tests.support.secrets import SECRETS, TOKENS

LIMITS = LimitSettings(payload_max_bytes=ByteSize(2000))
LONG = "x" * 1001
NOT_ASCII = "ü" * 501
BIG = b"x" * 2001
SECONDS_IN_A_CENTURY = int(MAX_DURATION.total_seconds())

Change = Callable[[Any], None]


def setting(path: str, value: object) -> Change:
    """Sets a field, on the way creating what it is in."""
    *owners, name = path.split(".")

    def change(request: Any) -> None:
        target = request
        for owner in owners:
            target = getattr(target, owner)
        setattr(target, name, value)

    return change


def adding(path: str, **values: Any) -> Change:
    """Adds a message to a repeated field."""

    def change(request: Any) -> None:
        target = request
        for owner in path.split("."):
            target = getattr(target, owner)
        target.add(**values)

    return change


def fill_101_attributes(request: Any) -> None:
    for number in range(101):
        request.search_attributes.indexed_fields[str(number)].data = b"1"


def setting_excluded(*values: int) -> Change:
    def change(request: Any) -> None:
        request.reapply_exclude[:] = values

    return change


def extending(path: str, *values: Any) -> Change:
    def change(request: Any) -> None:
        target = request
        for owner in path.split("."):
            target = getattr(target, owner)
        target.extend(values)

    return change


def filling(path: str, key: str, **values: Any) -> Change:
    """Sets an entry of a map of messages."""

    def change(request: Any) -> None:
        target = request
        for owner in path.split("."):
            target = getattr(target, owner)
        target[key].SetInParent()
        for name, value in values.items():
            if isinstance(value, dict):
                getattr(target[key], name).update(value)
            else:
                setattr(target[key], name, value)

    return change


def counting(**fields: Any) -> Change:
    def change(request: Any) -> None:
        request.worker_instance_id = "i"
        for name, value in fields.items():
            setattr(request, name, value)

    return change


def with_page_token(**fields: Any) -> Change:
    """Of the very query, whatever the token says."""

    def change(request: Any) -> None:
        is_of_runs = request.DESCRIPTOR.name == "ListWorkflowsRequest"
        query = workflow.workflows_query(request, NAMESPACE_ID) if is_of_runs else ()
        request.page_token = TOKENS.seal_page(PageToken(**fields), *query)

    return change


def check_list_workflows(request: Any, limits: LimitSettings) -> None:
    workflow.check_list_workflows(request, limits)
    workflow.check_workflows_page(request, NAMESPACE_ID, TOKENS)


def check_list_namespaces(request: Any, limits: LimitSettings) -> None:
    operator.check_list_namespaces(request, limits, TOKENS)


BAD_CHAIN = (setting("first_execution_run_id", "no-uuid"), "first_execution_run_id")
BAD_EXECUTION: list[tuple[Change, str]] = [
    (setting("workflow_execution.workflow_id", ""), "workflow_execution.workflow_id"),
    (setting("workflow_execution.workflow_id", LONG), "workflow_execution.workflow_id"),
    (setting("workflow_execution.run_id", "x"), "workflow_execution.run_id"),
    (setting("workflow_execution.run_id", RUN_ID.upper()), "workflow_execution.run_id"),
]
BAD_ACTIVITY_CHANGE: list[tuple[Change, str]] = [
    *BAD_EXECUTION,
    (setting("activity_id", ""), "activity_id"),
    (setting("activity_id", LONG), "activity_id"),
    (setting("reason", BIG.decode()), "reason"),
    (setting("identity", LONG), "identity"),
    (setting("request_id", LONG), "request_id"),
]
BAD_NEW_RUN: list[tuple[Change, str]] = [
    *BAD_EXECUTION,
    (setting("point.event_id", 0), "point.event_id"),
    (setting("point.workflow_task", 0), "point.workflow_task"),
    (setting("point.workflow_task", 99), "point.workflow_task"),
    (setting("point.build_id", ""), "point.build_id"),
    (setting("point.build_id", LONG), "point.build_id"),
    (lambda request: request.ClearField("point"), "point"),
    (setting_excluded(1, 2, 0), "reapply_exclude[2]"),
    (setting("reason", BIG.decode()), "reason"),
    (setting("identity", LONG), "identity"),
    (setting("request_id", LONG), "request_id"),
]
BAD_POLL: list[tuple[Change, str]] = [
    (setting("task_queue", ""), "task_queue"),
    (setting("max_tasks", -1), "max_tasks"),
    (setting("max_tasks", 1001), "max_tasks"),
    (extending("capabilities", ""), "capabilities[1]"),
    (extending("capabilities", "gpu"), "capabilities"),
    (extending("capabilities", "build-id:b1"), "capabilities[1]"),
    (extending("capabilities", *map(str, range(100))), "capabilities"),
    (setting("identity", LONG), "identity"),
    (setting("worker_instance_id", LONG), "worker_instance_id"),
    (setting("worker_version", LONG), "worker_version"),
    (setting("poll_timeout.seconds", -1), "poll_timeout"),
    (setting("poll_number", -1), "poll_number"),
    (setting("received_poll_number", 1), "poll_number"),
    (counting(poll_number=2, received_poll_number=2), "received_poll_number"),
    (counting(poll_number=2, worker_instance_id=""), "worker_instance_id"),
]
BAD_FAILURE: list[tuple[Change, str]] = [
    (
        setting("failure.timeout_failure_info.timeout_type", 99),
        "failure.timeout_failure_info.timeout_type",
    ),
    (
        setting("failure.cause.activity_failure_info.retry_state", 99),
        "failure.cause.activity_failure_info.retry_state",
    ),
    (setting("failure.message", BIG.decode()), "failure"),
    (
        setting("failure.application_failure_info.next_retry_delay.seconds", -1),
        "failure.application_failure_info.next_retry_delay",
    ),
    (
        setting("failure.cause.application_failure_info.next_retry_delay.nanos", -1),
        "failure.cause.application_failure_info.next_retry_delay",
    ),
]
BAD: dict[str, list[tuple[Change, str]]] = {
    "StartWorkflow": [
        (setting("workflow_id", ""), "workflow_id"),
        (setting("workflow_id", LONG), "workflow_id"),
        (setting("workflow_id", NOT_ASCII), "workflow_id"),
        (setting("workflow_id", "a\0b"), "workflow_id"),
        (setting("workflow_type.name", ""), "workflow_type.name"),
        (setting("workflow_type.name", LONG), "workflow_type.name"),
        (setting("task_queue.name", ""), "task_queue.name"),
        (setting("identity", LONG), "identity"),
        (setting("request_id", LONG), "request_id"),
        (adding("input.payloads", data=BIG), "input"),
        (setting("pinned_build_id", LONG), "pinned_build_id"),
        (setting("workflow_id_reuse_policy", 99), "workflow_id_reuse_policy"),
        (setting("workflow_id_conflict_policy", -1), "workflow_id_conflict_policy"),
        (setting("workflow_execution_timeout.seconds", -1), "workflow_execution_timeout"),
        (
            setting("workflow_execution_timeout.seconds", SECONDS_IN_A_CENTURY + 1),
            "workflow_execution_timeout",
        ),
        (setting("workflow_run_timeout.seconds", 0), "workflow_run_timeout"),
        (setting("workflow_run_timeout.nanos", -1), "workflow_run_timeout"),
        (setting("workflow_task_timeout.seconds", 121), "workflow_task_timeout"),
        (setting("workflow_task_timeout.nanos", -1), "workflow_task_timeout"),
        (setting("start_delay.seconds", -1), "start_delay"),
        (setting("result_wait_timeout.seconds", -1), "result_wait_timeout"),
        (setting("retry_policy.maximum_attempts", -1), "retry_policy.maximum_attempts"),
        (setting("retry_policy.initial_interval.seconds", -1), "retry_policy.initial_interval"),
        (setting("retry_policy.maximum_interval.nanos", -1), "retry_policy.maximum_interval"),
        (setting("retry_policy.backoff_coefficient", 0.5), "retry_policy.backoff_coefficient"),
        (
            setting("retry_policy.backoff_coefficient", float("nan")),
            "retry_policy.backoff_coefficient",
        ),
        (setting("cron_schedule", "* * * * *"), "cron_schedule"),
        (filling("memo.fields", "note", data=BIG), "memo"),
        (filling("memo.fields", "\0", data=b""), "memo.fields"),
        (filling("header.fields", "trace", data=BIG), "header"),
        (
            filling("search_attributes.indexed_fields", "", data=b"1"),
            "search_attributes.indexed_fields",
        ),
        (
            filling("search_attributes.indexed_fields", "city", data=b"Berlin"),
            "search_attributes.indexed_fields['city']",
        ),
        (
            filling("search_attributes.indexed_fields", "city", data=rb'"\u0000"'),
            "search_attributes.indexed_fields['city']",
        ),
        (
            filling("search_attributes.indexed_fields", "city", data=rb'{"a": ["\u0000"]}'),
            "search_attributes.indexed_fields['city'].a[0]",
        ),
        (
            filling("search_attributes.indexed_fields", "city", data=b"[" * 300 + b"]" * 300),
            "search_attributes.indexed_fields['city']",
        ),
        (
            filling("search_attributes.indexed_fields", "city", data=b"1" * 65_536),
            "search_attributes",
        ),
        (
            fill_101_attributes,
            "search_attributes.indexed_fields",
        ),
        (
            filling("search_attributes.indexed_fields", "city", metadata={"type": b"\0"}),
            "search_attributes.indexed_fields['city'].metadata",
        ),
        (setting("priority.priority_key", 6), "priority.priority_key"),
        (setting("priority.fairness_key", LONG), "priority.fairness_key"),
        (setting("priority.fairness_weight", -1.0), "priority.fairness_weight"),
        (setting("priority.fairness_weight", float("nan")), "priority.fairness_weight"),
    ],
    "SignalWithStartWorkflow": [
        (setting("start.workflow_id", ""), "start.workflow_id"),
        (setting("start.task_queue.name", LONG), "start.task_queue.name"),
        (setting("start.workflow_id_conflict_policy", 1), "start.workflow_id_conflict_policy"),
        (setting("start.start_delay.seconds", -1), "start.start_delay"),
        (setting("signal_name", ""), "signal_name"),
        (setting("signal_name", LONG), "signal_name"),
        (adding("signal_input.payloads", data=BIG), "signal_input"),
        (filling("signal_header.fields", "trace", data=BIG), "signal_header"),
    ],
    "SignalWorkflow": [
        *BAD_EXECUTION,
        BAD_CHAIN,
        (setting("signal_name", ""), "signal_name"),
        (setting("signal_name", LONG), "signal_name"),
        (adding("input.payloads", data=BIG), "input"),
        (filling("header.fields", "trace", data=BIG), "header"),
        (setting("request_id", LONG), "request_id"),
    ],
    "QueryWorkflow": [
        *BAD_EXECUTION,
        BAD_CHAIN,
        (setting("query_type", ""), "query_type"),
        (adding("query_args.payloads", data=BIG), "query_args"),
        (setting("query_reject_condition", 4), "query_reject_condition"),
    ],
    "UpdateWorkflow": [
        *BAD_EXECUTION,
        (setting("request.name", ""), "request.name"),
        (setting("request.name", LONG), "request.name"),
        (setting("request.update_id", LONG), "request.update_id"),
        (setting("request.identity", LONG), "request.identity"),
        (adding("request.input.payloads", data=BIG), "request.input"),
        (filling("request.header.fields", "trace", data=BIG), "request.header"),
        (setting("wait_stage", 0), "wait_stage"),
        (setting("wait_stage", 4), "wait_stage"),
        (setting("wait_timeout.seconds", 61), "wait_timeout"),
        (setting("first_execution_run_id", "r"), "first_execution_run_id"),
    ],
    "PollWorkflowUpdate": [
        *BAD_EXECUTION,
        (setting("update_id", ""), "update_id"),
        (setting("update_id", LONG), "update_id"),
        (setting("wait_stage", 0), "wait_stage"),
        (setting("wait_timeout.seconds", -1), "wait_timeout"),
    ],
    "UpdateWithStartWorkflow": [
        (setting("start.workflow_id", ""), "start.workflow_id"),
        (setting("start.workflow_id_conflict_policy", 0), "start.workflow_id_conflict_policy"),
        (setting("start.workflow_id_conflict_policy", 3), "start.workflow_id_conflict_policy"),
        (setting("start.start_delay.seconds", 1), "start.start_delay"),
        (setting("start.result_wait_timeout.seconds", 1), "start.result_wait_timeout"),
        (setting("start.namespace", "other"), "start.namespace"),
        (setting("update.namespace", "other"), "update.namespace"),
        (setting("update.request.name", ""), "update.request.name"),
        (setting("update.wait_stage", 0), "update.wait_stage"),
        (
            setting("update.workflow_execution.workflow_id", "other"),
            "update.workflow_execution.workflow_id",
        ),
        (
            setting("update.workflow_execution.run_id", RUN_ID),
            "update.workflow_execution.run_id",
        ),
        (setting("update.first_execution_run_id", RUN_ID), "update.first_execution_run_id"),
    ],
    "CancelWorkflow": [
        *BAD_EXECUTION,
        BAD_CHAIN,
        (setting("reason", BIG.decode()), "reason"),
        (setting("request_id", LONG), "request_id"),
    ],
    "TerminateWorkflow": [
        *BAD_EXECUTION,
        BAD_CHAIN,
        (setting("reason", BIG.decode()), "reason"),
        (adding("details.payloads", data=BIG), "details"),
    ],
    "PauseWorkflow": [
        *BAD_EXECUTION,
        BAD_CHAIN,
        (setting("reason", BIG.decode()), "reason"),
        (setting("identity", LONG), "identity"),
        (setting("request_id", LONG), "request_id"),
    ],
    "UnpauseWorkflow": [
        *BAD_EXECUTION,
        BAD_CHAIN,
        (setting("reason", BIG.decode()), "reason"),
        (setting("request_id", LONG), "request_id"),
    ],
    "PauseActivity": BAD_ACTIVITY_CHANGE,
    "UnpauseActivity": [*BAD_ACTIVITY_CHANGE, (setting("jitter.seconds", -1), "jitter")],
    "ResetActivity": [*BAD_ACTIVITY_CHANGE, (setting("jitter.seconds", -1), "jitter")],
    "UpdateActivityOptions": [
        *BAD_ACTIVITY_CHANGE,
        (lambda request: request.ClearField("update_mask"), "update_mask"),
        (lambda request: request.update_mask.paths.append("nothing"), "update_mask.paths[1]"),
        (
            lambda request: request.update_mask.paths.append("retry_policy.nothing"),
            "update_mask.paths[1]",
        ),
        (lambda request: request.update_mask.paths.append("retry_policy."), "update_mask.paths[1]"),
        (
            lambda request: request.update_mask.paths.append("task_queue"),
            "activity_options.task_queue.name",
        ),
        (
            setting("activity_options.heartbeat_timeout.seconds", -1),
            "activity_options.heartbeat_timeout",
        ),
        (
            setting("activity_options.start_to_close_timeout.seconds", -1),
            "activity_options.start_to_close_timeout",
        ),
    ],
    "ResetWorkflow": BAD_NEW_RUN,
    "ForkWorkflow": [
        *BAD_NEW_RUN,
        (setting("workflow_id", ""), "workflow_id"),
        (setting("workflow_id", LONG), "workflow_id"),
        (setting("workflow_id", "w"), "workflow_id"),
    ],
    "DescribeWorkflow": BAD_EXECUTION,
    "GetWorkflowHistory": [
        *BAD_EXECUTION,
        (setting("page_size", -1), "page_size"),
        (setting("page_size", 1001), "page_size"),
        (setting("filter", 3), "filter"),
    ],
    "PollWorkflowResult": [
        *BAD_EXECUTION,
        BAD_CHAIN,
        (setting("wait_timeout.seconds", -1), "wait_timeout"),
        (setting("wait_timeout.seconds", 61), "wait_timeout"),
    ],
    "ListWorkflows": [
        (setting("page_size", 1001), "page_size"),
        (setting("page_token", b"corrupt!"), "page_token"),
        (with_page_token(listing=LISTING_WORKFLOWS, last_key="x"), "page_token"),
        (with_page_token(listing=LISTING_WORKFLOWS), "page_token"),
        (with_page_token(listing=LISTING_NAMESPACES, last_key=RUN_ID), "page_token"),
        (setting("filter.workflow_id", LONG), "filter.workflow_id"),
        (setting("filter.workflow_type", "\0"), "filter.workflow_type"),
        (extending("filter.statuses", 0), "filter.statuses[1]"),
        (extending("filter.statuses", 99), "filter.statuses[1]"),
    ],
    "PollWorkflowTasks": [*BAD_POLL, (setting("sticky_task_queue", LONG), "sticky_task_queue")],
    "PollActivityTasks": BAD_POLL,
    "RespondWorkflowTaskCompleted": [
        (adding("commands", command_type=0), "commands[1].command_type"),
        (adding("commands", command_type=15), "commands[1].command_type"),
        (adding("commands", command_type=17), "commands[1].command_type"),
        (adding("commands", command_type=1), "commands[1].attributes"),
        (
            adding("commands", command_type=1, cancel_timer_command_attributes={"timer_id": "t"}),
            "commands[1].attributes",
        ),
        (
            setting("sticky_attributes.worker_task_queue", ""),
            "sticky_attributes.worker_task_queue",
        ),
        (filling("query_results", "q", result_type=0), "query_results['q'].result_type"),
        (adding("update_rejections"), "update_rejections[0].update_id"),
        (
            adding("update_rejections", update_id="u", failure={"message": BIG.decode()}),
            "update_rejections[0].failure",
        ),
        (setting("worker_version", LONG), "worker_version"),
        (setting("sdk_name", LONG), "sdk_name"),
        (setting("sdk_version", LONG), "sdk_version"),
        (setting("worker_instance_id", LONG), "worker_instance_id"),
        (extending("capabilities", "a", "a"), "capabilities"),
    ],
    "RespondWorkflowTaskFailed": [
        *BAD_FAILURE,
        (setting("cause", 0), "cause"),
        (setting("cause", 99), "cause"),
    ],
    "RespondQueryTaskCompleted": [
        (setting("result.result_type", 0), "result.result_type"),
        (adding("result.answer.payloads", data=BIG), "result.answer"),
        (setting("result.error_message", BIG.decode()), "result.error_message"),
        (setting("result.failure.message", BIG.decode()), "result.failure"),
    ],
    "RespondActivityTaskCompleted": [
        (adding("result.payloads", data=BIG), "result"),
        (setting("sticky_task_queue", LONG), "sticky_task_queue"),
    ],
    "RespondActivityTaskFailed": [
        *BAD_FAILURE,
        (lambda request: request.ClearField("failure"), "failure"),
        (adding("last_heartbeat_details.payloads", data=BIG), "last_heartbeat_details"),
    ],
    "RespondActivityTaskCancelled": [(adding("details.payloads", data=BIG), "details")],
    "RecordActivityTaskHeartbeat": [(adding("details.payloads", data=BIG), "details")],
    "ShutdownWorker": [
        (setting("task_queue", ""), "task_queue"),
        (setting("sticky_task_queue", LONG), "sticky_task_queue"),
        (setting("identity", LONG), "identity"),
        (setting("worker_instance_id", ""), "worker_instance_id"),
        (setting("received_workflow_poll_number", -1), "received_workflow_poll_number"),
        (setting("received_activity_poll_number", -1), "received_activity_poll_number"),
    ],
    "UpdateNamespace": [
        (setting("namespace", ""), "namespace"),
        (setting("description", LONG), "description"),
        (setting("retention_interval.seconds", 3599), "retention_interval"),
        (setting("limits.max_signals", 0), "limits.max_signals"),
        (setting("limits.max_signals", 1_000_001), "limits.max_signals"),
        (setting("limits.max_pending_activities", -1), "limits.max_pending_activities"),
        # More than this server takes itself.
        (setting("limits.payload_max_bytes", 2001), "limits.payload_max_bytes"),
        (setting("limits.id_max_bytes", 1001), "limits.id_max_bytes"),
        (extending("unset_limits", "nothing"), "unset_limits[0]"),
        (extending("unset_limits", "max_updates", "max_signals"), "unset_limits[1]"),
        (setting("identity", LONG), "identity"),
    ],
    "CreateNamespace": [
        (setting("limits.max_signals", 0), "limits.max_signals"),
        (setting("namespace", ""), "namespace"),
        (setting("namespace", "a b"), "namespace"),
        (setting("namespace", "x" * 256), "namespace"),
        (setting("description", LONG), "description"),
        (setting("retention_interval.seconds", 3599), "retention_interval"),
        (setting("retention_interval.seconds", -1), "retention_interval"),
    ],
    "ListNamespaces": [
        (setting("page_size", -1), "page_size"),
        (setting("page_token", b"corrupt!"), "page_token"),
        (with_page_token(listing=LISTING_WORKFLOWS), "page_token"),
        (with_page_token(listing=LISTING_NAMESPACES, last_key="\0"), "page_token"),
    ],
    "DescribeTaskQueue": [
        (setting("task_queue", ""), "task_queue"),
        (setting("task_queue_type", 0), "task_queue_type"),
        (setting("task_queue_type", 3), "task_queue_type"),
    ],
    "UpdateTaskQueue": [
        (setting("task_queue", ""), "task_queue"),
        (setting("default_build_id", LONG), "default_build_id"),
        (setting("default_build_id", "a\0b"), "default_build_id"),
        (lambda request: request.ClearField("default_build_id"), "default_build_id"),
        (setting("identity", LONG), "identity"),
        (setting("request_id", LONG), "request_id"),
    ],
    "UpdateWorkflowOptions": [
        *BAD_EXECUTION,
        BAD_CHAIN,
        (setting("pinned_build_id", LONG), "pinned_build_id"),
        (setting("pinned_build_id", "a\0b"), "pinned_build_id"),
        (lambda request: request.ClearField("pinned_build_id"), "pinned_build_id"),
        (setting("reason", "x" * (LIMITS.payload_max_bytes + 1)), "reason"),
        (setting("identity", LONG), "identity"),
        (setting("request_id", LONG), "request_id"),
    ],
}
CHECKS: dict[str, Callable[[Any, LimitSettings], object]] = {
    "StartWorkflow": workflow.check_start_workflow,
    "SignalWithStartWorkflow": workflow.check_signal_with_start_workflow,
    "SignalWorkflow": workflow.check_signal_workflow,
    "QueryWorkflow": workflow.check_query_workflow,
    "UpdateWorkflow": workflow.check_update_workflow,
    "PollWorkflowUpdate": workflow.check_poll_workflow_update,
    "UpdateWithStartWorkflow": workflow.check_update_with_start_workflow,
    "CancelWorkflow": workflow.check_cancel_workflow,
    "TerminateWorkflow": workflow.check_terminate_workflow,
    "PauseWorkflow": workflow.check_pause_workflow,
    "UnpauseWorkflow": workflow.check_pause_workflow,
    "PauseActivity": workflow.check_pause_activity,
    "UnpauseActivity": workflow.check_unpause_activity,
    "ResetActivity": workflow.check_unpause_activity,
    "UpdateActivityOptions": workflow.check_update_activity_options,
    "ResetWorkflow": workflow.check_reset_workflow,
    "ForkWorkflow": workflow.check_fork_workflow,
    "DescribeWorkflow": workflow.check_describe_workflow,
    "GetWorkflowHistory": workflow.check_get_workflow_history,
    "PollWorkflowResult": workflow.check_poll_workflow_result,
    "ListWorkflows": check_list_workflows,
    "PollWorkflowTasks": worker.check_poll_workflow_tasks,
    "PollActivityTasks": worker.check_poll_activity_tasks,
    "RespondWorkflowTaskCompleted": worker.check_respond_workflow_task_completed,
    "RespondWorkflowTaskFailed": worker.check_respond_workflow_task_failed,
    "RespondQueryTaskCompleted": worker.check_respond_query_task_completed,
    "RespondActivityTaskCompleted": worker.check_respond_activity_task_completed,
    "RespondActivityTaskFailed": worker.check_respond_activity_task_failed,
    "RespondActivityTaskCancelled": worker.check_respond_activity_task_cancelled,
    "RecordActivityTaskHeartbeat": worker.check_record_activity_task_heartbeat,
    "ShutdownWorker": worker.check_shutdown_worker,
    "CreateNamespace": operator.check_create_namespace,
    "ListNamespaces": check_list_namespaces,
    "UpdateNamespace": operator.check_update_namespace,
    "DescribeTaskQueue": operator.check_describe_task_queue,
    "UpdateTaskQueue": operator.check_update_task_queue,
    "UpdateWorkflowOptions": workflow.check_update_workflow_options,
}
CASES = [
    pytest.param(method, change, field, id=f"{method}-{field}-{index}")
    for method, changes in BAD.items()
    for index, (change, field) in enumerate(changes)
]


@pytest.mark.parametrize("method", CHECKS)
def test_good_request_passes(method: str) -> None:
    CHECKS[method](good_request(method), LIMITS)


@pytest.mark.parametrize("method, change, field", CASES)
def test_bad_field_is_refused_by_its_path(method: str, change: Change, field: str) -> None:
    request = good_request(method)
    change(request)
    with pytest.raises(InvalidArgumentError) as caught:
        CHECKS[method](request, LIMITS)
    assert caught.value.field == field


def test_page_token_is_good_for_pages_of_any_size_and_for_no_other_query() -> None:
    request = good_request("ListWorkflows")
    with_page_token(listing=LISTING_WORKFLOWS, last_key=RUN_ID)(request)
    request.page_size = 7
    assert workflow.check_workflows_page(request, NAMESPACE_ID, TOKENS) is not None
    with pytest.raises(InvalidArgumentError, match=r"^page_token: "):
        workflow.check_workflows_page(request, "another", TOKENS)
    request.filter.workflow_type = "another"
    with pytest.raises(InvalidArgumentError, match=r"^page_token: "):
        workflow.check_workflows_page(request, NAMESPACE_ID, TOKENS)


def test_id_of_exactly_the_limit_passes() -> None:
    request = good_request("StartWorkflow")
    request.workflow_id = "ü" * 500
    workflow.check_start_workflow(request, LIMITS)


def test_every_command_type_with_attributes_goes_with_its_own() -> None:
    """Pairs types and attributes by their numbers in the proto, which the names must agree with."""
    fields = command_pb2.Command.DESCRIPTOR.oneofs_by_name["attributes"].fields
    request = good_request("RespondWorkflowTaskCompleted")
    del request.commands[:]
    for field in fields:
        command = request.commands.add(command_type=field.number - 1)
        getattr(command, field.name).SetInParent()
    assert len(request.commands) == 15
    worker.check_respond_workflow_task_completed(request, LIMITS)


@pytest.mark.parametrize("count", [0, 1001])
def test_batch_of_too_few_or_many_answers_is_refused(count: int) -> None:
    request = good_request("RespondTasks")
    answer = request.answers[0]
    del request.answers[:]
    request.answers.extend([answer] * count)
    with pytest.raises(InvalidArgumentError, match=r"^answers: "):
        worker.check_respond_tasks(request)


def test_batch_with_an_empty_answer_is_refused() -> None:
    request = good_request("RespondTasks")
    request.answers.add()
    with pytest.raises(InvalidArgumentError, match=r"^answers\[2\]: "):
        worker.check_respond_tasks(request)


@pytest.mark.parametrize(
    "token",
    [
        b"corrupt!",
        TOKENS.seal_task(
            TaskToken(namespace_id="other", workflow_id="w", run_id=RUN_ID, attempt=1)
        ),
        Tokens(SECRETS).seal_task(
            TaskToken(namespace_id=NAMESPACE_ID, workflow_id="w", run_id="x", attempt=1)
        ),
    ],
)
def test_bad_task_token_is_refused(token: bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^task_token: "):
        TOKENS.open_task_of(NAMESPACE_ID, token)


@pytest.mark.parametrize("name", ["default", "a", "A.b_c-9", "x" * 255])
def test_namespace_name_that_fits_passes(name: str) -> None:
    check_namespace_name("namespace", name)


@pytest.mark.parametrize("name", ["", "a b", "ü", "a\n", "x" * 256, "a/b"])
def test_namespace_name_that_does_not_fit_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        check_namespace_name("namespace", name)
