"""Waiting for what runs do: their results and their events, by long polls that outlast server
restarts.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Final, assert_never

from aetheris.api.v1.common_pb2 import Payloads, WorkflowExecution
from aetheris.api.v1.failure_pb2 import Failure
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris.api.v1.workflow_service_pb2 import (
    GetWorkflowHistoryRequest,
    PollWorkflowResultRequest,
    WorkflowResult,
)
from aetheris_client import errors
from aetheris_client.connection import Connection
from aetheris_client.descriptions import status_from_proto
from aetheris_client.enums import WorkflowStatus
from aetheris_client.errors import (
    CancelledError,
    DeadlineExceededError,
    FailureError,
    TerminatedError,
    TimeoutType,
    WorkflowContinuedAsNewError,
    WorkflowFailedError,
)
from aetheris_client.failure import from_failure
from aetheris_client.rpc_outbound import ClientConfig
from aetheris_client.times import to_duration

RESULT_WAIT_TIMEOUT: Final = timedelta(seconds=20)
"""How long the server is asked to wait in one call; well under what proxies cut."""

# An attempt without an answer after this is lost: no server waits as long.
_ATTEMPT_TIMEOUT: Final = 90.0
# How long a cluster may be away before those who wait for it are told.
_OUTAGE_TIMEOUT: Final = 300.0
# A server that is about to stop answers polls at once; asking again at once would be a hot loop.
_MIN_POLL_SECONDS: Final = 0.25


class RunWatcher:
    """Waits for runs of one namespace."""

    def __init__(self, connection: Connection, config: ClientConfig) -> None:
        self._connection = connection
        self._config = config

    async def wait_result(
        self,
        workflow_id: str,
        run_id: str,
        *,
        first_execution_run_id: str = "",
        known: WorkflowResult | None = None,
        follow_runs: bool = True,
        timeout: timedelta | None = None,
    ) -> Payloads:
        """Wait until a run, and those that continue it, have closed, and give the last one's
        result.

        Args:
            workflow_id: Of the run.
            run_id: Of the run; empty for the newest.
            first_execution_run_id: Only a run of the chain that this one began; empty for any.
            known: How the run closed, if the caller knows it already.
            follow_runs: Go on with the run that continues a closed one.
            timeout: How long to wait; None waits as long as the run takes.

        Raises:
            WorkflowFailedError: The last run did not complete.
            WorkflowContinuedAsNewError: The run goes on as another, which is not followed.
            DeadlineExceededError: It was still open after `timeout`.
            RpcError: There is no such run, or no server for minutes.
        """
        seconds = None if timeout is None else timeout.total_seconds()
        deadline = asyncio.timeout(seconds)
        try:
            async with deadline:
                while True:
                    result = known
                    if result is None:
                        run_id, result = await self._wait_closed(
                            workflow_id, run_id, first_execution_run_id
                        )
                    known = None
                    if not (result.new_execution_run_id and follow_runs):
                        return await self._outcome(workflow_id, run_id, result)
                    run_id = result.new_execution_run_id
        except TimeoutError:
            if seconds is None or not deadline.expired():
                # Not this wait's.
                raise
            run = f" run {run_id!r}" if run_id else ""
            raise DeadlineExceededError(
                f"workflow {workflow_id!r}{run} is still open after {seconds:g} s"
            ) from None

    async def events(
        self, workflow_id: str, run_id: str, *, page_size: int = 0, wait_new_event: bool = False
    ) -> AsyncIterator[HistoryEvent]:
        """A run's events in order; with `wait_new_event`, until it closes, those to come too."""
        request = GetWorkflowHistoryRequest(
            namespace=self._config.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            page_size=page_size,
            wait_new_event=wait_new_event,
        )
        loop = asyncio.get_running_loop()
        while True:
            poll_start = loop.time()
            response = await self._connection.call(
                lambda stubs: stubs.workflow_service.GetWorkflowHistory,
                request,
                _OUTAGE_TIMEOUT,
                _ATTEMPT_TIMEOUT,
            )
            if self._config.converter.codec is not None:
                await self._config.converter.codec.decode_message(response)
            for event in response.history.events:
                yield event
            if not response.next_page_token:
                return
            request.page_token = response.next_page_token
            if not response.history.events:
                await self._pause_after_short_poll(poll_start)

    async def _wait_closed(
        self, workflow_id: str, run_id: str, first_execution_run_id: str
    ) -> tuple[str, WorkflowResult]:
        """The run that was watched, which for an empty run_id only the server knows, and its
        result.
        """
        request = PollWorkflowResultRequest(
            namespace=self._config.namespace,
            workflow_execution=WorkflowExecution(workflow_id=workflow_id, run_id=run_id),
            wait_timeout=to_duration(RESULT_WAIT_TIMEOUT),
            first_execution_run_id=first_execution_run_id,
        )
        loop = asyncio.get_running_loop()
        while True:
            poll_start = loop.time()
            response = await self._connection.call(
                lambda stubs: stubs.workflow_service.PollWorkflowResult,
                request,
                _OUTAGE_TIMEOUT,
                _ATTEMPT_TIMEOUT,
            )
            if response.HasField("result"):
                return response.run_id, response.result
            request.workflow_execution.run_id = response.run_id
            await self._pause_after_short_poll(poll_start)

    async def _pause_after_short_poll(self, poll_start: float) -> None:
        elapsed = asyncio.get_running_loop().time() - poll_start
        if elapsed < _MIN_POLL_SECONDS:
            await asyncio.sleep(self._connection.backoff.maximum / 4)

    async def _outcome(self, workflow_id: str, run_id: str, result: WorkflowResult) -> Payloads:
        """What a closed run returned.

        Raises:
            AetherisError: It did not complete.
        """
        status = status_from_proto(result.status)
        if status is WorkflowStatus.COMPLETED:
            return result.result
        if status is WorkflowStatus.CONTINUED_AS_NEW:
            raise WorkflowContinuedAsNewError(workflow_id, run_id, result.new_execution_run_id)
        cause = await self._read_failure(result.failure) if result.HasField("failure") else None
        raise WorkflowFailedError(
            workflow_id, run_id, status.value, cause or _implied_cause(status)
        )

    async def _read_failure(self, failure: Failure) -> FailureError:
        converter = self._config.converter
        if converter.codec is not None:
            await converter.codec.decode_message(failure)
        return from_failure(failure, converter)


def _implied_cause(status: WorkflowStatus) -> FailureError | None:
    """What a status says by itself, where the server sent no failure."""
    match status:
        case WorkflowStatus.CANCELLED:
            return CancelledError()
        case WorkflowStatus.TERMINATED:
            return TerminatedError()
        case WorkflowStatus.TIMED_OUT:
            return errors.TimeoutError(type=TimeoutType.START_TO_CLOSE)
        case (
            WorkflowStatus.UNSPECIFIED
            | WorkflowStatus.RUNNING
            | WorkflowStatus.PAUSED
            | WorkflowStatus.COMPLETED
            | WorkflowStatus.FAILED
            | WorkflowStatus.CONTINUED_AS_NEW
        ):
            return None
        case _:
            assert_never(status)
