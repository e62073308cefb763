"""The hooks through which a client's calls pass on their way out.

    class Tracing(ClientInterceptor):
        def intercept(self, next_outbound: ClientOutbound) -> ClientOutbound:
            return TracedCalls(next_outbound)

    class TracedCalls(ClientOutbound):
        async def start_workflow(self, request: StartWorkflowInput) -> StartedWorkflow:
            headers = {**request.headers, "trace": self.trace_payload()}
            return await super().start_workflow(replace(request, headers=headers))

The first interceptor of a client is the outermost. The innermost outbound sends the request.
"""

import uuid
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from aetheris.api.v1.common_pb2 import Payload
from aetheris.api.v1.history_pb2 import UpdateOutcome
from aetheris.api.v1.workflow_service_pb2 import WorkflowResult
from aetheris_client.activity_options import ActivityOptions, ActivityOptionsUpdate
from aetheris_client.descriptions import ListFilter, WorkflowDescription, WorkflowInfo
from aetheris_client.enums import (
    QueryRejectCondition,
    UpdateStage,
    WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
)
from aetheris_client.resets import ReapplyExclude, ResetPoint
from aetheris_client.retry import RetryPolicy

Headers = Mapping[str, Payload]


def new_request_id() -> str:
    """An id that makes one write, and its retries, idempotent."""
    return uuid.uuid4().hex


def _no_headers() -> Headers:
    return {}


def _nothing() -> Mapping[str, object]:
    return {}


@dataclass(frozen=True, slots=True)
class StartWorkflowInput:
    """Start a run; with `result_wait_timeout`, wait that long for its result in the same call. With
    `start_signal` it begins with that signal, and an open run gets it instead of an error.

    `arg_types`, here and below: what the arguments are decoded as; nothing is known beyond its end.
    """

    workflow: str
    args: tuple[object, ...]
    id: str
    task_queue: str
    request_id: str = field(default_factory=new_request_id)
    execution_timeout: timedelta | None = None
    run_timeout: timedelta | None = None
    task_timeout: timedelta | None = None
    id_reuse_policy: WorkflowIdReusePolicy | None = None
    id_conflict_policy: WorkflowIdConflictPolicy | None = None
    memo: Mapping[str, object] = field(default_factory=_nothing)
    search_attributes: Mapping[str, object] = field(default_factory=_nothing)
    start_delay: timedelta | None = None
    retry_policy: RetryPolicy | None = None
    result_wait_timeout: timedelta | None = None
    arg_types: Sequence[object] = ()
    headers: Headers = field(default_factory=_no_headers)
    start_signal: str | None = None
    start_signal_args: Sequence[object] = ()
    start_signal_arg_types: Sequence[object] = ()
    pinned_build_id: str = ""


@dataclass(frozen=True, slots=True)
class StartedWorkflow:
    """What a start came to.

    Attributes:
        run_id: The run.
        is_new: False where an open run was there already, and was used.
        result: How it closed, if that was waited for and came in time.
        first_execution_run_id: The first run of its chain of continuations; empty where the server
            does not tell.
    """

    run_id: str
    is_new: bool = True
    result: WorkflowResult | None = None
    first_execution_run_id: str = ""


@dataclass(frozen=True, slots=True)
class SignalWorkflowInput:
    """Signal a run; an empty run_id is the newest.

    `first_execution_run_id`, here and below: only if the run is of the chain that this one began;
    empty for any chain.
    """

    id: str
    run_id: str
    signal: str
    args: tuple[object, ...]
    request_id: str
    arg_types: Sequence[object] = ()
    headers: Headers = field(default_factory=_no_headers)
    first_execution_run_id: str = ""


@dataclass(frozen=True, slots=True)
class QueryWorkflowInput:
    """Query a run. `result_type` is a hint for the answer; None takes it as it comes."""

    id: str
    run_id: str
    query: str
    args: tuple[object, ...]
    result_type: object = None
    reject_condition: QueryRejectCondition | None = None
    timeout: timedelta | None = None
    arg_types: Sequence[object] = ()
    headers: Headers = field(default_factory=_no_headers)
    first_execution_run_id: str = ""


@dataclass(frozen=True, slots=True)
class UpdateWorkflowInput:
    """Ask for an update of a run, and wait until it has come that far."""

    id: str
    run_id: str
    update: str
    args: tuple[object, ...]
    update_id: str
    wait_stage: UpdateStage
    first_execution_run_id: str = ""
    arg_types: Sequence[object] = ()
    headers: Headers = field(default_factory=_no_headers)


@dataclass(frozen=True, slots=True)
class PollUpdateInput:
    """Wait until an update that was asked for before has come that far."""

    id: str
    run_id: str
    update_id: str
    wait_stage: UpdateStage


@dataclass(frozen=True, slots=True)
class UpdateProgress:
    """An update that has come as far as it was waited for.

    Attributes:
        run_id: The run that has it.
        outcome: None where it has none yet.
    """

    run_id: str
    outcome: UpdateOutcome | None = None


@dataclass(frozen=True, slots=True)
class UpdateWithStartInput:
    """Start a run, or find the open one, and ask for an update of it."""

    start: StartWorkflowInput
    update: UpdateWorkflowInput


@dataclass(frozen=True, slots=True)
class CancelWorkflowInput:
    """Ask a run to cancel."""

    id: str
    run_id: str
    reason: str
    request_id: str
    first_execution_run_id: str = ""


@dataclass(frozen=True, slots=True)
class TerminateWorkflowInput:
    """Close a run from outside."""

    id: str
    run_id: str
    reason: str
    details: tuple[object, ...]
    request_id: str
    first_execution_run_id: str = ""


@dataclass(frozen=True, slots=True)
class ResetWorkflowInput:
    """Begin a run again from a point of it."""

    id: str
    run_id: str
    point: ResetPoint
    exclude: Collection[ReapplyExclude]
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True)
class ForkWorkflowInput:
    """Begin a run again from a point of it, as `new_id`."""

    id: str
    run_id: str
    new_id: str
    point: ResetPoint
    exclude: Collection[ReapplyExclude]
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True)
class PauseWorkflowInput:
    """Hold a run."""

    id: str
    run_id: str
    reason: str
    request_id: str
    first_execution_run_id: str = ""


@dataclass(frozen=True, slots=True)
class UnpauseWorkflowInput:
    """Have a run go on."""

    id: str
    run_id: str
    reason: str
    request_id: str
    first_execution_run_id: str = ""


@dataclass(frozen=True, slots=True)
class PauseActivityInput:
    """Hold an activity."""

    id: str
    run_id: str
    activity_id: str
    reason: str
    request_id: str


@dataclass(frozen=True, slots=True)
class UnpauseActivityInput:
    """Have an activity go on."""

    id: str
    run_id: str
    activity_id: str
    reason: str
    request_id: str
    reset_attempts: bool = False
    reset_heartbeat: bool = False
    jitter: timedelta | None = None


@dataclass(frozen=True, slots=True)
class ResetActivityInput:
    """Have an activity begin anew."""

    id: str
    run_id: str
    activity_id: str
    reason: str
    request_id: str
    keep_paused: bool = False
    reset_heartbeat: bool = False
    jitter: timedelta | None = None


@dataclass(frozen=True, slots=True)
class UpdateActivityOptionsInput:
    """Change what `options` has of an activity's options."""

    id: str
    run_id: str
    activity_id: str
    reason: str
    request_id: str
    options: ActivityOptionsUpdate


@dataclass(frozen=True, slots=True)
class DescribeWorkflowInput:
    """Look at a run."""

    id: str
    run_id: str


@dataclass(frozen=True, slots=True)
class UpdateWorkflowOptionsInput:
    """Change settings of a run; an empty pinned_build_id is whichever build its task queue has."""

    id: str
    run_id: str
    pinned_build_id: str
    reason: str
    request_id: str
    first_execution_run_id: str = ""


@dataclass(frozen=True, slots=True)
class ListWorkflowsInput:
    """Find runs."""

    filter: ListFilter
    page_size: int


class ClientOutbound:
    """A client's calls. Override what you change, and call `super()` to go on."""

    def __init__(self, next_outbound: "ClientOutbound") -> None:
        self.next = next_outbound

    async def start_workflow(self, request: StartWorkflowInput) -> StartedWorkflow:
        return await self.next.start_workflow(request)

    async def signal_workflow(self, request: SignalWorkflowInput) -> None:
        await self.next.signal_workflow(request)

    async def query_workflow(self, request: QueryWorkflowInput) -> object:
        return await self.next.query_workflow(request)

    async def update_workflow(self, request: UpdateWorkflowInput) -> UpdateProgress:
        return await self.next.update_workflow(request)

    async def poll_workflow_update(self, request: PollUpdateInput) -> UpdateProgress:
        return await self.next.poll_workflow_update(request)

    async def update_with_start_workflow(
        self, request: UpdateWithStartInput
    ) -> tuple[StartedWorkflow, UpdateProgress]:
        return await self.next.update_with_start_workflow(request)

    async def cancel_workflow(self, request: CancelWorkflowInput) -> None:
        await self.next.cancel_workflow(request)

    async def terminate_workflow(self, request: TerminateWorkflowInput) -> None:
        await self.next.terminate_workflow(request)

    async def reset_workflow(self, request: ResetWorkflowInput) -> str:
        """Returns the new run's id."""
        return await self.next.reset_workflow(request)

    async def fork_workflow(self, request: ForkWorkflowInput) -> str:
        """Returns the new run's id."""
        return await self.next.fork_workflow(request)

    async def pause_workflow(self, request: PauseWorkflowInput) -> None:
        await self.next.pause_workflow(request)

    async def unpause_workflow(self, request: UnpauseWorkflowInput) -> None:
        await self.next.unpause_workflow(request)

    async def pause_activity(self, request: PauseActivityInput) -> None:
        await self.next.pause_activity(request)

    async def unpause_activity(self, request: UnpauseActivityInput) -> None:
        await self.next.unpause_activity(request)

    async def reset_activity(self, request: ResetActivityInput) -> None:
        await self.next.reset_activity(request)

    async def update_activity_options(self, request: UpdateActivityOptionsInput) -> ActivityOptions:
        return await self.next.update_activity_options(request)

    async def describe_workflow(self, request: DescribeWorkflowInput) -> WorkflowDescription:
        return await self.next.describe_workflow(request)

    async def update_workflow_options(self, request: UpdateWorkflowOptionsInput) -> None:
        await self.next.update_workflow_options(request)

    def list_workflows(self, request: ListWorkflowsInput) -> AsyncIterator[WorkflowInfo]:
        return self.next.list_workflows(request)


class ClientInterceptor:
    """Wraps a client's calls, once, when the client is made."""

    def intercept(self, next_outbound: ClientOutbound) -> ClientOutbound:
        """What stands before `next_outbound`; by default nothing."""
        return next_outbound
