"""Sends answers to the server, many in one call.

Answers that get ready while a call is in flight wait and go out together in the next one: the
busier the worker, the fewer calls per answer. Two calls may be in flight, so that one slow commit
does not hold up the rest. An answer is repeated until the server has taken it or its time is up;
repeating does no harm, since the server takes each once and calls the next ones stale.
"""

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import grpc

from aetheris.api.v1.worker_service_pb2 import (
    RespondTasksRequest,
    RespondTasksResponse,
    TaskAnswer,
    TaskAnswerError,
    TaskAnswerResult,
)
from aetheris_client.codec import BoundedCodec
from aetheris_client.errors import CodecError

_LOGGER: Final = logging.getLogger("aetheris.worker")

MAX_ANSWERS: Final = 1_000
# Half of what the server accepts in one message; a single larger answer still goes out alone.
MAX_BYTES: Final = 2 * 1024 * 1024
# Below what the server accepts in one message: what it refuses beyond this may be too large.
LARGE_BYTES: Final = 7 * 1024 * 1024
CALLS_IN_FLIGHT: Final = 2
CALL_TIMEOUT: Final = 30.0
FIRST_BACKOFF: Final = 0.05
MAX_BACKOFF: Final = 2.0

# A broken connection shows as UNAVAILABLE or INTERNAL, a restarting proxy also as UNKNOWN.
_PASSING: Final[frozenset[int]] = frozenset(
    code.value[0]
    for code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    )
)

_CANCELLED: Final = 1
_INVALID_ARGUMENT: Final = 3
# In the text of gRPC, which has no code of its own for it.
_TOO_LARGE: Final = "larger than max"

Deliver = Callable[[TaskAnswerResult], None]


@dataclass(slots=True)
class _Outgoing:
    answer: TaskAnswer
    deliver: Deliver
    give_up_time: float
    is_wanted: Callable[[], bool]
    is_encoded: bool = False


class AnswerSender:
    """Owns the calls in flight. `send_nowait` from the event loop's thread only."""

    def __init__(
        self,
        respond: grpc.aio.UnaryUnaryMultiCallable[RespondTasksRequest, RespondTasksResponse],
        namespace: str,
        answer_timeout: float,
        codec: BoundedCodec | None = None,
    ) -> None:
        self._respond = respond
        self._namespace = namespace
        self._answer_timeout = answer_timeout
        self._codec = codec
        self._queue: deque[_Outgoing] = deque()
        self._idle_lanes: deque[asyncio.Future[None]] = deque()
        self._unanswered_count = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_failing = False
        self._max_answers = MAX_ANSWERS

    def send_nowait(
        self, answer: TaskAnswer, deliver: Deliver, is_wanted: Callable[[], bool] = lambda: True
    ) -> None:
        """Have an answer sent; `deliver` gets what became of it, exactly once.

        Where the time was up or the whole call was refused, that is an error with the call's code.
        One that is not wanted any more when its turn comes is not sent, and counts as cancelled.
        The queue is bounded by the worker's slots: nobody answers what it was not given.
        """
        give_up_time = asyncio.get_running_loop().time() + self._answer_timeout
        self._unanswered_count += 1
        self._idle.clear()
        self._queue.append(_Outgoing(answer, deliver, give_up_time, is_wanted))
        self._wake_lane()

    async def run(self) -> None:
        """Send until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            for _ in range(CALLS_IN_FLIGHT):
                lanes.create_task(self._run_lane())

    @property
    def is_idle(self) -> bool:
        """Nothing is left to send, and no answer's fate is open."""
        return self._unanswered_count == 0

    async def wait_idle(self) -> None:
        """Return once it is idle."""
        await self._idle.wait()

    async def _run_lane(self) -> None:
        attempt = 0
        while True:
            batch = await self._next_batch()
            if self._codec is not None:
                batch = await self._encode(batch, self._codec)
            error = await self._send(batch) if batch else None
            if error is None:
                attempt = 0
                continue
            attempt += 1
            await asyncio.sleep(_backoff(attempt))

    async def _next_batch(self) -> list[_Outgoing]:
        while not self._queue:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle_lanes.append(waiter)
            await waiter
        batch: list[_Outgoing] = []
        size = 0
        while self._queue and len(batch) < self._max_answers:
            if not self._queue[0].is_wanted():
                unwanted = TaskAnswerError(code=_CANCELLED, message="not wanted any more")
                self._finish(self._queue.popleft(), TaskAnswerResult(error=unwanted))
                continue
            size += self._queue[0].answer.ByteSize()
            if batch and size > MAX_BYTES:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _encode(self, batch: list[_Outgoing], codec: BoundedCodec) -> list[_Outgoing]:
        """Pass them through the codec; those that it fails on have their fate."""
        encoded: list[_Outgoing] = []
        for item in batch:
            try:
                if not item.is_encoded:
                    await codec.encode_message(item.answer)
                    item.is_encoded = True
            except CodecError as error:
                refused = TaskAnswerError(code=_INVALID_ARGUMENT, message=str(error))
                self._finish(item, TaskAnswerResult(error=refused))
            else:
                encoded.append(item)
        return encoded

    async def _send(self, batch: list[_Outgoing]) -> grpc.aio.AioRpcError | None:
        """One call. What it could not get through is back in the queue, or has been given up."""
        request = RespondTasksRequest(
            namespace=self._namespace, answers=[item.answer for item in batch]
        )
        try:
            response = await self._respond(request, timeout=CALL_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            self._on_failed_call(batch, request.ByteSize(), error)
            return error
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            # Unnoticed, the worker would go on and never answer again.
            raise RuntimeError("the connection was closed while the worker used it") from error
        self._is_failing = False
        self._max_answers = min(MAX_ANSWERS, self._max_answers * 2)
        for item, result in zip(batch, response.results, strict=True):
            self._finish_or_retry(item, result, first=False)
        return None

    def _on_failed_call(
        self, batch: list[_Outgoing], size: int, error: grpc.aio.AioRpcError
    ) -> None:
        code: int = error.code().value[0]
        text = error.details() or ""
        failed = TaskAnswerResult(error=TaskAnswerError(code=code, message=text))
        self._note_failing(error)
        is_exhausted = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        if is_exhausted and len(batch) == 1 and (size > LARGE_BYTES or _TOO_LARGE in text):
            # A message that is too large by itself stays so.
            self._finish(batch[0], failed)
            return
        if is_exhausted:
            self._max_answers = max(1, len(batch) // 2)
        for item in reversed(batch):
            self._finish_or_retry(item, failed, first=True)

    def _finish_or_retry(self, item: _Outgoing, result: TaskAnswerResult, *, first: bool) -> None:
        loop = asyncio.get_running_loop()
        if not is_passing_error(result) or loop.time() >= item.give_up_time:
            self._finish(item, result)
        elif first:
            self._queue.appendleft(item)
        else:
            # One answer alone met trouble, for example a shard that moves: the lane goes on.
            loop.call_later(_backoff(3), self._requeue, item)

    def _finish(self, item: _Outgoing, result: TaskAnswerResult) -> None:
        try:
            item.deliver(result)
        except (Exception, asyncio.CancelledError):
            # It does not wait, so nobody has cancelled this lane, which the other answers need.
            _LOGGER.exception("what became of an answer could not be delivered")
        self._unanswered_count -= 1
        if self._unanswered_count == 0:
            self._idle.set()

    def _requeue(self, item: _Outgoing) -> None:
        self._queue.append(item)
        self._wake_lane()

    def _wake_lane(self) -> None:
        while self._idle_lanes:
            waiter = self._idle_lanes.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _note_failing(self, error: grpc.aio.AioRpcError) -> None:
        if not self._is_failing:
            self._is_failing = True
            _LOGGER.warning("answers are held up: %s: %s", error.code().name, error.details())


def is_passing_error(result: TaskAnswerResult) -> bool:
    """Whether the answer was not taken, and may be when it is sent again."""
    return result.HasField("error") and result.error.code in _PASSING


def _backoff(attempt: int) -> float:
    ceiling = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(attempt - 1, 10))
    return ceiling * random.uniform(0.5, 1.0)
