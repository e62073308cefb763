"""ForkWorkflow: a run begins as another one did, under a workflow id of its own.

The other may be in a shard of another host: it is read from the disk, and does not change.
"""

from aetheris.api.v1 import workflow_service_pb2
from aetheris_server.errors import (
    InvalidArgumentError,
    WorkflowAlreadyStartedError,
    WorkflowNotFoundError,
)
from aetheris_server.history.aggregates.checks import check_key
from aetheris_server.history.runs.beginning import find_begun_by, start_time_after
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.runs.sources import Copy, Sources, find_point
from aetheris_server.history.state.reset.new_run import NewRun, NewRunBuilder
from aetheris_server.history.state.run import RunKey
from aetheris_server.ids import new_run_id
from aetheris_server.storage.executions import load_executions, load_newest_runs

ForkRequest = workflow_service_pb2.ForkWorkflowRequest


async def fork_workflow(
    runs: Runs, namespace_id: str, request: ForkRequest
) -> workflow_service_pb2.ForkWorkflowResponse:
    """Make the new run; answer when it is on disk. A request that has made one gets that.

    Raises:
        WorkflowAlreadyStartedError: An open run has the workflow id.
        WorkflowNotFoundError: There is no such run to take it from.
        InvalidArgumentError: That has no such point, or is more than a new run can take.
        RunUnreadableError: What is stored of it cannot be used.
    """
    if request.workflow_id == request.workflow_execution.workflow_id:
        raise InvalidArgumentError(
            "workflow_id", "found that of the run to fork, expected another one"
        )
    run_id: str | None = None
    async with runs.copying:
        while run_id is None:
            run_id = await _try_fork(runs, namespace_id, request)
    return workflow_service_pb2.ForkWorkflowResponse(run_id=run_id)


async def _try_fork(runs: Runs, namespace_id: str, request: ForkRequest) -> str | None:
    """The new run; None if another of the workflow id began meanwhile."""
    workflow_id = request.workflow_id
    newest = await runs.load_newest(namespace_id, workflow_id)
    if newest is not None:
        earlier = await find_begun_by(runs, namespace_id, workflow_id, request.request_id, newest)
        if earlier is not None:
            run = await runs.load(namespace_id, workflow_id, earlier)
            await run.wait_committed()
            return earlier
        if newest.close_time is None:
            raise WorkflowAlreadyStartedError(workflow_id, newest.run_id, newest.start_request_id)
    shard_id, base = await _find_base(runs, namespace_id, request)
    point = await find_point(runs.db, shard_id, base.run_id, request.point)
    new_run = NewRun(
        RunKey(namespace_id, workflow_id, new_run_id()),
        base,
        point,
        request.reapply_exclude,
        request.reason,
        request.identity,
        request.request_id,
    )
    copy = Copy(runs, new_run.key, repeats_id=newest is not None)
    builder = NewRunBuilder(new_run, start_time_after(runs, newest), copy.fold)
    await Sources(runs.db, shard_id, builder).read()
    builder.later.end_run(is_buffer_flushed=False)
    if newest != await runs.load_newest(namespace_id, workflow_id):
        return None
    # Nothing awaits until all is queued.
    last = builder.finish(max(runs.clock.now(), builder.start_time))
    transition = runs.begin(copy.finish(last))
    await transition.ticket.wait()
    return new_run.key.run_id


async def _find_base(runs: Runs, namespace_id: str, request: ForkRequest) -> tuple[int, RunKey]:
    """The run to fork, and its shard."""
    execution = request.workflow_execution
    workflow_id, run_id = execution.workflow_id, execution.run_id
    check_key(namespace_id, workflow_id, "workflow_execution.workflow_id")
    shard_id = runs.shard_id_of(namespace_id, workflow_id)
    if not run_id:
        key = (shard_id, namespace_id, workflow_id)
        newest = (await load_newest_runs(runs.db, [key])).get(key)
        if newest is None:
            raise WorkflowNotFoundError(workflow_id)
        return shard_id, RunKey(namespace_id, workflow_id, newest.run_id)
    for row in await load_executions(runs.db, [(shard_id, run_id)]):
        if row.namespace_id == namespace_id and row.workflow_id == workflow_id:
            return shard_id, RunKey(namespace_id, workflow_id, row.run_id)
    raise WorkflowNotFoundError(workflow_id, run_id)
