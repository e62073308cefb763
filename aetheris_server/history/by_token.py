"""Finding the run that a worker's token names."""

from aetheris.server.v1 import token_pb2
from aetheris_server.errors import InvalidArgumentError, TaskNotFoundError, WorkflowNotFoundError
from aetheris_server.history.engine import Engine
from aetheris_server.history.run import LoadedRun


async def load_by_token(
    engine: Engine, namespace_id: str, task_token: bytes
) -> tuple[LoadedRun, token_pb2.TaskToken]:
    """The run of a task, and what the task's token says.

    Raises:
        InvalidArgumentError: The token is not of this cluster or of another namespace.
        TaskNotFoundError: There is no such run.
    """
    token = engine.tokens.open_task(task_token)
    if token.namespace_id != namespace_id:
        raise InvalidArgumentError("task_token", "the token is of another namespace")
    try:
        run = await engine.load(namespace_id, token.workflow_id, token.run_id)
    except WorkflowNotFoundError as error:
        raise TaskNotFoundError(str(error)) from None
    return run, token
