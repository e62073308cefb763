# ruff: noqa: D103 - a check is named for what it checks
"""Checks of the requests of OperatorService."""

from aetheris.api.v1 import operator_service_pb2, task_queue_pb2
from aetheris.server.v1.token_pb2 import PageToken
from aetheris_server.config import CAPPED_LIMITS, NAMESPACE_LIMITS, LimitSettings
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.frontend.checks.fields import (
    check_duration,
    check_enum,
    check_id,
    check_namespace_name,
    check_range,
    check_text,
    set_values_of,
    shown,
)
from aetheris_server.rpc.tokens import LISTING_NAMESPACES, Tokens

MIN_RETENTION_SECONDS = 3600

_TASK_QUEUE_TYPES = set_values_of(task_queue_pb2.TaskQueueType)


def check_create_namespace(
    request: operator_service_pb2.CreateNamespaceRequest, limits: LimitSettings
) -> None:
    check_namespace_name("namespace", request.namespace)
    _check_settings(request, limits)
    check_text("request_id", request.request_id, limits)


def check_update_namespace(
    request: operator_service_pb2.UpdateNamespaceRequest, limits: LimitSettings
) -> None:
    check_namespace_name("namespace", request.namespace)
    _check_settings(request, limits)
    for index, name in enumerate(request.unset_limits):
        if name not in NAMESPACE_LIMITS:
            raise InvalidArgumentError(
                f"unset_limits[{index}]",
                f"expected one of {', '.join(NAMESPACE_LIMITS)}, found {shown(name)}",
            )
        if request.limits.HasField(name):  # pyright: ignore[reportArgumentType]
            raise InvalidArgumentError(
                f"unset_limits[{index}]", f"expected none that limits sets, found {name}"
            )


def limits_to_set(limits: operator_service_pb2.NamespaceLimits) -> dict[str, int]:
    """Those that are set, by name."""
    return {field.name: value for field, value in limits.ListFields()}


def _check_settings(
    request: operator_service_pb2.CreateNamespaceRequest
    | operator_service_pb2.UpdateNamespaceRequest,
    limits: LimitSettings,
) -> None:
    check_text("description", request.description, limits)
    check_duration("retention_interval", request.retention_interval)
    if (
        request.HasField("retention_interval")
        and request.retention_interval.seconds < MIN_RETENTION_SECONDS
    ):
        raise InvalidArgumentError(
            "retention_interval",
            f"expected at least {MIN_RETENTION_SECONDS} s, "
            f"found {request.retention_interval.seconds} s",
        )
    for name, value in limits_to_set(request.limits).items():
        least, most = NAMESPACE_LIMITS[name]
        if name in CAPPED_LIMITS:
            most = min(most, getattr(limits, name))
        check_range(f"limits.{name}", value, least, most)
    check_text("identity", request.identity, limits)


def check_list_namespaces(
    request: operator_service_pb2.ListNamespacesRequest, limits: LimitSettings, tokens: Tokens
) -> PageToken | None:
    """Returns the page's token; None for the first page."""
    check_range("page_size", request.page_size, 0, limits.page_max_size)
    token = tokens.open_page(request.page_token, frozenset({LISTING_NAMESPACES}))
    if token is not None:
        check_namespace_name("page_token", token.last_key)
    return token


def check_update_task_queue(
    request: operator_service_pb2.UpdateTaskQueueRequest, limits: LimitSettings
) -> None:
    check_id("task_queue", request.task_queue, limits)
    if not request.HasField("default_build_id"):
        raise InvalidArgumentError(
            "default_build_id", "expected a build id, or an empty one for none; found it unset"
        )
    check_text("default_build_id", request.default_build_id, limits)
    check_text("identity", request.identity, limits)
    check_text("request_id", request.request_id, limits)


def check_describe_task_queue(
    request: operator_service_pb2.DescribeTaskQueueRequest, limits: LimitSettings
) -> None:
    check_id("task_queue", request.task_queue, limits)
    check_enum("task_queue_type", request.task_queue_type, _TASK_QUEUE_TYPES)
