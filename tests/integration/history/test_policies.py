"""What a frontend of a newer version let pass, and this one does not know: refused by its field."""

import pytest

from aetheris.api.v1 import workflow_pb2, workflow_service_pb2
from aetheris_server.errors import InvalidArgumentError
from tests.support.history_host import NAMESPACE_ID, history_bench, start_request

pytestmark = pytest.mark.integration

_NEWER = 99


async def test_conflict_policy_of_a_newer_version_is_refused_by_its_field(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
        request = start_request("w")
        request.workflow_id_conflict_policy = workflow_pb2.WorkflowIdConflictPolicy.ValueType(
            _NEWER
        )
        with pytest.raises(InvalidArgumentError, match="found 99") as refused:
            await bench.service.start_workflow(NAMESPACE_ID, request)
        assert refused.value.field == "workflow_id_conflict_policy"


async def test_reuse_policy_of_a_newer_version_is_refused_by_its_field(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
        terminate = workflow_service_pb2.TerminateWorkflowRequest(request_id="t")
        terminate.workflow_execution.workflow_id = "w"
        await bench.service.terminate_workflow(NAMESPACE_ID, terminate)
        request = start_request("w")
        request.workflow_id_reuse_policy = workflow_pb2.WorkflowIdReusePolicy.ValueType(_NEWER)
        with pytest.raises(InvalidArgumentError, match="found 99") as refused:
            await bench.service.start_workflow(NAMESPACE_ID, request)
        assert refused.value.field == "workflow_id_reuse_policy"


async def test_reject_condition_of_a_newer_version_is_refused_by_its_field(
    migrated_postgres_dsn: str,
) -> None:
    async with history_bench(migrated_postgres_dsn) as bench:
        await bench.service.start_workflow(NAMESPACE_ID, start_request("w"))
        request = workflow_service_pb2.QueryWorkflowRequest(query_type="q")
        request.workflow_execution.workflow_id = "w"
        request.query_reject_condition = workflow_service_pb2.QueryRejectCondition.ValueType(_NEWER)
        with pytest.raises(InvalidArgumentError, match="found 99") as refused:
            await bench.service.query_workflow(NAMESPACE_ID, request)
        assert refused.value.field == "query_reject_condition"
