"""Answers of workers to tasks: one at a time or many in a call, judged by the same code."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from aetheris.api.v1 import worker_service_pb2
from aetheris_server.config import LimitSettings
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.frontend.checks import worker as checks
from aetheris_server.frontend.namespaces import NamespaceDirectory
from aetheris_server.rpc import table
from aetheris_server.rpc.bounds import check_bounds
from aetheris_server.rpc.errors import to_status
from aetheris_server.rpc.handlers import CallContext
from aetheris_server.rpc.peers import HistoryPeer
from aetheris_server.rpc.table import TaskMethod
from aetheris_server.rpc.tokens import Tokens

__all__ = ["AnsweringServicer", "TaskAnswers", "taken"]

Q = TypeVar("Q", bound=Message)
R = TypeVar("R", bound=Message)

_checks: dict[TaskMethod[Any, Any], Callable[[Any, LimitSettings], None]] = {}


def _check(method: TaskMethod[Q, R], check: Callable[[Q, LimitSettings], None]) -> None:
    """Register the check of a kind of answer."""
    _checks[method] = check


_check(table.RESPOND_WORKFLOW_TASK_COMPLETED, checks.check_respond_workflow_task_completed)
_check(table.RESPOND_WORKFLOW_TASK_FAILED, checks.check_respond_workflow_task_failed)
_check(table.RESPOND_QUERY_TASK_COMPLETED, checks.check_respond_query_task_completed)
_check(table.RESPOND_ACTIVITY_TASK_COMPLETED, checks.check_respond_activity_task_completed)
_check(table.RESPOND_ACTIVITY_TASK_FAILED, checks.check_respond_activity_task_failed)
_check(table.RESPOND_ACTIVITY_TASK_CANCELLED, checks.check_respond_activity_task_cancelled)
_check(table.RECORD_ACTIVITY_TASK_HEARTBEAT, checks.check_record_activity_task_heartbeat)

_METHOD_BY_REQUEST = {method.request.DESCRIPTOR.full_name: method for method in _checks}
_METHODS: Mapping[str, TaskMethod[Any, Any]] = {
    field.name: _METHOD_BY_REQUEST[field.message_type.full_name]
    for field in worker_service_pb2.TaskAnswer.DESCRIPTOR.oneofs_by_name["answer"].fields
}
"""By field in `TaskAnswer` and `TaskAnswerResult`."""


class TaskAnswers:
    """Takes answers to history."""

    def __init__(self, history: HistoryPeer, tokens: Tokens) -> None:
        self._history = history
        self._tokens = tokens

    async def take(
        self, method: TaskMethod[Q, R], namespace_id: str, request: Q, limits: LimitSettings
    ) -> R:
        """Find out what one answer is about, check it and pass it on; returns its response."""
        token = self._tokens.task_of(namespace_id, request)
        _checks[method](request, limits)
        return await self._history.call(method, token, request)

    async def take_all(
        self,
        namespace: str,
        namespace_id: str,
        answers: Sequence[worker_service_pb2.TaskAnswer],
        limits: LimitSettings,
    ) -> list[worker_service_pb2.TaskAnswerResult]:
        """What became of each answer, in order. One that fails does not touch the others."""
        if len(answers) == 1:
            return [await self._try_take(namespace, namespace_id, answers[0], limits)]
        return await asyncio.gather(
            *(self._try_take(namespace, namespace_id, answer, limits) for answer in answers)
        )

    async def _try_take(
        self,
        namespace: str,
        namespace_id: str,
        answer: worker_service_pb2.TaskAnswer,
        limits: LimitSettings,
    ) -> worker_service_pb2.TaskAnswerResult:
        kind = answer.WhichOneof("answer")
        assert kind is not None, "the batch was checked"
        request = getattr(answer, kind)
        # By keyword arguments: the field to fill is known by its name only.
        result: Any = worker_service_pb2.TaskAnswerResult
        try:
            if request.namespace and request.namespace != namespace:
                raise InvalidArgumentError("namespace", "expected the namespace of the batch")
            request.namespace = namespace
            check_bounds(request, request.ByteSize())
            response = await self.take(_METHODS[kind], namespace_id, request, limits)
            return result(**{kind: response})
        except Exception as error:  # noqa: BLE001 - becomes this answer's status
            status = to_status(error)
            failure = worker_service_pb2.TaskAnswerError(
                code=status.code_number, message=status.message
            )
            if status.detail is not None:
                cast(Any, failure.detail).Pack(status.detail)
            return result(error=failure)


class AnsweringServicer:
    """A servicer with methods that are `taken`."""

    def __init__(self, namespaces: NamespaceDirectory, answers: TaskAnswers) -> None:
        self.namespaces = namespaces
        self.answers = answers


def taken(
    method: TaskMethod[Q, R],
) -> Callable[[AnsweringServicer, Q, CallContext], Coroutine[Any, Any, R]]:
    """A servicer's method for one kind of answer, by its row in the RPC table."""

    async def take(self: AnsweringServicer, request: Q, context: CallContext) -> R:
        del context
        name = cast(Any, request).namespace
        namespace_id = await self.namespaces.id_of(name)
        return await self.answers.take(
            method, namespace_id, request, self.namespaces.limits_of(name)
        )

    return take
