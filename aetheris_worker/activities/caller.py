"""Calls the code of attempts, and says as messages what came of them."""

import asyncio
import contextvars
import functools
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from typing import Any, Final, cast

from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.failure_pb2 import Failure
from aetheris_client.converter import DataConverter
from aetheris_client.errors import ApplicationError, CancelledError, PayloadEncodeError
from aetheris_client.failure import recordable, to_failure
from aetheris_client.signatures import signature_of
from aetheris_worker.activities.attempt import CURRENT, Attempt
from aetheris_worker.activities.calls import call_async, call_plain
from aetheris_worker.runtime.definitions import ActivityDefinition

_LOGGER: Final = logging.getLogger("aetheris.worker")


class ActivityCaller:
    """Knows the activities of a worker, and where plain functions run."""

    def __init__(
        self,
        definitions: Mapping[str, ActivityDefinition],
        converter: DataConverter,
        executor: Executor | None,
    ) -> None:
        self._definitions = definitions
        self._converter = converter
        self._executor = executor

    async def call(
        self, attempt: Attempt, definition: ActivityDefinition | None
    ) -> Payloads | None:
        """The result of an attempt, whose input is decoded. In a task of its own.

        Raises:
            ApplicationError: There is no such activity here, or its result does not encode.
            Exception: What the code raised.
        """
        task = attempt.task
        if definition is None:
            raise ApplicationError(
                f"activity type {task.activity_type.name!r} is not registered here; "
                f"there are {sorted(self._definitions)}",
                type="ActivityNotRegistered",
            )
        signature = signature_of(definition.function)
        types = signature.types_of(len(task.input.payloads))
        arguments = self._converter.from_payloads(task.input, types)
        # This task's context is its own: nothing else sees the variable.
        CURRENT.set(attempt)
        if definition.is_async:
            function = cast(Callable[..., Coroutine[Any, Any, object]], definition.function)
            return self._encode(await call_async(function, arguments), signature.result_type)
        call = functools.partial(call_plain, definition.function, arguments)
        in_context = functools.partial(contextvars.copy_context().run, call)
        loop = asyncio.get_running_loop()
        result = await loop.run_in_executor(self._executor, in_context)
        return self._encode(result, signature.result_type)

    def to_failure(self, error: BaseException) -> Failure:
        """What an attempt that raised this is answered with."""
        if isinstance(error, asyncio.CancelledError):
            error = ApplicationError("the activity cancelled itself", type="CancelledError")
        try:
            return to_failure(error, self._converter, drops_details=True)
        except Exception as reason:  # noqa: BLE001 - an attempt always has an answer
            return Failure(message=recordable(reason))

    def cancel_details(self, error: BaseException) -> Payloads | None:
        """What an attempt says along with its cancellation."""
        if not isinstance(error, CancelledError):
            return None
        try:
            return self._converter.to_payloads(error.details)
        except Exception:
            _LOGGER.warning("details of a cancellation do not encode", exc_info=True)
            return None

    def _encode(self, result: object, result_type: object) -> Payloads | None:
        try:
            return self._converter.to_payloads([result], [result_type])
        except PayloadEncodeError as error:
            # Its effects are there; another attempt would have them again and come to the same.
            raise ApplicationError(
                f"the activity's result: {error}", type="PayloadEncodeError", non_retryable=True
            ) from error.__cause__
