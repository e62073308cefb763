"""A run in the client's hands: steer it, watch it."""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from datetime import timedelta
from typing import Any, Generic, TypeVar, TypeVarTuple, Unpack, cast, overload

from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris.api.v1.workflow_service_pb2 import WorkflowResult
from aetheris_client.activity_options import ActivityOptions, ActivityOptionsUpdate
from aetheris_client.converter import DataConverter
from aetheris_client.definition import NameReference, query_name, signal_name, types_of_call
from aetheris_client.descriptions import WorkflowDescription
from aetheris_client.enums import QueryRejectCondition, UpdateStage
from aetheris_client.interceptor import (
    CancelWorkflowInput,
    ClientOutbound,
    DescribeWorkflowInput,
    ForkWorkflowInput,
    PauseActivityInput,
    PauseWorkflowInput,
    QueryWorkflowInput,
    ResetActivityInput,
    ResetWorkflowInput,
    SignalWorkflowInput,
    TerminateWorkflowInput,
    UnpauseActivityInput,
    UnpauseWorkflowInput,
    UpdateActivityOptionsInput,
    UpdateWorkflowOptionsInput,
    new_request_id,
)
from aetheris_client.options import check_options
from aetheris_client.resets import ReapplyExclude, ResetPoint
from aetheris_client.update_handle import WorkflowUpdateHandle, update_input, within
from aetheris_client.watch import RunWatcher

Result = TypeVar("Result")
Answer = TypeVar("Answer")
A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")
Ts = TypeVarTuple("Ts")


class WorkflowHandle(Generic[Result]):
    """One workflow id, and the run of it that was started or named.

    Watching (result, history, describe) is about that run; the newest, where none is named.
    Steering (signal, query, update, cancel, pause, terminate) goes to the newest run of the id, so
    that it reaches a workflow that has continued as new. A handle of a start steers the chain that
    it started, or found, and no other that has the id later; one that was asked for by run id, that
    run alone.

    Attributes:
        id: The workflow id.
        run_id: The run; None for the newest.
        first_execution_run_id: The first run of the chain that is steered; None for any chain.
        is_pinned: Steering goes to run_id alone.
        is_new: False where the start found an open run and was told to use it.
    """

    def __init__(
        self,
        workflow_id: str,
        run_id: str | None,
        calls: ClientOutbound,
        watcher: RunWatcher,
        converter: DataConverter,
        *,
        result_type: object = None,
        first_execution_run_id: str | None = None,
        is_pinned: bool = False,
        is_new: bool = True,
        known_result: WorkflowResult | None = None,
    ) -> None:
        self.id = workflow_id
        self.run_id = run_id
        self.first_execution_run_id = first_execution_run_id
        self.is_pinned = is_pinned
        self.is_new = is_new
        self._calls = calls
        self._watcher = watcher
        self._converter = converter
        self._result_type = result_type
        self._known_result = known_result
        self._steered_run_id = (run_id or "") if is_pinned else ""
        self._chain = first_execution_run_id or ""

    def __repr__(self) -> str:
        return f"WorkflowHandle(id={self.id!r}, run_id={self.run_id!r})"

    async def result(self, *, timeout: timedelta | None = None, follow_runs: bool = True) -> Result:
        """Wait for the run, and those that continue it, and give what the last one returned.

        Raises:
            WorkflowFailedError: It did not complete; the cause says why.
            WorkflowContinuedAsNewError: It goes on as another run, which is not followed.
            DeadlineExceededError: It was still open after `timeout`; None waits as long as it
            takes.
        """
        check_options("result", timeout=timeout)
        payloads = await self._watcher.wait_result(
            self.id,
            self.run_id or "",
            first_execution_run_id=self._chain,
            known=self._known_result,
            follow_runs=follow_runs,
            timeout=timeout,
        )
        results = await self._converter.decode(payloads, [self._result_type])
        return cast(Result, results[0] if results else None)

    @overload
    async def signal(
        self,
        signal: Callable[[Any, A1], object],
        a1: A1,
        /,
        *,
        request_id: str | None = ...,
    ) -> None: ...
    @overload
    async def signal(
        self,
        signal: Callable[[Any, A1, A2], object],
        a1: A1,
        a2: A2,
        /,
        *,
        request_id: str | None = ...,
    ) -> None: ...
    @overload
    async def signal(
        self,
        signal: Callable[[Any, A1, A2, A3], object],
        a1: A1,
        a2: A2,
        a3: A3,
        /,
        *,
        request_id: str | None = ...,
    ) -> None: ...
    @overload
    async def signal(
        self,
        signal: Callable[[Any, A1, A2, A3, A4], object],
        a1: A1,
        a2: A2,
        a3: A3,
        a4: A4,
        /,
        *,
        request_id: str | None = ...,
    ) -> None: ...
    @overload
    async def signal(
        self,
        signal: Callable[[Any, Unpack[Ts]], object],
        *args: *Ts,
        request_id: str | None = ...,
    ) -> None: ...
    @overload
    async def signal(self, signal: str, *args: object, request_id: str | None = ...) -> None: ...
    async def signal(
        self, signal: NameReference, *args: Any, request_id: str | None = None
    ) -> None:
        """Record a signal; it is on disk when this returns.

        Raises:
            WorkflowNotFoundError: There is no such run.
            WorkflowClosedError: It has closed.
        """
        check_options("signal", request_id=request_id)
        await self._calls.signal_workflow(
            SignalWorkflowInput(
                self.id,
                self._steered_run_id,
                signal_name(signal),
                args,
                request_id or new_request_id(),
                types_of_call(signal, len(args))[0],
                first_execution_run_id=self._chain,
            )
        )

    @overload
    async def query(
        self,
        query: Callable[[Any, A1], Answer],
        a1: A1,
        /,
        *,
        reject_condition: QueryRejectCondition | None = ...,
        timeout: timedelta | None = ...,
    ) -> Answer: ...
    @overload
    async def query(
        self,
        query: Callable[[Any, A1, A2], Answer],
        a1: A1,
        a2: A2,
        /,
        *,
        reject_condition: QueryRejectCondition | None = ...,
        timeout: timedelta | None = ...,
    ) -> Answer: ...
    @overload
    async def query(
        self,
        query: Callable[[Any, A1, A2, A3], Answer],
        a1: A1,
        a2: A2,
        a3: A3,
        /,
        *,
        reject_condition: QueryRejectCondition | None = ...,
        timeout: timedelta | None = ...,
    ) -> Answer: ...
    @overload
    async def query(
        self,
        query: Callable[[Any, A1, A2, A3, A4], Answer],
        a1: A1,
        a2: A2,
        a3: A3,
        a4: A4,
        /,
        *,
        reject_condition: QueryRejectCondition | None = ...,
        timeout: timedelta | None = ...,
    ) -> Answer: ...
    @overload
    async def query(
        self,
        query: Callable[[Any, Unpack[Ts]], Answer],
        *args: *Ts,
        reject_condition: QueryRejectCondition | None = ...,
        timeout: timedelta | None = ...,
    ) -> Answer: ...
    @overload
    async def query(
        self,
        query: str,
        *args: object,
        result_type: type[Answer],
        reject_condition: QueryRejectCondition | None = ...,
        timeout: timedelta | None = ...,
    ) -> Answer: ...
    @overload
    async def query(
        self,
        query: str,
        *args: object,
        result_type: object = ...,
        reject_condition: QueryRejectCondition | None = ...,
        timeout: timedelta | None = ...,
    ) -> Any: ...
    async def query(
        self,
        query: NameReference,
        *args: Any,
        result_type: object = None,
        reject_condition: QueryRejectCondition | None = None,
        timeout: timedelta | None = None,
    ) -> Any:
        """Ask the run's code; open and closed runs answer, unless `reject_condition` says
        otherwise.

        Raises:
            QueryFailedError: The code could not answer.
            QueryRejectedError: Refused for the run's status, as asked.
            NotReadyError: No worker answered in time.
        """
        check_options("query", reject_condition=reject_condition, timeout=timeout)
        name = query_name(query)
        arg_types, annotated_result = types_of_call(query, len(args))
        return await self._calls.query_workflow(
            QueryWorkflowInput(
                self.id,
                self._steered_run_id,
                name,
                args,
                result_type if result_type is not None else annotated_result,
                reject_condition,
                timeout,
                arg_types,
                first_execution_run_id=self._chain,
            )
        )

    @overload
    async def execute_update(
        self,
        update: Callable[[Any, Unpack[Ts]], Awaitable[Answer]],
        *args: *Ts,
        update_id: str | None = ...,
        timeout: timedelta | None = ...,
    ) -> Answer: ...
    @overload
    async def execute_update(
        self,
        update: Callable[[Any, Unpack[Ts]], Answer],
        *args: *Ts,
        update_id: str | None = ...,
        timeout: timedelta | None = ...,
    ) -> Answer: ...
    @overload
    async def execute_update(
        self,
        update: str,
        *args: object,
        update_id: str | None = ...,
        result_type: object = ...,
        timeout: timedelta | None = ...,
    ) -> Any: ...
    async def execute_update(
        self,
        update: NameReference,
        *args: Any,
        update_id: str | None = None,
        result_type: object = None,
        timeout: timedelta | None = None,
    ) -> Any:
        """Ask the run's code for an update, and wait for its outcome: what its handler returned.

        Args:
            update: A handler method, or its name.
            args: Its arguments.
            update_id: Makes it happen once, however often it is asked for; a new one where None.
            result_type: A hint for the result of an update that is given by name.
            timeout: How long to wait; None waits for as long as it takes.

        Raises:
            WorkflowUpdateFailedError: It was rejected, or failed; the cause says why.
            WorkflowNotFoundError: There is no such run.
            WorkflowClosedError: It has closed.
            UpdateLimitError: It takes no more updates, at all or for now.
            WorkflowNotReadyError: Its code does not run now.
            DeadlineExceededError: There was no outcome after `timeout`.
        """
        handle = await self._update(
            update, args, UpdateStage.COMPLETED, update_id, result_type, timeout
        )
        return await handle.result()

    @overload
    async def start_update(
        self,
        update: Callable[[Any, Unpack[Ts]], Awaitable[Answer]],
        *args: *Ts,
        wait_for_stage: UpdateStage,
        update_id: str | None = ...,
        timeout: timedelta | None = ...,
    ) -> WorkflowUpdateHandle[Answer]: ...
    @overload
    async def start_update(
        self,
        update: Callable[[Any, Unpack[Ts]], Answer],
        *args: *Ts,
        wait_for_stage: UpdateStage,
        update_id: str | None = ...,
        timeout: timedelta | None = ...,
    ) -> WorkflowUpdateHandle[Answer]: ...
    @overload
    async def start_update(
        self,
        update: str,
        *args: object,
        wait_for_stage: UpdateStage,
        update_id: str | None = ...,
        result_type: object = ...,
        timeout: timedelta | None = ...,
    ) -> WorkflowUpdateHandle[Any]: ...
    async def start_update(
        self,
        update: NameReference,
        *args: Any,
        wait_for_stage: UpdateStage,
        update_id: str | None = None,
        result_type: object = None,
        timeout: timedelta | None = None,
    ) -> WorkflowUpdateHandle[Any]:
        """Ask the run's code for an update, and wait until it has come that far: see UpdateStage.

        An update that was rejected is an outcome: the handle's `result` raises it. For the rest see
        `execute_update`.
        """
        return await self._update(update, args, wait_for_stage, update_id, result_type, timeout)

    def get_update_handle(
        self, update_id: str, *, result_type: object = None
    ) -> WorkflowUpdateHandle[Any]:
        """A handle on an update that was asked for elsewhere; asks no server.

        Args:
            update_id: Of the update.
            result_type: A hint for its result.
        """
        check_options("get_update_handle", update_id=update_id)
        return WorkflowUpdateHandle(
            update_id,
            self.id,
            self.run_id,
            self._calls,
            self._converter,
            result_type=result_type,
        )

    async def _update(
        self,
        update: NameReference,
        args: tuple[object, ...],
        stage: UpdateStage,
        update_id: str | None,
        result_type: object,
        timeout: timedelta | None,
    ) -> WorkflowUpdateHandle[Any]:
        check_options("update", update_id=update_id, wait_for_stage=stage, timeout=timeout)
        request, annotated_result = update_input(
            update, args, stage, update_id, self.id, self._steered_run_id, self._chain
        )
        progress = await within(timeout, request.update_id, self._calls.update_workflow(request))
        return WorkflowUpdateHandle(
            request.update_id,
            self.id,
            progress.run_id,
            self._calls,
            self._converter,
            result_type=result_type if result_type is not None else annotated_result,
            known_outcome=progress.outcome,
        )

    async def cancel(self, *, reason: str = "", request_id: str | None = None) -> None:
        """Ask the run to cancel; its code decides what that means. Asking again is no error."""
        check_options("cancel", reason=reason, request_id=request_id)
        await self._calls.cancel_workflow(
            CancelWorkflowInput(
                self.id,
                self._steered_run_id,
                reason,
                request_id or new_request_id(),
                self._chain,
            )
        )

    async def terminate(
        self, *details: object, reason: str = "", request_id: str | None = None
    ) -> None:
        """Close the run at once, without asking its code."""
        check_options("terminate", reason=reason, request_id=request_id)
        await self._calls.terminate_workflow(
            TerminateWorkflowInput(
                self.id,
                self._steered_run_id,
                reason,
                details,
                request_id or new_request_id(),
                self._chain,
            )
        )

    async def reset(
        self,
        point: ResetPoint,
        *,
        exclude: Collection[ReapplyExclude] = (),
        reason: str = "",
        request_id: str | None = None,
    ) -> "WorkflowHandle[Result]":
        """Begin the run again from a point of it: a new run of the workflow id, whose open run, if
        it has one, is terminated in the same moment.

        Args:
            point: The workflow task that is decided anew.
            exclude: What came later and is not given to the new run; else signals and a request to
                cancel reach it.
            reason: Why, for people.
            request_id: Makes it idempotent; a new one where None.

        Returns:
            The new run.

        Raises:
            WorkflowNotFoundError: There is no such run.
            InvalidArgumentError: It has no such point.
        """
        check_options("reset", reason=reason, request_id=request_id)
        run_id = await self._calls.reset_workflow(
            ResetWorkflowInput(
                self.id,
                self._steered_run_id,
                point,
                exclude,
                reason,
                request_id or new_request_id(),
            )
        )
        return self._of_run(self.id, run_id)

    async def fork(
        self,
        point: ResetPoint,
        *,
        id: str,  # noqa: A002 - the word of the API
        exclude: Collection[ReapplyExclude] = (),
        reason: str = "",
        request_id: str | None = None,
    ) -> "WorkflowHandle[Result]":
        """Begin the run again from a point of it as another workflow; this one goes on.

        See `Client.fork_workflow`.
        """
        check_options("fork", id=id, reason=reason, request_id=request_id)
        run_id = await self._calls.fork_workflow(
            ForkWorkflowInput(
                self.id,
                self._steered_run_id,
                id,
                point,
                exclude,
                reason,
                request_id or new_request_id(),
            )
        )
        return self._of_run(id, run_id)

    def _of_run(self, workflow_id: str, run_id: str) -> "WorkflowHandle[Result]":
        return WorkflowHandle(
            workflow_id,
            run_id,
            self._calls,
            self._watcher,
            self._converter,
            result_type=self._result_type,
        )

    async def pause(self, *, reason: str = "", request_id: str | None = None) -> None:
        """Hold the run: none of its tasks is given out until it is unpaused.

        What workers have of it goes on and is recorded; timers fire, the run's timeout goes on, and
        signals are kept. Pausing again is no error.

        Raises:
            WorkflowNotFoundError: There is no such run.
            WorkflowClosedError: It has closed.
        """
        check_options("pause", reason=reason, request_id=request_id)
        await self._calls.pause_workflow(
            PauseWorkflowInput(
                self.id,
                self._steered_run_id,
                reason,
                request_id or new_request_id(),
                self._chain,
            )
        )

    async def unpause(self, *, reason: str = "", request_id: str | None = None) -> None:
        """Have the run go on, if it is paused.

        Raises:
            WorkflowNotFoundError: There is no such run.
            WorkflowClosedError: It has closed.
        """
        check_options("unpause", reason=reason, request_id=request_id)
        await self._calls.unpause_workflow(
            UnpauseWorkflowInput(
                self.id,
                self._steered_run_id,
                reason,
                request_id or new_request_id(),
                self._chain,
            )
        )

    async def pause_activity(
        self, activity_id: str, *, reason: str = "", request_id: str | None = None
    ) -> None:
        """Hold one of the run's open activities: no attempt is given out until it is unpaused.

        One that a worker has is told (`activity.cancellation_details()`), and what it comes to
        counts. Pausing again is no error.

        Raises:
            ActivityNotFoundError: The run has no open activity of that id.
        """
        check_options("pause_activity", reason=reason, request_id=request_id)
        await self._calls.pause_activity(
            PauseActivityInput(
                self.id, self._steered_run_id, activity_id, reason, request_id or new_request_id()
            )
        )

    async def unpause_activity(
        self,
        activity_id: str,
        *,
        reset_attempts: bool = False,
        reset_heartbeat: bool = False,
        jitter: timedelta | None = None,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Have an activity go on, if it is paused; it does not back off any longer.

        Args:
            activity_id: Of an open activity.
            reset_attempts: Its next attempt counts as the first.
            reset_heartbeat: Its next attempt is told nothing of what heartbeats said.
            jitter: It goes on at a random time within this.
            reason: For people.
            request_id: Makes the request idempotent.

        Raises:
            ActivityNotFoundError: The run has no open activity of that id.
        """
        check_options("unpause_activity", reason=reason, request_id=request_id, jitter=jitter)
        await self._calls.unpause_activity(
            UnpauseActivityInput(
                self.id,
                self._steered_run_id,
                activity_id,
                reason,
                request_id or new_request_id(),
                reset_attempts,
                reset_heartbeat,
                jitter,
            )
        )

    async def reset_activity(
        self,
        activity_id: str,
        *,
        keep_paused: bool = False,
        reset_heartbeat: bool = False,
        jitter: timedelta | None = None,
        reason: str = "",
        request_id: str | None = None,
    ) -> None:
        """Have an activity begin anew, with its first attempt and its whole time.

        An attempt that a worker has is told (`activity.cancellation_details()`); what it comes to
        counts, and if it fails the next one is the first.

        Args:
            activity_id: Of an open activity.
            keep_paused: It stays paused, if it is.
            reset_heartbeat: Its next attempt is told nothing of what heartbeats said.
            jitter: It begins at a random time within this.
            reason: For people.
            request_id: Makes the request idempotent.

        Raises:
            ActivityNotFoundError: The run has no open activity of that id.
        """
        check_options("reset_activity", reason=reason, request_id=request_id, jitter=jitter)
        await self._calls.reset_activity(
            ResetActivityInput(
                self.id,
                self._steered_run_id,
                activity_id,
                reason,
                request_id or new_request_id(),
                keep_paused,
                reset_heartbeat,
                jitter,
            )
        )

    async def update_activity_options(
        self,
        activity_id: str,
        options: ActivityOptionsUpdate,
        *,
        reason: str = "",
        request_id: str | None = None,
    ) -> ActivityOptions:
        """Change how an activity is given out and tried again; of one that a worker has, the next
        attempt.

        Returns:
            All options, as they are from now on.

        Raises:
            ActivityNotFoundError: The run has no open activity of that id.
        """
        check_options("update_activity_options", reason=reason, request_id=request_id)
        return await self._calls.update_activity_options(
            UpdateActivityOptionsInput(
                self.id,
                self._steered_run_id,
                activity_id,
                reason,
                request_id or new_request_id(),
                options,
            )
        )

    async def describe(self) -> WorkflowDescription:
        """What is known of the run now."""
        return await self._calls.describe_workflow(
            DescribeWorkflowInput(self.id, self.run_id or "")
        )

    async def update_options(
        self, *, pinned_build_id: str, reason: str = "", request_id: str | None = None
    ) -> None:
        """Pin the run to a build: its workflow tasks go only to workers of it from now on, one that
        waits too. A worker that has a task decides it all the same.

        Args:
            pinned_build_id: The build, as `Worker(build_id=...)` says it; empty for whichever the
                run's task queue prefers.
            reason: Why, for people.
            request_id: Recorded once per id; a new one where None.

        Raises:
            WorkflowNotFoundError: There is no such run.
            WorkflowClosedError: It has closed.
        """
        check_options(
            "update_options",
            pinned_build_id=pinned_build_id,
            reason=reason,
            request_id=request_id,
        )
        await self._calls.update_workflow_options(
            UpdateWorkflowOptionsInput(
                self.id,
                self._steered_run_id,
                pinned_build_id,
                reason,
                request_id or new_request_id(),
                self._chain,
            )
        )

    def history(
        self, *, wait_new_event: bool = False, page_size: int = 0
    ) -> AsyncIterator[HistoryEvent]:
        """The run's events in order, page by page.

        Args:
            wait_new_event: Go on with the events to come, until the run has closed.
            page_size: Events a call; the server's default where 0.
        """
        check_options("history", page_size=page_size)
        return self._watcher.events(
            self.id, self.run_id or "", page_size=page_size, wait_new_event=wait_new_event
        )
