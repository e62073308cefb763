"""Answers of workers to tasks: one at a time or many in a call, judged by the same code.

The table names, for each kind of answer, its field in `TaskAnswer` and `TaskAnswerResult`, its
check, and the method of history that takes it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from aetheris.api.v1 import worker_service_pb2
from aetheris_server.config import LimitSettings
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.frontend.checks import worker as checks
from aetheris_server.rpc.bounds import check_bounds
from aetheris_server.rpc.errors import to_status
from aetheris_server.rpc.peers import HistoryPeer
from aetheris_server.rpc.tokens import Tokens

__all__ = ["TaskAnswers"]

_Check = Callable[[Any, LimitSettings], None]
_Take = Callable[[str, Any], Awaitable[Any]]


class TaskAnswers:
    """Takes answers to history."""

    def __init__(self, history: HistoryPeer, limits: LimitSettings, tokens: Tokens) -> None:
        self._limits = limits
        self._tokens = tokens
        self._kinds: Mapping[str, tuple[_Check, _Take]] = {
            "workflow_task_completed": (
                checks.check_respond_workflow_task_completed,
                history.respond_workflow_task_completed,
            ),
            "workflow_task_failed": (
                checks.check_respond_workflow_task_failed,
                history.respond_workflow_task_failed,
            ),
            "query_task_completed": (
                checks.check_respond_query_task_completed,
                history.respond_query_task_completed,
            ),
            "activity_task_completed": (
                checks.check_respond_activity_task_completed,
                history.respond_activity_task_completed,
            ),
            "activity_task_failed": (
                checks.check_respond_activity_task_failed,
                history.respond_activity_task_failed,
            ),
            "activity_task_cancelled": (
                checks.check_respond_activity_task_cancelled,
                history.respond_activity_task_cancelled,
            ),
            "activity_task_heartbeat": (
                checks.check_record_activity_task_heartbeat,
                history.record_activity_task_heartbeat,
            ),
        }

    async def take(self, kind: str, namespace_id: str, request: Any) -> Any:
        """Check one answer and pass it on; returns its response."""
        check, take = self._kinds[kind]
        checks.check_task_token(request.task_token, namespace_id, self._tokens)
        check(request, self._limits)
        return await take(namespace_id, request)

    async def take_all(
        self,
        namespace: str,
        namespace_id: str,
        answers: Sequence[worker_service_pb2.TaskAnswer],
    ) -> list[worker_service_pb2.TaskAnswerResult]:
        """What became of each answer, in order. One that fails does not touch the others."""
        if len(answers) == 1:
            return [await self._try_take(namespace, namespace_id, answers[0])]
        return await asyncio.gather(
            *(self._try_take(namespace, namespace_id, answer) for answer in answers)
        )

    async def _try_take(
        self, namespace: str, namespace_id: str, answer: worker_service_pb2.TaskAnswer
    ) -> worker_service_pb2.TaskAnswerResult:
        kind = answer.WhichOneof("answer")
        assert kind is not None, "the batch was checked"
        request = getattr(answer, kind)
        # By keyword arguments: the field to fill is known by its name only.
        result: Any = worker_service_pb2.TaskAnswerResult
        try:
            if request.namespace and request.namespace != namespace:
                raise InvalidArgumentError("namespace", "expected the namespace of the batch")
            check_bounds(request, request.ByteSize())
            return result(**{kind: await self.take(kind, namespace_id, request)})
        except Exception as error:  # noqa: BLE001 - becomes this answer's status
            status = to_status(error)
            failure = worker_service_pb2.TaskAnswerError(
                code=status.code_number, message=status.message
            )
            if status.detail is not None:
                cast(Any, failure.detail).Pack(status.detail)
            return result(error=failure)
