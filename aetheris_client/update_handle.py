"""An update in the client's hands: wait for its outcome."""

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Generic, TypeVar, cast

from aetheris.api.v1.history_pb2 import UpdateOutcome
from aetheris_client.converter import DataConverter
from aetheris_client.definition import NameReference, types_of_call, update_name
from aetheris_client.enums import UpdateStage
from aetheris_client.errors import DeadlineExceededError, WorkflowUpdateFailedError
from aetheris_client.failure import from_failure
from aetheris_client.interceptor import (
    ClientOutbound,
    PollUpdateInput,
    UpdateWorkflowInput,
    new_request_id,
)
from aetheris_client.options import check_options

Result = TypeVar("Result")


class WorkflowUpdateHandle(Generic[Result]):
    """One update of a run.

    Attributes:
        id: The update's id.
        workflow_id: Of its run.
        run_id: The run that has it; None for the newest, as far as is known.
    """

    def __init__(
        self,
        update_id: str,
        workflow_id: str,
        run_id: str | None,
        calls: ClientOutbound,
        converter: DataConverter,
        *,
        result_type: object = None,
        known_outcome: UpdateOutcome | None = None,
    ) -> None:
        self.id = update_id
        self.workflow_id = workflow_id
        self.run_id = run_id
        self._calls = calls
        self._converter = converter
        self._result_type = result_type
        self._known_outcome = known_outcome

    def __repr__(self) -> str:
        return f"WorkflowUpdateHandle(id={self.id!r}, workflow_id={self.workflow_id!r})"

    async def result(self, *, timeout: timedelta | None = None) -> Result:
        """Wait for the update's outcome, and give what its handler returned.

        Raises:
            WorkflowUpdateFailedError: It was rejected, or failed; the cause says why.
            UpdateNotFoundError: The run does not know it: it was admitted only, and the host that
                had it has ended. Ask for it again under the same id.
            DeadlineExceededError: It had no outcome after `timeout`; None waits for as long as it
                takes.
        """
        check_options("result", timeout=timeout)
        if self._known_outcome is None:
            poll = PollUpdateInput(
                self.workflow_id, self.run_id or "", self.id, UpdateStage.COMPLETED
            )
            progress = await within(timeout, self.id, self._calls.poll_workflow_update(poll))
            self.run_id, self._known_outcome = progress.run_id, progress.outcome
        outcome = self._known_outcome
        assert outcome is not None
        if outcome.HasField("failure"):
            cause = from_failure(outcome.failure, self._converter)
            raise WorkflowUpdateFailedError(self.workflow_id, self.run_id or "", self.id, cause)
        results = self._converter.from_payloads(outcome.success, [self._result_type])
        return cast(Result, results[0] if results else None)


def update_input(
    update: NameReference,
    args: tuple[object, ...],
    stage: UpdateStage,
    update_id: str | None,
    workflow_id: str,
    run_id: str = "",
    first_run_id: str = "",
) -> tuple[UpdateWorkflowInput, object]:
    """The call for an update, and the type that its handler is annotated to return."""
    arg_types, result_type = types_of_call(update, len(args))
    request = UpdateWorkflowInput(
        id=workflow_id,
        run_id=run_id,
        update=update_name(update),
        args=args,
        update_id=update_id or new_request_id(),
        wait_stage=stage,
        first_execution_run_id=first_run_id,
        arg_types=arg_types,
    )
    return request, result_type


Waited = TypeVar("Waited")


async def within(timeout: timedelta | None, update_id: str, waiting: Awaitable[Waited]) -> Waited:
    """What is waited for.

    Raises:
        DeadlineExceededError: It took longer than that.
    """
    seconds = None if timeout is None else timeout.total_seconds()
    deadline = asyncio.timeout(seconds)
    try:
        async with deadline:
            return await waiting
    except TimeoutError:
        if seconds is None or not deadline.expired():
            # Not this wait's.
            raise
        raise DeadlineExceededError(
            f"update {update_id!r} is not as far as is awaited after {seconds:g} s"
        ) from None
