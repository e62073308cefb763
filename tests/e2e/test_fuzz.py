"""Odd requests over the wire, to a server with real stores: none is answered as a fault of the
server, what is refused writes nothing, and every run can be read from the log after.
"""

import asyncio
import secrets
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import grpc
import psycopg
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aetheris.api.v1 import worker_service_pb2, workflow_pb2, workflow_service_pb2
from aetheris_server.config import PostgresSettings
from aetheris_server.rpc.tokens import Tokens
from aetheris_server.storage.database import Database
from aetheris_server.storage.secrets import ensure_secrets
from tests.support.databases import create_database, database_name, drop_database
from tests.support.log_audit import audit_log
from tests.support.messages import Messages
from tests.support.processes import FAST, ServerProcess, start_arguments
from tests.support.projection_audit import audit_projections
from tests.support.raw import schedule_activity
from tests.support.requests import METHODS, good_request
from tests.support.stores import SessionStores

_BY_NAME = {method.name: method for method in METHODS}
_FAULTS = (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
_TIMEOUT = 10.0
# Those that may wait for what never comes.
_WAITING_TIMEOUT = 0.2
_WAITING = frozenset(
    {
        "PollWorkflowTasks",
        "PollActivityTasks",
        "PollWorkflowResult",
        "GetWorkflowHistory",
        "QueryWorkflow",
        "StartWorkflow",
        "UpdateWorkflow",
        "UpdateWithStartWorkflow",
        "PollWorkflowUpdate",
    }
)
_OF_RUN = ("SignalWorkflow", "CancelWorkflow", "TerminateWorkflow")
_OF_DECISION = ("RespondWorkflowTaskCompleted", "RespondWorkflowTaskFailed")
_OF_ACTIVITY = (
    "RespondActivityTaskCompleted",
    "RespondActivityTaskFailed",
    "RespondActivityTaskCancelled",
    "RecordActivityTaskHeartbeat",
)
# The same examples each time: a finding is found again.
FUZZ = settings(
    max_examples=20,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@dataclass
class Wire:
    """A server, and its database behind its back."""

    process: ServerProcess
    channel: grpc.Channel
    dsn: str
    messages: Messages

    def send(self, method: str, request: bytes) -> tuple[grpc.StatusCode, bytes]:
        """The status, and the response's bytes."""
        service = _BY_NAME[method].containing_service.full_name
        call: Any = self.channel.unary_unary(f"/{service}/{method}")
        timeout = _WAITING_TIMEOUT if method in _WAITING else _TIMEOUT
        try:
            return grpc.StatusCode.OK, call(request, timeout=timeout)
        except grpc.RpcError as error:
            failed: Any = error
            return failed.code(), b""

    def ask(self, method: str, request: Any) -> Any:
        """The response of a request that is right."""
        service = _BY_NAME[method].containing_service.full_name
        response = GetMessageClass(_BY_NAME[method].output_type)
        call: Any = self.channel.unary_unary(
            f"/{service}/{method}", type(request).SerializeToString, response.FromString
        )
        return call(request, timeout=_TIMEOUT)

    def start(self, queue: str) -> str:
        """The run id of a new run that nobody polls for but the caller."""
        request: Any = good_request("StartWorkflow")
        request.task_queue.name = queue
        request.workflow_id_conflict_policy = (
            workflow_pb2.WORKFLOW_ID_CONFLICT_POLICY_TERMINATE_EXISTING
        )
        return self.ask("StartWorkflow", request).run_id

    def take_decision(self) -> bytes:
        """The token of a workflow task."""
        queue = secrets.token_hex(8)
        self.start(queue)
        poll: Any = good_request("PollWorkflowTasks")
        poll.task_queue, poll.max_tasks = queue, 1
        del poll.capabilities[:]
        [task] = self.ask("PollWorkflowTasks", poll).tasks
        return task.task_token

    def take_activity(self) -> bytes:
        """The token of an activity task."""
        queue = secrets.token_hex(8)
        decision: Any = worker_service_pb2.RespondWorkflowTaskCompletedRequest(
            namespace="default", task_token=self.take_decision(), commands=[schedule_activity()]
        )
        decision.commands[0].schedule_activity_task_command_attributes.task_queue.name = queue
        self.ask("RespondWorkflowTaskCompleted", decision)
        poll: Any = good_request("PollActivityTasks")
        poll.task_queue = queue
        [task] = self.ask("PollActivityTasks", poll).tasks
        return task.task_token

    def count(self, statement: Any, *parameters: Any) -> int:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            row = connection.execute(statement, parameters).fetchone()
        assert row is not None
        return row[0]

    def written(self, method: str, run_id: str) -> int:
        """How much there is of what the method may write; nothing else writes it."""
        if method in _OF_RUN:
            return self.count("SELECT count(*) FROM log WHERE run_id = %s", run_id)
        if method == "CreateNamespace":
            return self.count("SELECT count(*) FROM namespaces")
        return self.count("SELECT count(*) FROM executions")


@pytest.fixture(scope="module")
def wire(
    stores: SessionStores,
    session_name: str,
    migrated_template: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[Wire]:
    name = database_name(session_name, "fuzz")
    dsn = create_database(stores.postgres_dsn, name, migrated_template)
    process = ServerProcess(
        tmp_path_factory.mktemp("fuzz"),
        start_arguments(dsn, stores.redis_url),
        {**FAST, "AETHERIS_REDIS__KEY_PREFIX": f"fuzz-{secrets.token_hex(4)}"},
    )
    asyncio.run(process.start())
    with grpc.insecure_channel(process.address) as channel:
        yield Wire(process, channel, dsn, asyncio.run(_messages(dsn)))
    asyncio.run(process.kill())
    audit_projections(dsn)
    drop_database(stores.postgres_dsn, name)


async def _messages(dsn: str) -> Messages:
    async with Database(PostgresSettings(dsn=dsn)) as db:
        tokens = Tokens(await ensure_secrets(db))
        [(namespace_id,)] = await db.fetch("SELECT namespace_id::text FROM namespaces")
    return Messages(namespace_id, tokens)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@FUZZ
@given(st.data())
def test_odd_request_is_no_fault_of_the_server_and_writes_nothing_if_refused(
    wire: Wire, method: MethodDescriptor, data: st.DataObject
) -> None:
    request: Any = good_request(method.name)
    run_id = ""
    if method.name in _OF_RUN:
        run_id = request.workflow_execution.run_id = wire.start("nobody")
    elif method.name in _OF_DECISION:
        request.task_token = wire.take_decision()
    elif method.name in _OF_ACTIVITY:
        request.task_token = wire.take_activity()
    change = data.draw(wire.messages.of(method.input_type))
    for field, value in change.ListFields():
        if data.draw(st.booleans()):
            part = type(request)()
            part.CopyFrom(change)
            for other, _ in change.ListFields():
                if other.name != field.name:
                    part.ClearField(other.name)
            del value
            request.ClearField(field.name)
            request.MergeFrom(part)
    before = wire.written(method.name, run_id)
    code, response = wire.send(method.name, request.SerializeToString())
    assert code not in _FAULTS, wire.process.output[-5000:]
    if method.name == "RespondTasks" and code is grpc.StatusCode.OK:
        results = worker_service_pb2.RespondTasksResponse.FromString(response).results
        assert not {result.error.code for result in results} & {code.value[0] for code in _FAULTS}
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        assert wire.written(method.name, run_id) == before


def test_every_run_that_odd_requests_left_is_read_from_the_log(wire: Wire) -> None:
    """Runs after those above; memory is gone with the process."""
    runs = audit_log(wire.dsn)
    asyncio.run(wire.process.restart())
    with grpc.insecure_channel(wire.process.address) as channel:
        fresh = Wire(wire.process, channel, wire.dsn, wire.messages)
        for run_id, run in runs.items():
            describe: Any = workflow_service_pb2.DescribeWorkflowRequest(namespace="default")
            describe.workflow_execution.workflow_id = run.state.key.workflow_id
            describe.workflow_execution.run_id = run_id
            assert fresh.ask("DescribeWorkflow", describe).HasField("workflow_execution_info")
