import grpc
import pytest

from aetheris_server import errors
from aetheris_server.rpc.errors import (
    PeerFaultError,
    PeerUnavailableError,
    RpcStatus,
    from_rpc_error,
    from_status,
    to_metadata,
    to_status,
)

EVERY_ERROR = [
    errors.InvalidArgumentError("workflow_type.name", "expected a value, found none"),
    errors.NamespaceNotFoundError("nowhere"),
    errors.NamespaceAlreadyExistsError("default"),
    errors.WorkflowNotFoundError("w", "r"),
    errors.WorkflowNotFoundError("w"),
    errors.ActivityNotFoundError("w", "r", "a"),
    errors.WorkflowClosedError("w", "r"),
    errors.WorkflowAlreadyStartedError("w", "r", "request"),
    errors.TaskNotFoundError("it timed out"),
    errors.UnstorableError("postgres refuses a value"),
    errors.QueryFailedError("no such query"),
    errors.QueryRejectedError("WORKFLOW_EXECUTION_STATUS_FAILED"),
    errors.ShardNotOwnedError(0),
    errors.ShardNotOwnedError(7),
    errors.ShardLostError(frozenset({3, 1})),
    errors.CommitFailedError(5),
    errors.RunSetAsideError("r"),
    errors.BrokenLogError("r", 2, "record 2", "record 3"),
    errors.UnknownRecordError("r", 2, "an event of type 99"),
    errors.StorageUnavailableError("redis", "connection refused"),
    errors.UpdateNotFoundError("w", "r", "u"),
    errors.UpdateLimitError("w", "r", "10 updates"),
    errors.WorkflowNotReadyError("w", "r", "it fails"),
    errors.NotReadyError("a worker"),
    errors.ExhaustedError("as many polls wait as may"),
    errors.DrainingError(),
    errors.UnavailableError("something"),
    errors.RequestError("something"),
]


def leaves(error: type[Exception]) -> set[type[Exception]]:
    below = error.__subclasses__()
    return {error} if not below else set().union(*(leaves(one) for one in below))


def over_the_wire(error: Exception) -> Exception:
    status = to_status(error)
    metadata = grpc.aio.Metadata(*to_metadata(status))
    return from_rpc_error(
        grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), metadata, status.message)
    )


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda error: type(error).__name__)
def test_error_crosses_the_wire_unchanged(error: Exception) -> None:
    arrived = over_the_wire(error)
    assert type(arrived) is type(error)
    assert str(arrived) == str(error)
    assert vars(arrived) == vars(error)


def test_every_leaf_of_the_tree_is_tried_above() -> None:
    ours = {
        leaf for leaf in leaves(errors.AetherisError) if leaf.__module__ == "aetheris_server.errors"
    }
    # The border's own: no host says them to another.
    assert ours - {errors.NotAPeerError} <= {type(error) for error in EVERY_ERROR}


def test_refusal_by_a_host_of_another_cluster_is_peer_unavailable() -> None:
    error = errors.NotAPeerError()
    assert to_status(error).code is grpc.StatusCode.PERMISSION_DENIED
    arrived = over_the_wire(error)
    assert type(arrived) is PeerUnavailableError
    assert str(arrived) == str(error)


def test_subclass_of_a_domain_error_travels_as_its_base() -> None:
    assert to_status(PeerUnavailableError("gone")).code is grpc.StatusCode.UNAVAILABLE


def test_unexpected_error_tells_nothing_but_a_reference() -> None:
    status = to_status(ValueError("secret"))
    assert status.code is grpc.StatusCode.INTERNAL
    assert "secret" not in status.message
    assert status.detail is None


def test_internal_error_of_a_peer_is_a_fault_with_its_reference() -> None:
    arrived = over_the_wire(ValueError("secret"))
    assert isinstance(arrived, PeerFaultError)
    assert "the server's log has it as" in str(arrived)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_error_of_the_connection_is_peer_unavailable(code: grpc.StatusCode) -> None:
    empty = grpc.aio.Metadata()
    arrived = from_rpc_error(grpc.aio.AioRpcError(code, empty, empty, "connection refused"))
    assert isinstance(arrived, PeerUnavailableError)


def test_details_that_are_damaged_leave_the_code() -> None:
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff"))
    arrived = from_rpc_error(
        grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), metadata, "text")
    )
    assert type(arrived) is errors.UnavailableError


@pytest.mark.parametrize(
    "code,message",
    [(grpc.StatusCode.UNAVAILABLE, "another"), (grpc.StatusCode.ABORTED, "a worker")],
)
def test_details_of_another_status_leave_the_code(code: grpc.StatusCode, message: str) -> None:
    status = to_status(errors.NotReadyError("a worker"))
    metadata = grpc.aio.Metadata(*to_metadata(status))
    arrived = from_rpc_error(grpc.aio.AioRpcError(code, grpc.aio.Metadata(), metadata, message))
    assert not isinstance(arrived, errors.NotReadyError)
    assert message in str(arrived)


def test_status_of_an_unknown_code_is_a_fault() -> None:
    assert isinstance(from_status(RpcStatus(grpc.StatusCode.DATA_LOSS, "x")), PeerFaultError)


def test_long_text_fits_into_headers() -> None:
    status = to_status(errors.QueryFailedError("ü" * 100_000))
    encoded = len(status.message.encode()) * 3 + sum(
        len(value) * 4 / 3 for _, value in to_metadata(status)
    )
    assert encoded < 8192
