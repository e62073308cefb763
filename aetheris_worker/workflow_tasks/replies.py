"""What the server is told of a task that led to no decision: a failure, or a query's answer."""

import functools
import logging
from typing import Final

from aetheris.api.v1.worker_service_pb2 import (
    TaskAnswer,
    TaskAnswerResult,
    WorkflowQueryResult,
    WorkflowTask,
)
from aetheris_worker.answers import AnswerSender
from aetheris_worker.config import WorkerConfig
from aetheris_worker.slots import Slots
from aetheris_worker.workflow_tasks.outcomes import cause_of, failure_of, query_failed

_LOGGER: Final = logging.getLogger("aetheris.worker")

_NOT_FOUND: Final = 5


class Replies:
    """Sends them. The task's slot is given back when the server has its reply."""

    def __init__(self, config: WorkerConfig, sender: AnswerSender, slots: Slots) -> None:
        self._config = config
        self._sender = sender
        self._slots = slots

    def fail(self, task: WorkflowTask, reason: BaseException | None) -> None:
        """Say that the task, or the query, led to this."""
        error = reason if isinstance(reason, Exception) else RuntimeError(f"ended by {reason!r}")
        if task.HasField("query"):
            self.send_query_result(task, query_failed(error, self._config.converter))
            return
        _LOGGER.error("workflow task of %s failed", label_of(task), exc_info=error)
        self.send_failure(task, error)

    def send_failure(self, task: WorkflowTask, error: Exception) -> None:
        """Say that no decision could be made, and why."""
        answer = TaskAnswer()
        failed = answer.workflow_task_failed
        failed.task_token = task.task_token
        failed.identity = self._config.identity
        failed.cause = cause_of(error)
        failed.failure.CopyFrom(failure_of(error, self._config.converter))
        self._sender.send_nowait(answer, functools.partial(self._on_sent, task))

    def send_query_result(self, task: WorkflowTask, result: WorkflowQueryResult) -> None:
        """Answer the query that the task is."""
        answer = TaskAnswer()
        completed = answer.query_task_completed
        completed.task_token = task.task_token
        completed.identity = self._config.identity
        completed.result.CopyFrom(result)
        self._sender.send_nowait(answer, functools.partial(self._on_sent, task))

    def _on_sent(self, task: WorkflowTask, result: TaskAnswerResult) -> None:
        if result.HasField("error"):
            log_refused(task, result)
        self._slots.give_back()


def label_of(task: WorkflowTask) -> str:
    """The run, as logs name it."""
    return f"{task.workflow_type.name} {task.workflow_execution.workflow_id!r}"


def log_refused(task: WorkflowTask, result: TaskAnswerResult, message: str = "") -> None:
    """Note that the server did not take an answer, in its words unless there are better ones."""
    error = result.error
    # A stale task is an everyday thing: it timed out, or the run was terminated.
    level = logging.DEBUG if error.code == _NOT_FOUND else logging.WARNING
    _LOGGER.log(
        level, "the answer for %s was not taken: %s", label_of(task), message or error.message
    )
