"""From what gRPC raises to the RpcErrors: one table, by the typed detail that the server attached.

The detail travels in a google.rpc.Status in the standard trailing metadata. Without one that is
known here, the status code decides.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs] - its own types
from grpc_status import rpc_status

from aetheris.api.v1 import error_details_pb2 as details
from aetheris_client import errors

# The stubs of grpc_status do not say that it gives and takes a google.rpc.Status.
_RPC_STATUS: Final = cast("Any", rpc_status)

# Each detail's fields are the constructor's arguments of its error.
_BY_DETAIL: Final[Mapping[str, tuple[type[Message], Callable[..., errors.RpcError]]]] = {
    detail.DESCRIPTOR.full_name: (detail, error)
    for detail, error in (
        (details.BadRequestDetail, errors.InvalidArgumentError),
        (details.NamespaceNotFoundDetail, errors.NamespaceNotFoundError),
        (details.NamespaceAlreadyExistsDetail, errors.NamespaceAlreadyExistsError),
        (details.WorkflowNotFoundDetail, errors.WorkflowNotFoundError),
        (details.ActivityNotFoundDetail, errors.ActivityNotFoundError),
        (details.WorkflowClosedDetail, errors.WorkflowClosedError),
        (details.WorkflowAlreadyStartedDetail, errors.WorkflowAlreadyStartedError),
        (details.TaskNotFoundDetail, errors.TaskNotFoundError),
        (details.QueryFailedDetail, errors.QueryFailedError),
        (details.QueryRejectedDetail, errors.QueryRejectedError),
        (details.UpdateNotFoundDetail, errors.UpdateNotFoundError),
        (details.UpdateLimitDetail, errors.UpdateLimitError),
        (details.WorkflowNotReadyDetail, errors.WorkflowNotReadyError),
        (details.NotReadyDetail, errors.NotReadyError),
    )
}


_NOT_SERVED: Final = (
    "no such call is served at this address; it is that of a server's internal port, of a server of"
    " another version, or of another program"
)
_PROXYS_STATUS: Final = re.compile(r"Received http2 header with status: (\d{3})")
# Request Timeout, and what nginx calls it when the other side has gone.
_TIMEOUTS: Final = frozenset({"408", "499"})


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
        case (
            grpc.StatusCode.UNKNOWN | grpc.StatusCode.INTERNAL | grpc.StatusCode.RESOURCE_EXHAUSTED
        ) if _is_cut(message):
            return errors.UnavailableError(message)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return errors.DeadlineExceededError(message)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return errors.InvalidArgumentError("", message)
        case grpc.StatusCode.UNIMPLEMENTED:
            return errors.RpcError(f"{message}: {_NOT_SERVED}", code.name)
        case _:
            return errors.RpcError(message, code.name)


def _is_cut(message: str) -> bool:
    """The call was cut on its way, for which gRPC has more than one code, and these words: the
    connection broke, or a proxy had waited for long enough.
    """
    if message.startswith(("Stream removed", "Received RST_STREAM")):
        return True
    status = _PROXYS_STATUS.match(message)
    return status is not None and (status[1] in _TIMEOUTS or status[1].startswith("5"))


def _find_detail(error: grpc.aio.AioRpcError) -> Message | None:
    """The first detail of a known type; None without one, or if its status is not this error's."""
    try:
        # It asks of a call only what the error has as well.
        status: status_pb2.Status | None = _RPC_STATUS.from_call(error)
        for packed in status.details if status is not None else ():
            row = _BY_DETAIL.get(packed.TypeName())
            if row is not None:
                return row[0].FromString(packed.value)
    except (DecodeError, ValueError):
        pass
    return None


def _fields_of(detail: Message) -> dict[str, Any]:
    return {field.name: getattr(detail, field.name) for field in detail.DESCRIPTOR.fields}
