"""Finding the run that a worker's token names."""

from aetheris.server.v1.token_pb2 import TaskToken
from aetheris_server.errors import TaskNotFoundError, WorkflowNotFoundError
from aetheris_server.history.engine.engine import Engine
from aetheris_server.history.run import LoadedRun


async def load_by_token(engine: Engine, token: TaskToken) -> LoadedRun:
    """The run of a task.

    Raises:
        TaskNotFoundError: There is no such run.
    """
    try:
        return await engine.load(token.namespace_id, token.workflow_id, token.run_id)
    except WorkflowNotFoundError as error:
        raise TaskNotFoundError(str(error)) from None
