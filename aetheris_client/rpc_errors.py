"""From what gRPC raises to the RpcErrors: one table, by the typed detail that the server attached.

The detail travels in a google.rpc.Status in the standard trailing metadata. Without one that is
known here, the status code decides.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs] - its own types

from aetheris.api.v1 import error_details_pb2 as details
from aetheris_client import errors

DETAILS_KEY: Final = "grpc-status-details-bin"
_TYPE_PREFIX: Final = "type.googleapis.com/"

# Each detail's fields are the constructor's arguments of its error.
_BY_DETAIL: Final[Mapping[str, tuple[type[Message], Callable[..., errors.RpcError]]]] = {
    detail.DESCRIPTOR.full_name: (detail, error)
    for detail, error in (
        (details.BadRequestDetail, errors.InvalidArgumentError),
        (details.NamespaceNotFoundDetail, errors.NamespaceNotFoundError),
        (details.NamespaceAlreadyExistsDetail, errors.NamespaceAlreadyExistsError),
        (details.WorkflowNotFoundDetail, errors.WorkflowNotFoundError),
        (details.WorkflowClosedDetail, errors.WorkflowClosedError),
        (details.WorkflowAlreadyStartedDetail, errors.WorkflowAlreadyStartedError),
        (details.TaskNotFoundDetail, errors.TaskNotFoundError),
        (details.QueryFailedDetail, errors.QueryFailedError),
        (details.QueryRejectedDetail, errors.QueryRejectedError),
        (details.NotReadyDetail, errors.NotReadyError),
    )
}


def from_rpc_error(error: grpc.aio.AioRpcError) -> errors.RpcError:
    """The typed error that a failed call stands for."""
    detail = _find_detail(error)
    if detail is not None:
        _, make_error = _BY_DETAIL[detail.DESCRIPTOR.full_name]
        return make_error(**_fields_of(detail))
    code = error.code()
    message = error.details() or code.name
    match code:
        # A server that is killed or drained in mid-call cancels it; nobody here did.
        case grpc.StatusCode.UNAVAILABLE | grpc.StatusCode.CANCELLED:
            return errors.UnavailableError(message)
        case grpc.StatusCode.UNKNOWN | grpc.StatusCode.INTERNAL if _is_cut(message):
            return errors.UnavailableError(message)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.DeadlineExceededError(message)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return errors.InvalidArgumentError("", message)
        case _:
            return errors.RpcError(message, code.name)


def _is_cut(message: str) -> bool:
    """The connection broke in mid-call, for which gRPC has more than one code, and these words."""
    return message.startswith(("Stream removed", "Received RST_STREAM"))


def _find_detail(error: grpc.aio.AioRpcError) -> Message | None:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return _unpack(value)
    return None


def _unpack(serialized: bytes) -> Message | None:
    """The first detail of a known type; None if there is none, or the bytes are no status."""
    try:
        for packed in status_pb2.Status.FromString(serialized).details:
            row = _BY_DETAIL.get(packed.type_url.removeprefix(_TYPE_PREFIX))
            if row is not None:
                return row[0].FromString(packed.value)
    except DecodeError:
        pass
    return None


def _fields_of(detail: Message) -> dict[str, Any]:
    return {field.name: getattr(detail, field.name) for field in detail.DESCRIPTOR.fields}
