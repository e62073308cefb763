# ruff: noqa: D103 - a check is named for what it checks
"""Checks of the requests of WorkerService. The namespace is checked where it is looked up."""

from collections.abc import Iterable, Mapping

from aetheris.api.v1 import command_pb2, history_pb2, worker_service_pb2
from aetheris_server.config import LimitSettings
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.frontend.checks.fields import (
    check_capabilities,
    check_duration,
    check_enum,
    check_failure,
    check_id,
    check_long_text,
    check_range,
    check_run_id,
    check_set_duration,
    check_size,
    check_text,
    set_values_of,
    shown,
)

MAX_TASKS = 1000
MAX_ANSWERS = 1000
_MAX_POLL_NUMBER = 2**63 - 1

_FAILED_CAUSES = set_values_of(history_pb2.WorkflowTaskFailedCause)
_QUERY_RESULTS = set_values_of(worker_service_pb2.QueryResultType)


def _attributes_by_command_type() -> Mapping[int, str | None]:
    """The field that goes with each type; None for a type that this version does not serve."""
    fields = command_pb2.Command.DESCRIPTOR.oneofs_by_name["attributes"].fields
    names = {field.name for field in fields}
    by_type: dict[int, str | None] = {}
    for name, number in command_pb2.CommandType.items():
        field = name.removeprefix("COMMAND_TYPE_").lower() + "_command_attributes"
        by_type[number] = field if field in names else None
    return by_type


_ATTRIBUTES = _attributes_by_command_type()


def check_poll_workflow_tasks(
    request: worker_service_pb2.PollWorkflowTasksRequest, limits: LimitSettings
) -> None:
    check_text("sticky_task_queue", request.sticky_task_queue, limits)
    _check_poll(request, limits)


def check_poll_activity_tasks(
    request: worker_service_pb2.PollActivityTasksRequest, limits: LimitSettings
) -> None:
    _check_poll(request, limits)


def check_shutdown_worker(
    request: worker_service_pb2.ShutdownWorkerRequest, limits: LimitSettings
) -> None:
    check_id("task_queue", request.task_queue, limits)
    check_text("sticky_task_queue", request.sticky_task_queue, limits)
    check_text("identity", request.identity, limits)
    check_id("worker_instance_id", request.worker_instance_id, limits)
    for field in ("received_workflow_poll_number", "received_activity_poll_number"):
        check_range(field, getattr(request, field), 0, _MAX_POLL_NUMBER)


def check_respond_workflow_task_completed(
    request: worker_service_pb2.RespondWorkflowTaskCompletedRequest, limits: LimitSettings
) -> None:
    _check_commands(request.commands)
    if request.HasField("sticky_attributes"):
        sticky = request.sticky_attributes
        check_id("sticky_attributes.worker_task_queue", sticky.worker_task_queue, limits)
        check_set_duration("sticky_attributes.schedule_to_start_timeout", sticky)
    for query_id, result in request.query_results.items():
        _check_query_result(f"query_results[{shown(query_id)}]", result, limits)
    for index, rejection in enumerate(request.update_rejections):
        check_id(f"update_rejections[{index}].update_id", rejection.update_id, limits)
        check_failure(f"update_rejections[{index}].failure", rejection.failure, limits)
    check_text("identity", request.identity, limits)
    check_text("worker_version", request.worker_version, limits)
    check_text("workflow_version", request.workflow_version, limits)
    check_text("sdk_name", request.sdk_name, limits)
    check_text("sdk_version", request.sdk_version, limits)
    check_text("worker_instance_id", request.worker_instance_id, limits)
    if request.unhandled_signal_count < 0:
        raise InvalidArgumentError(
            "unhandled_signal_count",
            f"expected 0 or more, found {request.unhandled_signal_count}",
        )
    check_capabilities(request.capabilities, limits)


def check_respond_workflow_task_failed(
    request: worker_service_pb2.RespondWorkflowTaskFailedRequest, limits: LimitSettings
) -> None:
    check_enum("cause", request.cause, _FAILED_CAUSES)
    check_failure("failure", request.failure, limits)
    check_text("identity", request.identity, limits)


def check_respond_query_task_completed(
    request: worker_service_pb2.RespondQueryTaskCompletedRequest, limits: LimitSettings
) -> None:
    _check_query_result("result", request.result, limits)
    check_text("identity", request.identity, limits)


def check_respond_activity_task_completed(
    request: worker_service_pb2.RespondActivityTaskCompletedRequest, limits: LimitSettings
) -> None:
    _check_activity(request, limits)
    check_size("result", request.result, limits)
    check_text("identity", request.identity, limits)
    check_text("sticky_task_queue", request.sticky_task_queue, limits)
    check_text("worker_instance_id", request.worker_instance_id, limits)


def check_respond_activity_task_failed(
    request: worker_service_pb2.RespondActivityTaskFailedRequest, limits: LimitSettings
) -> None:
    _check_activity(request, limits)
    if not request.HasField("failure"):
        raise InvalidArgumentError("failure", "expected a failure, found none")
    check_failure("failure", request.failure, limits)
    check_size("last_heartbeat_details", request.last_heartbeat_details, limits)
    check_text("identity", request.identity, limits)


def check_respond_activity_task_cancelled(
    request: worker_service_pb2.RespondActivityTaskCancelledRequest, limits: LimitSettings
) -> None:
    _check_activity(request, limits)
    check_size("details", request.details, limits)
    check_text("identity", request.identity, limits)


def check_record_activity_task_heartbeat(
    request: worker_service_pb2.RecordActivityTaskHeartbeatRequest, limits: LimitSettings
) -> None:
    _check_activity(request, limits)
    check_size("details", request.details, limits)
    check_text("identity", request.identity, limits)


def check_respond_tasks(request: worker_service_pb2.RespondTasksRequest) -> None:
    """The shape of the batch; each answer is judged by itself later."""
    if not 1 <= len(request.answers) <= MAX_ANSWERS:
        raise InvalidArgumentError(
            "answers", f"expected 1 to {MAX_ANSWERS}, found {len(request.answers)}"
        )
    for index, answer in enumerate(request.answers):
        if answer.WhichOneof("answer") is None:
            raise InvalidArgumentError(f"answers[{index}]", "expected an answer, found none")


def _check_activity(
    request: (
        worker_service_pb2.RespondActivityTaskCompletedRequest
        | worker_service_pb2.RespondActivityTaskFailedRequest
        | worker_service_pb2.RespondActivityTaskCancelledRequest
        | worker_service_pb2.RecordActivityTaskHeartbeatRequest
    ),
    limits: LimitSettings,
) -> None:
    if not request.HasField("activity"):
        return
    if request.task_token:
        raise InvalidArgumentError("activity", "expected none beside a task_token")
    check_id("activity.workflow_id", request.activity.workflow_id, limits)
    check_run_id("activity.run_id", request.activity.run_id)
    check_id("activity.activity_id", request.activity.activity_id, limits)


def _check_poll(
    request: worker_service_pb2.PollWorkflowTasksRequest
    | worker_service_pb2.PollActivityTasksRequest,
    limits: LimitSettings,
) -> None:
    check_id("task_queue", request.task_queue, limits)
    check_range("max_tasks", request.max_tasks, 0, MAX_TASKS)
    check_capabilities(request.capabilities, limits)
    check_text("identity", request.identity, limits)
    check_text("worker_instance_id", request.worker_instance_id, limits)
    check_text("worker_version", request.worker_version, limits)
    check_duration("poll_timeout", request.poll_timeout)
    _check_poll_numbers(request)


def _check_poll_numbers(
    request: worker_service_pb2.PollWorkflowTasksRequest
    | worker_service_pb2.PollActivityTasksRequest,
) -> None:
    if not request.poll_number and not request.received_poll_number:
        return
    check_range("poll_number", request.poll_number, 1, _MAX_POLL_NUMBER)
    check_range("received_poll_number", request.received_poll_number, 0, request.poll_number - 1)
    if not request.worker_instance_id:
        raise InvalidArgumentError(
            "worker_instance_id", "expected the worker whose polls are counted, found none"
        )


def _check_commands(commands: Iterable[command_pb2.Command]) -> None:
    for index, command in enumerate(commands):
        expected = _ATTRIBUTES.get(command.command_type)
        if expected is None:
            raise InvalidArgumentError(
                f"commands[{index}].command_type",
                f"expected a type that this version serves, found {command.command_type}",
            )
        found = command.WhichOneof("attributes")
        if found != expected:
            raise InvalidArgumentError(
                f"commands[{index}].attributes", f"expected {expected}, found {found or 'none'}"
            )


def _check_query_result(
    field: str, result: worker_service_pb2.WorkflowQueryResult, limits: LimitSettings
) -> None:
    check_enum(f"{field}.result_type", result.result_type, _QUERY_RESULTS)
    check_size(f"{field}.answer", result.answer, limits)
    check_long_text(f"{field}.error_message", result.error_message, limits)
    check_failure(f"{field}.failure", result.failure, limits)
