"""Requests that come again after the run that has recorded them was continued.

    run A: recorded ──continued──► run B          the answer was lost on its way
                                   ▲ the same request, for the newest run: recorded by A

A client repeats a call for minutes at most, so only a young run asks the one that it continues.
"""

from collections.abc import Callable
from datetime import timedelta

from aetheris.api.v1 import common_pb2
from aetheris_server.errors import WorkflowNotFoundError
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs
from aetheris_server.history.state.run import RunState

_YOUNG = timedelta(minutes=10)


async def load_for_request(
    runs: Runs,
    namespace_id: str,
    execution: common_pb2.WorkflowExecution,
    first_run_id: str,
    is_recorded: Callable[[RunState], bool],
) -> LoadedRun:
    """The run that a request is about; where the one that it continues has recorded the request,
    that one.

    What follows its return without an await works on the run's latest state.

    Raises:
        WorkflowNotFoundError: There is no such run, or it is of another chain.
    """
    asked = (namespace_id, execution.workflow_id, execution.run_id, first_run_id)
    run = await runs.load(*asked)
    while previous_id := _young_predecessor(runs, run):
        if is_recorded(run.state):
            return run
        try:
            previous = await runs.load(namespace_id, execution.workflow_id, previous_id)
        except WorkflowNotFoundError:
            return await runs.load(*asked)
        if is_recorded(previous.state):
            return previous
        known, run = run, await runs.load(*asked)
        if run.key == known.key:
            return run
    return run


def _young_predecessor(runs: Runs, run: LoadedRun) -> str:
    """The run that this one continues; empty if there is none, or nobody repeats calls to it."""
    previous_id = run.state.started.continued_execution_run_id
    if previous_id and runs.time_of(run) - run.state.start_time > _YOUNG:
        return ""
    return previous_id
