"""The one table from the server's errors to what gRPC carries, and back.

An error travels as a status code, a message for people, and a typed detail inside a
`google.rpc.Status` in the standard trailing metadata. Callers switch on the detail's type. Between
hosts the way back is lossless: `from_status(to_status(error))` is the same error. What is not of
the tree is a fault of this program: the caller learns a reference, the log has the rest.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2  # pyright: ignore[reportMissingTypeStubs] - its own types
from grpc import StatusCode
from grpc.aio import AioRpcError
from grpc_status import rpc_status

from aetheris.api.v1 import error_details_pb2 as public
from aetheris.server.v1 import error_details_pb2 as internal
from aetheris_server.errors import (
    ActivityNotFoundError,
    AetherisError,
    BrokenLogError,
    CommitFailedError,
    DrainingError,
    ExhaustedError,
    InvalidArgumentError,
    NamespaceAlreadyExistsError,
    NamespaceNotFoundError,
    NotAPeerError,
    NotReadyError,
    QueryFailedError,
    QueryRejectedError,
    RequestError,
    RunSetAsideError,
    ShardLostError,
    ShardNotOwnedError,
    StorageUnavailableError,
    TaskNotFoundError,
    UnavailableError,
    UnknownRecordError,
    UnstorableError,
    UpdateLimitError,
    UpdateNotFoundError,
    WorkflowAlreadyStartedError,
    WorkflowClosedError,
    WorkflowNotFoundError,
    WorkflowNotReadyError,
)
from aetheris_server.telemetry import get_logger

__all__ = [
    "STRANGERS",
    "PeerFaultError",
    "PeerUnavailableError",
    "RpcStatus",
    "from_rpc_error",
    "from_status",
    "to_metadata",
    "to_status",
]

# Headers over 8 KiB in all are refused by some clients, and text may triple in its encoding.
_TEXT_MAX_BYTES = 700
# How gRPC's own messages begin where a call was cut on its way, by a proxy say.
_CUTS = ("Stream removed", "Received RST_STREAM", "Received http2 header")

# The stubs of grpc_status do not say that it gives and takes a google.rpc.Status.
_RPC_STATUS = cast("Any", rpc_status)

_log = get_logger(__name__)


class PeerUnavailableError(UnavailableError):
    """The other host was not reached, or the connection broke: it may or may not have acted."""


class PeerFaultError(Exception):
    """The other host failed as it never should; its log has the reference in the message."""


@dataclass(frozen=True, slots=True)
class RpcStatus:
    """What one error is on the wire."""

    code: StatusCode
    message: str
    detail: Message | None = None

    @property
    def code_number(self) -> int:
        """The code as gRPC numbers it."""
        return _code_number(self.code)


# The fields of a detail are the attributes, and the constructor's arguments, of its error.
# The first row whose error fits is taken, so leaves come before what they derive from.
_TABLE: Sequence[tuple[type[AetherisError], StatusCode, type[Message] | None]] = (
    (InvalidArgumentError, StatusCode.INVALID_ARGUMENT, public.BadRequestDetail),
    (NamespaceNotFoundError, StatusCode.NOT_FOUND, public.NamespaceNotFoundDetail),
    (
        NamespaceAlreadyExistsError,
        StatusCode.ALREADY_EXISTS,
        public.NamespaceAlreadyExistsDetail,
    ),
    (WorkflowNotFoundError, StatusCode.NOT_FOUND, public.WorkflowNotFoundDetail),
    (ActivityNotFoundError, StatusCode.NOT_FOUND, public.ActivityNotFoundDetail),
    (WorkflowClosedError, StatusCode.NOT_FOUND, public.WorkflowClosedDetail),
    (
        WorkflowAlreadyStartedError,
        StatusCode.ALREADY_EXISTS,
        public.WorkflowAlreadyStartedDetail,
    ),
    (TaskNotFoundError, StatusCode.NOT_FOUND, public.TaskNotFoundDetail),
    (QueryFailedError, StatusCode.INVALID_ARGUMENT, public.QueryFailedDetail),
    (QueryRejectedError, StatusCode.FAILED_PRECONDITION, public.QueryRejectedDetail),
    (UpdateNotFoundError, StatusCode.NOT_FOUND, public.UpdateNotFoundDetail),
    (UpdateLimitError, StatusCode.RESOURCE_EXHAUSTED, public.UpdateLimitDetail),
    (WorkflowNotReadyError, StatusCode.FAILED_PRECONDITION, public.WorkflowNotReadyDetail),
    (BrokenLogError, StatusCode.DATA_LOSS, internal.BrokenLogDetail),
    (UnknownRecordError, StatusCode.DATA_LOSS, internal.UnknownRecordDetail),
    (ShardNotOwnedError, StatusCode.UNAVAILABLE, internal.ShardNotOwnedDetail),
    (ShardLostError, StatusCode.UNAVAILABLE, internal.ShardLostDetail),
    (CommitFailedError, StatusCode.UNAVAILABLE, internal.CommitFailedDetail),
    (RunSetAsideError, StatusCode.UNAVAILABLE, internal.RunSetAsideDetail),
    (StorageUnavailableError, StatusCode.UNAVAILABLE, internal.StorageUnavailableDetail),
    (NotReadyError, StatusCode.UNAVAILABLE, public.NotReadyDetail),
    (DrainingError, StatusCode.UNAVAILABLE, internal.DrainingDetail),
    (ExhaustedError, StatusCode.RESOURCE_EXHAUSTED, None),
    (NotAPeerError, StatusCode.PERMISSION_DENIED, None),
    (UnstorableError, StatusCode.INVALID_ARGUMENT, None),
    (RequestError, StatusCode.FAILED_PRECONDITION, None),
    (UnavailableError, StatusCode.UNAVAILABLE, None),
)
_BY_DETAIL = {
    detail.DESCRIPTOR.full_name: (error, detail)
    for error, _, detail in _TABLE
    if detail is not None
}
STRANGERS = frozenset(
    {StatusCode.PERMISSION_DENIED, StatusCode.UNAUTHENTICATED, StatusCode.UNIMPLEMENTED}
)
"""What a host of another cluster, or another program, says at the address of a host."""

# Where there is no detail, the code says which branch of the tree it is.
_BY_CODE: dict[StatusCode, Callable[[str], AetherisError]] = {
    **{
        code: cast("Callable[[str], AetherisError]", error)
        for error, code, detail in _TABLE
        if detail is None
    },
    **dict.fromkeys(STRANGERS, PeerUnavailableError),
}


def to_status(error: Exception) -> RpcStatus:
    """What `error` is on the wire.

    An error that is not of the tree is logged with its traceback under the reference in the answer.
    """
    for error_type, code, detail in _TABLE:
        if isinstance(error, error_type):
            return RpcStatus(code, _clip(str(error)), _to_detail(error, detail))
    reference = secrets.token_hex(8)
    _log.error("call failed unexpectedly", reference=reference, exc_info=error)
    return RpcStatus(StatusCode.INTERNAL, f"internal error; the server's log has it as {reference}")


def from_status(status: RpcStatus) -> Exception:
    """The error that another host raised: of the tree, or PeerFaultError."""
    if status.detail is not None and (row := _BY_DETAIL.get(status.detail.DESCRIPTOR.full_name)):
        return row[0](**_fields_of(status.detail))
    make_error = _BY_CODE.get(status.code)
    if make_error is None:
        return PeerFaultError(f"{status.code.name}: {status.message}")
    return make_error(status.message)


def to_metadata(status: RpcStatus) -> Sequence[tuple[str, bytes]]:
    """The trailing metadata of a failed call."""
    message = status_pb2.Status(code=status.code_number, message=status.message)
    if status.detail is not None:
        cast("Any", message.details.add()).Pack(status.detail)
    return _RPC_STATUS.to_status(message).trailing_metadata


def from_rpc_error(error: AioRpcError) -> Exception:
    """The error that another host raised, or PeerUnavailableError where none answered."""
    message = error.details() or error.code().name
    try:
        # It asks of a call only what the error has as well.
        status: status_pb2.Status | None = _RPC_STATUS.from_call(error)
        if status is None:
            return _from_grpc(error.code(), message)
        detail = _unpack(status)
    except (DecodeError, ValueError):
        # Damaged, or of another code or message.
        detail = None
    return from_status(RpcStatus(error.code(), message, detail))


def _from_grpc(code: StatusCode, message: str) -> Exception:
    """What gRPC itself says: every server of ours would have sent the metadata."""
    match code:
        case StatusCode.UNAVAILABLE | StatusCode.DEADLINE_EXCEEDED | StatusCode.CANCELLED:
            return PeerUnavailableError(f"the other host did not answer: {message}")
        case _ if code in STRANGERS:
            return PeerUnavailableError(f"at its address is no host of this cluster: {message}")
        case StatusCode.UNKNOWN | StatusCode.INTERNAL if message.startswith(_CUTS):
            return PeerUnavailableError(f"the call to the other host was cut: {message}")
        case _:
            return PeerFaultError(f"{code.name}: {message}")


def _code_number(code: StatusCode) -> int:
    number: int = code.value[0]
    return number


def _unpack(status: status_pb2.Status) -> Message | None:
    """The first detail of a known type, if any."""
    for packed in status.details:
        if row := _BY_DETAIL.get(packed.TypeName()):
            return row[1].FromString(packed.value)
    return None


def _to_detail(error: AetherisError, detail: type[Message] | None) -> Message | None:
    if detail is None:
        return None
    return detail(**{name: _to_field(getattr(error, name)) for name in _field_names(detail)})


def _fields_of(detail: Message) -> dict[str, Any]:
    values = {name: getattr(detail, name) for name in _field_names(type(detail))}
    return {
        name: value if isinstance(value, str | int) else frozenset(value)
        for name, value in values.items()
    }


def _field_names(detail: type[Message]) -> list[str]:
    return [field.name for field in detail.DESCRIPTOR.fields]


def _to_field(value: object) -> object:
    match value:
        case str():
            return _clip(value, _TEXT_MAX_BYTES * 2)
        case frozenset():
            return sorted(value)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        case _:
            return value


def _clip(text: str, max_bytes: int = _TEXT_MAX_BYTES) -> str:
    encoded = text.encode()
    if len(encoded) <= max_bytes:
        return text
    return encoded[: max_bytes - 3].decode(errors="ignore") + "..."
