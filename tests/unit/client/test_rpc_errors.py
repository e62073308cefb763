"""What a refused call raises."""

import grpc
import pytest
from google.protobuf.message import Message

from aetheris.api.v1 import error_details_pb2 as details
from aetheris_client import Client, errors
from aetheris_client.rpc_errors import from_rpc_error
from tests.support.canned_server import CannedServer, Refusal

Code = grpc.StatusCode


@pytest.mark.parametrize(
    "code,detail,error",
    [
        (
            Code.INVALID_ARGUMENT,
            details.BadRequestDetail(field="workflow_id", description="empty"),
            errors.InvalidArgumentError("workflow_id", "empty"),
        ),
        (
            Code.NOT_FOUND,
            details.NamespaceNotFoundDetail(namespace="n"),
            errors.NamespaceNotFoundError("n"),
        ),
        (
            Code.ALREADY_EXISTS,
            details.NamespaceAlreadyExistsDetail(namespace="n"),
            errors.NamespaceAlreadyExistsError("n"),
        ),
        (
            Code.NOT_FOUND,
            details.WorkflowNotFoundDetail(workflow_id="w", run_id="r"),
            errors.WorkflowNotFoundError("w", "r"),
        ),
        (
            Code.NOT_FOUND,
            details.WorkflowClosedDetail(workflow_id="w", run_id="r"),
            errors.WorkflowClosedError("w", "r"),
        ),
        (
            Code.ALREADY_EXISTS,
            details.WorkflowAlreadyStartedDetail(workflow_id="w", run_id="r", start_request_id="q"),
            errors.WorkflowAlreadyStartedError("w", "r", "q"),
        ),
        (
            Code.NOT_FOUND,
            details.TaskNotFoundDetail(reason="timed out"),
            errors.TaskNotFoundError("timed out"),
        ),
        (
            Code.INVALID_ARGUMENT,
            details.QueryFailedDetail(message="no"),
            errors.QueryFailedError("no"),
        ),
        (
            Code.FAILED_PRECONDITION,
            details.QueryRejectedDetail(status="COMPLETED"),
            errors.QueryRejectedError("COMPLETED"),
        ),
        (
            Code.NOT_FOUND,
            details.UpdateNotFoundDetail(workflow_id="w", run_id="r", update_id="u"),
            errors.UpdateNotFoundError("w", "r", "u"),
        ),
        (
            Code.RESOURCE_EXHAUSTED,
            details.UpdateLimitDetail(workflow_id="w", run_id="r", reason="10 updates"),
            errors.UpdateLimitError("w", "r", "10 updates"),
        ),
        (
            Code.FAILED_PRECONDITION,
            details.WorkflowNotReadyDetail(workflow_id="w", run_id="r", reason="it fails"),
            errors.WorkflowNotReadyError("w", "r", "it fails"),
        ),
        (
            Code.UNAVAILABLE,
            details.NotReadyDetail(waited_for="a worker"),
            errors.NotReadyError("a worker"),
        ),
        (Code.INVALID_ARGUMENT, None, errors.InvalidArgumentError("", "refused")),
        (Code.PERMISSION_DENIED, None, errors.RpcError("refused", "PERMISSION_DENIED")),
    ],
)
async def test_refused_call_raises_the_error_of_its_detail(
    server: CannedServer, client: Client, code: Code, detail: Message, error: errors.RpcError
):
    server.on("DescribeWorkflow", Refusal(code, detail=detail))
    with pytest.raises(errors.RpcError) as caught:
        await client.get_workflow_handle("w").describe()
    assert type(caught.value) is type(error)
    assert vars(caught.value) == vars(error)
    assert caught.value.code == code.name


async def test_call_that_is_not_served_says_what_the_address_may_be(
    server: CannedServer, client: Client
):
    server.on("DescribeWorkflow", Refusal(Code.UNIMPLEMENTED))
    with pytest.raises(errors.RpcError, match="a server's internal port") as caught:
        await client.get_workflow_handle("w").describe()
    assert caught.value.code == "UNIMPLEMENTED"


@pytest.mark.parametrize(
    "code,message,is_unavailable",
    [
        (Code.UNKNOWN, "Stream removed (Socket closed)", True),
        (Code.INTERNAL, "Received RST_STREAM with error code 2", True),
        (Code.CANCELLED, "server is stopping", True),
        (Code.RESOURCE_EXHAUSTED, "Stream removed (Received RST_STREAM with error code 11)", True),
        (Code.RESOURCE_EXHAUSTED, "20000 calls are being answered", False),
        (Code.UNKNOWN, "Received http2 header with status: 408", True),
        (Code.UNKNOWN, "Received http2 header with status: 499", True),
        (Code.UNKNOWN, "Received http2 header with status: 524", True),
        (Code.INTERNAL, "Received http2 header with status: 400", False),
        (Code.UNKNOWN, "a fault", False),
    ],
)
def test_call_that_was_cut_is_unavailable_whatever_its_code(
    code: grpc.StatusCode, message: str, is_unavailable: bool
):
    cut = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), message)
    assert isinstance(from_rpc_error(cut), errors.UnavailableError) is is_unavailable


@pytest.mark.parametrize("message", ["", " a ", "ä\n\t\x00\x7f", "100 % %41", "x" * 700])
async def test_detail_arrives_whatever_the_message_is(
    server: CannedServer, client: Client, message: str
):
    detail = details.WorkflowNotFoundDetail(workflow_id="w", run_id="r")
    server.on("DescribeWorkflow", Refusal(Code.NOT_FOUND, message, detail))
    with pytest.raises(errors.WorkflowNotFoundError):
        await client.get_workflow_handle("w").describe()


@pytest.mark.parametrize("trailer", [b"\xff\xff", b""])
def test_detail_that_is_not_of_its_call_leaves_the_code(trailer: bytes):
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", trailer))
    error = grpc.aio.AioRpcError(Code.UNAVAILABLE, grpc.aio.Metadata(), metadata, "text")
    assert isinstance(from_rpc_error(error), errors.UnavailableError)


def test_errors_that_are_documented_are_all_there_and_no_others():
    tree = (errors.__doc__ or "").split("Imports no gRPC")[0]
    documented = {word for word in tree.split() if word.endswith("Error")}
    defined = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.AetherisError)
    }
    assert defined == documented
