"""DescribeWorkflow: what is known of a run now."""

from aetheris.api.v1 import workflow_service_pb2
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.runs.updates import describe_admitted
from aetheris_server.history.state.registry import RUN_MACHINES
from aetheris_server.history.state.waits import wait_reasons

Response = workflow_service_pb2.DescribeWorkflowResponse


async def describe_workflow(
    runs: Runs, namespace_id: str, request: workflow_service_pb2.DescribeWorkflowRequest
) -> Response:
    """Show a run as it is on disk, and which workers have its tasks.

    Raises:
        WorkflowNotFoundError: There is no such run.
    """
    execution = request.workflow_execution
    run = await runs.load(namespace_id, execution.workflow_id, execution.run_id)
    response = Response()
    for describe in RUN_MACHINES.describe:
        describe(run.state, run.inflight, response)
    describe_admitted(run, response)
    response.wait_reasons.extend(wait_reasons(run.state, run.inflight, runs.time_of(run)))
    await run.wait_committed()
    return response
