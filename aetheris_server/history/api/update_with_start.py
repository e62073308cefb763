"""UpdateWithStartWorkflow: a run, started or found, and an update of it.

The first workflow task of a run that is started brings the update along.
"""

from aetheris.api.v1 import workflow_service_pb2
from aetheris_server.history.api.start_workflow import start_workflow
from aetheris_server.history.api.update_workflow import try_admit, update_workflow
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.machines.update.values import find_update

Response = workflow_service_pb2.UpdateWithStartWorkflowResponse


async def update_with_start_workflow(
    runs: Runs,
    namespace_id: str,
    request: workflow_service_pb2.UpdateWithStartWorkflowRequest,
) -> Response:
    """Start a run, or find the open one, and follow an update of it.

    A request that comes again finds its update also in a run that has closed since.

    Raises:
        WorkflowAlreadyStartedError: A run has the workflow id, and the policies forbid this.
        RequestError: See `update_workflow`; the run has been started all the same.
    """
    update = request.update
    response = Response()
    run_id = await _find_closed(runs, namespace_id, request)
    if run_id:
        response.start.run_id = run_id
    else:

        def admit(run: LoadedRun) -> None:
            try_admit(runs, run, update.request.update_id, update.request)

        # Before its first workflow task is offered to anybody.
        response.start.CopyFrom(
            await start_workflow(runs, namespace_id, request.start, on_begun=admit)
        )
    update.workflow_execution.workflow_id = request.start.workflow_id
    update.workflow_execution.run_id = response.start.run_id
    response.update.CopyFrom(await update_workflow(runs, namespace_id, update))
    return response


async def _find_closed(
    runs: Runs,
    namespace_id: str,
    request: workflow_service_pb2.UpdateWithStartWorkflowRequest,
) -> str:
    """The newest run, if it has closed and knows the update; else empty."""
    newest = await runs.load_newest(namespace_id, request.start.workflow_id)
    if newest is None or newest.close_time is None:
        return ""
    run = await runs.load(namespace_id, request.start.workflow_id, newest.run_id)
    is_known = find_update(run.state, request.update.request.update_id) is not None
    return newest.run_id if is_known else ""
