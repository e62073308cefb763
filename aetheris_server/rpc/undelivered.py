"""Tasks that were started for a worker and did not reach it go back to history, which offers them
again. Where history does not take them back in time, they time out.
"""

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aetheris.api.v1.worker_service_pb2 import (
    PollActivityTasksResponse,
    PollWorkflowTasksResponse,
)
from aetheris_server.errors import UnavailableError
from aetheris_server.telemetry import counter, get_logger

__all__ = ["TaskReleaser", "release_undelivered", "tokens_of"]

_RELEASE_TIMEOUT = 5.0
_RELEASE_DELAYS = (0.1, 0.5, 2.0)

_UNDELIVERED = counter("undelivered_tasks", "Started tasks that did not reach their worker.")

_log = get_logger(__name__)


class TaskReleaser(Protocol):
    """What takes tasks back: a part of `HistoryPeer`."""

    async def release_tasks(self, task_tokens: Sequence[bytes]) -> None:
        """See `HistoryPeer.release_tasks`."""
        ...


def tokens_of(response: PollWorkflowTasksResponse | PollActivityTasksResponse) -> list[bytes]:
    """The tokens of the tasks in the answer to a poll."""
    return [task.task_token for task in response.tasks]


async def release_undelivered(history: TaskReleaser, task_tokens: Sequence[bytes]) -> None:
    """Give tasks back, with some patience. Raises nothing."""
    if not task_tokens:
        return
    _UNDELIVERED.inc(len(task_tokens))
    for delay in _RELEASE_DELAYS:
        try:
            async with asyncio.timeout(_RELEASE_TIMEOUT):
                await history.release_tasks(task_tokens)
        except (UnavailableError, TimeoutError):
            await asyncio.sleep(delay)
        except Exception:  # noqa: BLE001 - logged whole; whoever noticed can do no more
            _log.exception("tasks could not be released", tasks=len(task_tokens))
            return
        else:
            return
    # History notices by their start-to-close timeouts.
    _log.warning("tasks could not be released", tasks=len(task_tokens))
