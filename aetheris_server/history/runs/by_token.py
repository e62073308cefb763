"""Finding the run that a worker's token names."""

from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.errors import TaskNotFoundError, WorkflowNotFoundError
from aetheris_server.history.runs.run import LoadedRun
from aetheris_server.history.runs.runs import Runs


async def load_by_token(runs: Runs, token: TaskToken) -> LoadedRun:
    """The run of a task.

    Raises:
        TaskNotFoundError: There is no such run.
    """
    try:
        return await runs.load(token.namespace_id, token.workflow_id, token.run_id)
    except WorkflowNotFoundError as error:
        raise TaskNotFoundError(str(error)) from None
