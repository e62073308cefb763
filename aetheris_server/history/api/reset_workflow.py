"""ResetWorkflow: a workflow id's run begins again from a point of it, and the open one is closed:
both are written, or neither.
"""

from collections.abc import Sequence
from datetime import datetime

from aetheris.api.v1 import history_pb2, workflow_service_pb2
from aetheris.server.v1 import log_pb2, reset_pb2
from aetheris_server.errors import WorkflowNotFoundError
from aetheris_server.history.runs.beginning import find_begun_by, start_time_after
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.runs.sources import Copy, Sources, find_point
from aetheris_server.history.state.machines.lifecycle.close import decide_terminated
from aetheris_server.history.state.machines.reset import append_reset_to
from aetheris_server.history.state.reset.new_run import NewRun, NewRunBuilder
from aetheris_server.history.state.run import RunKey
from aetheris_server.history.times import to_timestamp
from aetheris_server.ids import new_run_id
from aetheris_server.storage.executions import NewestRun

ResetRequest = workflow_service_pb2.ResetWorkflowRequest


async def reset_workflow(
    runs: Runs, namespace_id: str, request: ResetRequest
) -> workflow_service_pb2.ResetWorkflowResponse:
    """Make the new run; answer when it is on disk. A request that has made one gets that.

    Raises:
        WorkflowNotFoundError: There is no such run.
        InvalidArgumentError: It has no such point, or is more than a new run can take.
        RunUnreadableError: What is stored of it cannot be used.
    """
    run_id: str | None = None
    async with runs.copying:
        while run_id is None:
            run_id = await _try_reset(runs, namespace_id, request)
    return workflow_service_pb2.ResetWorkflowResponse(run_id=run_id)


async def _try_reset(runs: Runs, namespace_id: str, request: ResetRequest) -> str | None:
    """The new run; None if another began meanwhile, or the open one has closed."""
    workflow_id = request.workflow_execution.workflow_id
    newest = await runs.load_newest(namespace_id, workflow_id)
    if newest is None:
        raise WorkflowNotFoundError(workflow_id, request.workflow_execution.run_id)
    earlier = await find_begun_by(runs, namespace_id, workflow_id, request.request_id, newest)
    if earlier is not None:
        run = await runs.load(namespace_id, workflow_id, earlier)
        await run.wait_committed()
        return earlier
    base_id = request.workflow_execution.run_id or newest.run_id
    base = await runs.load(namespace_id, workflow_id, base_id)
    await base.wait_committed()
    point = await find_point(runs.db, base.shard_id, base_id, request.point)
    new_run = NewRun(
        RunKey(namespace_id, workflow_id, new_run_id()),
        base.key,
        point,
        request.reapply_exclude,
        request.reason,
        request.identity,
        request.request_id,
    )
    copy = Copy(runs, new_run.key, repeats_id=True)
    builder = NewRunBuilder(new_run, start_time_after(runs, newest), copy.fold)
    sources = Sources(runs.db, base.shard_id, builder)
    await sources.read()
    return await _try_commit(runs, request, newest, builder, sources, copy)


async def _try_commit(
    runs: Runs,
    request: ResetRequest,
    newest: NewestRun,
    builder: NewRunBuilder,
    sources: Sources,
    copy: Copy,
) -> str | None:
    key, base_key = builder.run.key, builder.run.base
    while True:
        current = await runs.load(key.namespace_id, key.workflow_id, newest.run_id)
        base = await runs.load(key.namespace_id, key.workflow_id, base_key.run_id)
        if newest != await runs.load_newest(key.namespace_id, key.workflow_id):
            return None
        if current.is_dropped or base.is_dropped:
            continue
        # From here on nothing awaits, unless memory has less than it takes.
        now = max(runs.clock.now(), *(runs.time_of(run) for run in (current, base)))
        terminated = _decide_terminated(current, request, key, now)
        closing: Sequence[history_pb2.HistoryEvent] = terminated.events if terminated else ()
        if not current.state.is_open or sources.try_take_newest(current, closing):
            break
        await current.wait_committed()
        await sources.read_on()
    reset_to = reset_pb2.ResetTo(
        run_id=key.run_id,
        reset_time=to_timestamp(now),
        reason=request.reason,
        identity=request.identity,
    )
    changes: list[tuple[LoadedRun, log_pb2.LogRecord]] = []
    noted = log_pb2.LogRecord(time=to_timestamp(now))
    if terminated is not None:
        changes.append((current, terminated))
    if terminated is not None and current is base:
        noted = terminated
    else:
        changes.append((base, noted))
    append_reset_to(noted, reset_to)
    running = runs.notices.of_all(current)
    transition = runs.begin(copy.finish(builder.finish(now)), *changes)
    await transition.ticket.wait()
    runs.notices.send(running)
    return key.run_id


def _decide_terminated(
    current: LoadedRun, request: ResetRequest, key: RunKey, now: datetime
) -> log_pb2.LogRecord | None:
    """Close the open run; None if the newest one has closed."""
    if not current.state.is_open:
        return None
    reason = f": {request.reason}" if request.reason else ""
    return decide_terminated(
        current.state,
        current.inflight,
        reason=f"reset to run {key.run_id}{reason}",
        details=None,
        identity=request.identity,
        request_id=request.request_id,
        now=now,
    )
