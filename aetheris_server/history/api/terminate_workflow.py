"""TerminateWorkflow: the run closes at once; its workers are told."""

from aetheris.api.v1 import workflow_service_pb2
from aetheris_server.errors import RequestError
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.machines.lifecycle.close import decide_terminated


async def terminate_workflow(
    runs: Runs,
    namespace_id: str,
    request: workflow_service_pb2.TerminateWorkflowRequest,
) -> workflow_service_pb2.TerminateWorkflowResponse:
    """Close a run; answer when that is on disk.

    Raises:
        WorkflowNotFoundError: There is no such run, or it is of another chain.
        WorkflowClosedError: The run has closed.
    """
    execution = request.workflow_execution
    run = await runs.load(
        namespace_id, execution.workflow_id, execution.run_id, request.first_execution_run_id
    )
    try:
        record = decide_terminated(
            run.state,
            run.inflight,
            reason=request.reason,
            details=request.details if request.HasField("details") else None,
            identity=request.identity,
            request_id=request.request_id,
            now=runs.time_of(run),
        )
    except RequestError:
        # What the refusal goes by may not be on disk yet.
        await run.wait_committed()
        raise
    running = runs.notices.of_all(run)
    if record is not None:
        runs.commit(run, record)
    await run.wait_committed()
    runs.notices.send(running)
    return workflow_service_pb2.TerminateWorkflowResponse()
