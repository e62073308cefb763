"""DescribeWorkflow: what is known of a run now."""

from aetheris.api.v1 import workflow_service_pb2
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.state.registry import RUN_MACHINES

Response = workflow_service_pb2.DescribeWorkflowResponse


async def describe_workflow(
    engine: Engine, namespace_id: str, request: workflow_service_pb2.DescribeWorkflowRequest
) -> Response:
    """Show a run as it is on disk, and which workers have its tasks.

    Raises:
        WorkflowNotFoundError: There is no such run.
    """
    execution = request.workflow_execution
    run = await engine.load(namespace_id, execution.workflow_id, execution.run_id)
    response = Response()
    for describe in RUN_MACHINES.describe:
        describe(run.state, run.inflight, response)
    await run.wait_committed()
    return response
