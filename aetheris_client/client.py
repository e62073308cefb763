"""The client: start runs, find runs, get hold of runs.

    client = await Client.connect()
    handle = await client.start_workflow(Census.run, folder, id="census-1", task_queue="census")
    report = await handle.result()

Every write carries a request id, chosen once per call and kept through its retries.
"""

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import (
    Any,
    Final,
    Required,
    Self,
    TypedDict,
    TypeVar,
    TypeVarTuple,
    Unpack,
    cast,
    overload,
)

from aetheris.api.v1.worker_service_pb2 import ActivityReference
from aetheris_client.async_activity import AsyncActivityHandle
from aetheris_client.channels import TlsConfig
from aetheris_client.connection import Connection
from aetheris_client.converter import DataConverter
from aetheris_client.definition import (
    NameReference,
    run_method,
    signal_name,
    types_of_call,
    workflow_name,
)
from aetheris_client.descriptions import ListFilter, WorkflowInfo
from aetheris_client.enums import (
    UpdateStage,
    WorkflowIdConflictPolicy,
    WorkflowIdReusePolicy,
)
from aetheris_client.handle import WorkflowHandle
from aetheris_client.interceptor import (
    ClientInterceptor,
    ClientOutbound,
    ListWorkflowsInput,
    StartedWorkflow,
    StartWorkflowInput,
    UpdateWithStartInput,
)
from aetheris_client.operator_client import OperatorClient
from aetheris_client.options import check_arguments, check_names, check_options
from aetheris_client.resets import ReapplyExclude, ResetPoint
from aetheris_client.retry import RetryPolicy, check_retry_policy
from aetheris_client.rpc_outbound import ClientConfig, RpcOutbound
from aetheris_client.update_handle import WorkflowUpdateHandle, update_input, within
from aetheris_client.watch import RESULT_WAIT_TIMEOUT, RunWatcher

DEFAULT_ADDRESS: Final = "localhost:7233"
DEFAULT_NAMESPACE: Final = "default"

Result = TypeVar("Result")
A1 = TypeVar("A1")
A2 = TypeVar("A2")
A3 = TypeVar("A3")
A4 = TypeVar("A4")
Ts = TypeVarTuple("Ts")


class RunOptions(TypedDict, total=False):
    """How a run is started.

    id: The workflow id; at most one open run has it.
    task_queue: Where its workflow tasks go.
    execution_timeout, run_timeout: Limits on its chain of runs and on one run; none where absent.
    task_timeout: Limit on one workflow task; the server's default where absent.
    id_reuse_policy, id_conflict_policy: What to do where a closed or an open run has the id.
    memo, search_attributes: Notes on the run; the latter are for searches, which are to come.
    start_delay: How long its code waits before it first runs.
    retry_policy: How a run that fails, or runs into its own run_timeout, is tried again as a new
        run of its chain; not at all where absent.
    pinned_build_id: Its workflow tasks go only to workers of this build; where absent, to those
        that its task queue prefers.
    request_id: Makes the start idempotent across calls; a new one where absent.
    start_signal, start_signal_args: A signal, as a handler method or its name, that the run begins
        with. An open run of the id gets the signal instead (its `id_conflict_policy` may be
        TERMINATE_EXISTING, and not FAIL); one that still waits for its `start_delay` begins.
    """

    id: Required[str]
    task_queue: Required[str]
    execution_timeout: timedelta | None
    run_timeout: timedelta | None
    task_timeout: timedelta | None
    id_reuse_policy: WorkflowIdReusePolicy | None
    id_conflict_policy: WorkflowIdConflictPolicy | None
    memo: Mapping[str, object]
    search_attributes: Mapping[str, object]
    start_delay: timedelta | None
    retry_policy: RetryPolicy | None
    pinned_build_id: str | None
    request_id: str
    start_signal: str | Callable[..., object] | None
    start_signal_args: Sequence[object]


class StartOptions(RunOptions, total=False):
    """What `aetheris_client.client.RunOptions` has, and `result_type`: a hint for the result of a
    workflow that is given by name.
    """

    result_type: object


_START_OPTIONS: Final = StartOptions.__required_keys__ | StartOptions.__optional_keys__


class WithStartWorkflowOperation:
    """The start of an update with start: a run of this workflow, unless an open one is used.

    For one call. `id_conflict_policy` must be among the options: FAIL or USE_EXISTING.
    """

    def __init__(
        self,
        workflow: str | type[Any] | Callable[..., object],
        *args: object,
        **options: Unpack[StartOptions],
    ) -> None:
        """Args:
        workflow: A workflow's run method, its class or its name.
        args: The run method's arguments.
        options: See StartOptions.
        """
        self.workflow = workflow
        self.args = args
        self.options = options
        self._handle: WorkflowHandle[Any] | None = None

    def note_started(self, handle: WorkflowHandle[Any]) -> None:
        """The call has returned."""
        self._handle = handle

    @property
    def workflow_handle(self) -> WorkflowHandle[Any]:
        """The run that was started or used.

        Raises:
            RuntimeError: No call with this operation has returned.
        """
        if self._handle is None:
            raise RuntimeError("the update with start has not returned")
        return self._handle


class Client:
    """A client of one namespace. Serves any number of tasks; may share its connection."""

    def __init__(
        self,
        connection: Connection,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        identity: str | None = None,
        data_converter: DataConverter | None = None,
        interceptors: Sequence[ClientInterceptor] = (),
        rpc_timeout: timedelta = timedelta(seconds=30),
    ) -> None:
        check_options("Client", namespace=namespace, identity=identity, rpc_timeout=rpc_timeout)
        self.connection = connection
        self.config = ClientConfig(
            namespace=namespace,
            identity=identity or f"{os.getpid()}@{socket.gethostname()}",
            converter=data_converter or DataConverter.default(),
            rpc_timeout=rpc_timeout,
        )
        self.operator = OperatorClient(connection, self.config)
        self._watcher = RunWatcher(connection, self.config)
        calls: ClientOutbound = RpcOutbound(connection, self.config)
        for interceptor in reversed(interceptors):
            calls = interceptor.intercept(calls)
        self._calls = calls

    @classmethod
    async def connect(
        cls,
        address: str | None = None,
        *,
        namespace: str | None = None,
        identity: str | None = None,
        data_converter: DataConverter | None = None,
        tls: TlsConfig | bool = False,
        interceptors: Sequence[ClientInterceptor] = (),
        rpc_timeout: timedelta = timedelta(seconds=30),
        connect_timeout: timedelta = timedelta(seconds=10),
    ) -> Self:
        """Connect, and wait until a server takes calls.

        Args:
            address: `host:port`; AETHERIS_ADDRESS, else localhost:7233, where None.
            namespace: AETHERIS_NAMESPACE, else `default`, where None.
            identity: Who asks, in histories and lists; process and host where None.
            data_converter: How values become payloads.
            tls: Whether, and how, the connection is encrypted.
            interceptors: Outermost first.
            rpc_timeout: For one call with its retries.
            connect_timeout: How long to wait for a server.

        Raises:
            UnavailableError: No server took calls in time.
        """
        check_options(
            "Client.connect",
            address=address,
            namespace=namespace,
            identity=identity,
            rpc_timeout=rpc_timeout,
            connect_timeout=connect_timeout,
        )
        return cls(
            await _connect(address, tls, connect_timeout),
            namespace or os.environ.get("AETHERIS_NAMESPACE") or DEFAULT_NAMESPACE,
            identity=identity,
            data_converter=data_converter,
            interceptors=interceptors,
            rpc_timeout=rpc_timeout,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection, also for all that share it."""
        await self.connection.close()

    @property
    def namespace(self) -> str:
        """The namespace of all calls."""
        return self.config.namespace

    @property
    def identity(self) -> str:
        """Who asks, in histories and lists."""
        return self.config.identity

    @property
    def data_converter(self) -> DataConverter:
        """How values become payloads."""
        return self.config.converter

    @overload
    async def start_workflow(
        self,
        workflow: Callable[[Any, A1], Awaitable[Result]],
        a1: A1,
        /,
        **options: Unpack[RunOptions],
    ) -> WorkflowHandle[Result]: ...
    @overload
    async def start_workflow(
        self,
        workflow: Callable[[Any, A1, A2], Awaitable[Result]],
        a1: A1,
        a2: A2,
        /,
        **options: Unpack[RunOptions],
    ) -> WorkflowHandle[Result]: ...
    @overload
    async def start_workflow(
        self,
        workflow: Callable[[Any, A1, A2, A3], Awaitable[Result]],
        a1: A1,
        a2: A2,
        a3: A3,
        /,
        **options: Unpack[RunOptions],
    ) -> WorkflowHandle[Result]: ...
    @overload
    async def start_workflow(
        self,
        workflow: Callable[[Any, A1, A2, A3, A4], Awaitable[Result]],
        a1: A1,
        a2: A2,
        a3: A3,
        a4: A4,
        /,
        **options: Unpack[RunOptions],
    ) -> WorkflowHandle[Result]: ...
    @overload
    async def start_workflow(
        self,
        workflow: Callable[[Any, Unpack[Ts]], Awaitable[Result]],
        *args: *Ts,
        **options: Unpack[RunOptions],
    ) -> WorkflowHandle[Result]: ...
    @overload
    async def start_workflow(
        self,
        workflow: str | type[Any],
        *args: object,
        result_type: type[Result],
        **options: Unpack[RunOptions],
    ) -> WorkflowHandle[Result]: ...
    @overload
    async def start_workflow(
        self, workflow: str | type[Any], *args: object, **options: Unpack[StartOptions]
    ) -> WorkflowHandle[Any]: ...
    async def start_workflow(
        self, workflow: NameReference, *args: Any, **options: Any
    ) -> WorkflowHandle[Any]:
        """Start a run; its start is on disk when this returns.

        Args:
            workflow: A workflow's run method, its class or its name. Only of the run method do type
                checkers see what it takes and gives.
            args: The run method's arguments.
            options: See StartOptions.

        Raises:
            WorkflowAlreadyStartedError: A run has the id, and the policies forbid another.
            InvalidArgumentError: An option is out of bounds; names it.
            PayloadEncodeError: An argument has no encoding.
        """
        return await self._start(workflow, args, cast(StartOptions, options), None)

    @overload
    async def execute_workflow(
        self,
        workflow: Callable[[Any, A1], Awaitable[Result]],
        a1: A1,
        /,
        **options: Unpack[RunOptions],
    ) -> Result: ...
    @overload
    async def execute_workflow(
        self,
        workflow: Callable[[Any, A1, A2], Awaitable[Result]],
        a1: A1,
        a2: A2,
        /,
        **options: Unpack[RunOptions],
    ) -> Result: ...
    @overload
    async def execute_workflow(
        self,
        workflow: Callable[[Any, A1, A2, A3], Awaitable[Result]],
        a1: A1,
        a2: A2,
        a3: A3,
        /,
        **options: Unpack[RunOptions],
    ) -> Result: ...
    @overload
    async def execute_workflow(
        self,
        workflow: Callable[[Any, A1, A2, A3, A4], Awaitable[Result]],
        a1: A1,
        a2: A2,
        a3: A3,
        a4: A4,
        /,
        **options: Unpack[RunOptions],
    ) -> Result: ...
    @overload
    async def execute_workflow(
        self,
        workflow: Callable[[Any, Unpack[Ts]], Awaitable[Result]],
        *args: *Ts,
        **options: Unpack[RunOptions],
    ) -> Result: ...
    @overload
    async def execute_workflow(
        self,
        workflow: str | type[Any],
        *args: object,
        result_type: type[Result],
        **options: Unpack[RunOptions],
    ) -> Result: ...
    @overload
    async def execute_workflow(
        self, workflow: str | type[Any], *args: object, **options: Unpack[StartOptions]
    ) -> Any: ...
    async def execute_workflow(self, workflow: NameReference, *args: Any, **options: Any) -> Any:
        """Start a run and wait for its result: one call, if the run is short.

        Raises:
            WorkflowFailedError: It did not complete; the cause says why.
            AetherisError: As start_workflow.
        """
        handle = await self._start(workflow, args, cast(StartOptions, options), RESULT_WAIT_TIMEOUT)
        return await handle.result()

    @overload
    async def execute_update_with_start_workflow(
        self,
        update: Callable[[Any, Unpack[Ts]], Awaitable[Result]],
        *args: *Ts,
        start_workflow_operation: WithStartWorkflowOperation,
        update_id: str | None = ...,
        timeout: timedelta | None = ...,
    ) -> Result: ...
    @overload
    async def execute_update_with_start_workflow(
        self,
        update: Callable[[Any, Unpack[Ts]], Result],
        *args: *Ts,
        start_workflow_operation: WithStartWorkflowOperation,
        update_id: str | None = ...,
        timeout: timedelta | None = ...,
    ) -> Result: ...
    @overload
    async def execute_update_with_start_workflow(
        self,
        update: str,
        *args: object,
        start_workflow_operation: WithStartWorkflowOperation,
        update_id: str | None = ...,
        result_type: object = ...,
        timeout: timedelta | None = ...,
    ) -> Any: ...
    async def execute_update_with_start_workflow(
        self,
        update: NameReference,
        *args: Any,
        start_workflow_operation: WithStartWorkflowOperation,
        update_id: str | None = None,
        result_type: object = None,
        timeout: timedelta | None = None,
    ) -> Any:
        """Start a run, or find the open one, ask it for an update, and wait for its outcome.

        A run that is started gets the update along with its first workflow task. For the rest see
        `WorkflowHandle.execute_update`.

        Raises:
            WorkflowAlreadyStartedError: A run has the id, and the policies forbid this.
        """
        handle = await self._update_with_start(
            update,
            args,
            start_workflow_operation,
            UpdateStage.COMPLETED,
            update_id,
            result_type,
            timeout,
        )
        return await handle.result()

    @overload
    async def start_update_with_start_workflow(
        self,
        update: Callable[[Any, Unpack[Ts]], Awaitable[Result]],
        *args: *Ts,
        start_workflow_operation: WithStartWorkflowOperation,
        wait_for_stage: UpdateStage,
        update_id: str | None = ...,
        timeout: timedelta | None = ...,
    ) -> WorkflowUpdateHandle[Result]: ...
    @overload
    async def start_update_with_start_workflow(
        self,
        update: Callable[[Any, Unpack[Ts]], Result],
        *args: *Ts,
        start_workflow_operation: WithStartWorkflowOperation,
        wait_for_stage: UpdateStage,
        update_id: str | None = ...,
        timeout: timedelta | None = ...,
    ) -> WorkflowUpdateHandle[Result]: ...
    @overload
    async def start_update_with_start_workflow(
        self,
        update: str,
        *args: object,
        start_workflow_operation: WithStartWorkflowOperation,
        wait_for_stage: UpdateStage,
        update_id: str | None = ...,
        result_type: object = ...,
        timeout: timedelta | None = ...,
    ) -> WorkflowUpdateHandle[Any]: ...
    async def start_update_with_start_workflow(
        self,
        update: NameReference,
        *args: Any,
        start_workflow_operation: WithStartWorkflowOperation,
        wait_for_stage: UpdateStage,
        update_id: str | None = None,
        result_type: object = None,
        timeout: timedelta | None = None,
    ) -> WorkflowUpdateHandle[Any]:
        """The same, until the update has come that far: see `WorkflowHandle.start_update`."""
        return await self._update_with_start(
            update,
            args,
            start_workflow_operation,
            wait_for_stage,
            update_id,
            result_type,
            timeout,
        )

    async def _update_with_start(
        self,
        update: NameReference,
        args: tuple[object, ...],
        operation: WithStartWorkflowOperation,
        stage: UpdateStage,
        update_id: str | None,
        result_type: object,
        timeout: timedelta | None,
    ) -> WorkflowUpdateHandle[Any]:
        check_options("update", update_id=update_id, wait_for_stage=stage, timeout=timeout)
        start, workflow_result = self._start_input(
            "WithStartWorkflowOperation",
            operation.workflow,
            operation.args,
            cast(StartOptions, dict(operation.options)),
            None,
        )
        request, annotated_result = update_input(update, args, stage, update_id, start.id)
        started, progress = await within(
            timeout,
            request.update_id,
            self._calls.update_with_start_workflow(UpdateWithStartInput(start, request)),
        )
        operation.note_started(self._handle_of(start.id, started, workflow_result))
        return WorkflowUpdateHandle(
            request.update_id,
            start.id,
            progress.run_id,
            self._calls,
            self.data_converter,
            result_type=result_type if result_type is not None else annotated_result,
            known_outcome=progress.outcome,
        )

    async def fork_workflow(
        self,
        base: WorkflowHandle[Result],
        point: ResetPoint,
        *,
        id: str,  # noqa: A002 - the word of the API
        exclude: Collection[ReapplyExclude] = (),
        reason: str = "",
        request_id: str | None = None,
    ) -> WorkflowHandle[Result]:
        """Begin a run again from a point of it, as a workflow of its own; the run goes on.

        Args:
            base: The run; the newest of its workflow id, unless the handle was asked for by run id.
            point: The workflow task that is decided anew.
            id: The new workflow id.
            exclude: What came later and is not given to the new run; else signals and a request to
                cancel reach it.
            reason: Why, for people.
            request_id: Makes it idempotent; a new one where None.

        Returns:
            The new run.

        Raises:
            WorkflowAlreadyStartedError: An open run has the new id.
            WorkflowNotFoundError: There is no such run.
            InvalidArgumentError: It has no such point.
        """
        return await base.fork(point, id=id, exclude=exclude, reason=reason, request_id=request_id)

    def get_workflow_handle(
        self,
        workflow_id: str,
        run_id: str | None = None,
        *,
        first_execution_run_id: str | None = None,
        result_type: object = None,
    ) -> WorkflowHandle[Any]:
        """A handle on a run that was started elsewhere; asks no server.

        Args:
            workflow_id: Of the run.
            run_id: Of the run; the newest where None.
            first_execution_run_id: Only runs of the chain that this one began; whichever run has
                the workflow id where None.
            result_type: A hint for its result.
        """
        check_options(
            "get_workflow_handle",
            workflow_id=workflow_id,
            run_id=run_id,
            first_execution_run_id=first_execution_run_id,
        )
        return WorkflowHandle(
            workflow_id,
            run_id,
            self._calls,
            self._watcher,
            self.data_converter,
            result_type=result_type,
            first_execution_run_id=first_execution_run_id,
            is_pinned=run_id is not None,
        )

    def get_async_activity_handle(
        self,
        *,
        task_token: bytes | None = None,
        workflow_id: str | None = None,
        run_id: str | None = None,
        activity_id: str | None = None,
    ) -> AsyncActivityHandle:
        """A handle on an activity that is answered from elsewhere than its worker; asks no server.

        Args:
            task_token: Of the attempt, as `activity.info()` has it; or none, and the rest.
            workflow_id: Of the run.
            run_id: Of the run; the newest where None.
            activity_id: As the workflow calls it.

        Raises:
            TypeError: It is named in no way, or in both.
        """
        check_options(
            "get_async_activity_handle",
            workflow_id=workflow_id,
            run_id=run_id,
            activity_id=activity_id,
        )
        if task_token is not None:
            if not (workflow_id is run_id is activity_id is None):
                raise TypeError("get_async_activity_handle: expected a task_token or ids, not both")
            return AsyncActivityHandle(self.connection, self.config, task_token, None)
        if workflow_id is None or activity_id is None:
            raise TypeError(
                "get_async_activity_handle: expected task_token, or workflow_id and activity_id"
            )
        reference = ActivityReference(
            workflow_id=workflow_id, run_id=run_id or "", activity_id=activity_id
        )
        return AsyncActivityHandle(self.connection, self.config, b"", reference)

    def list_workflows(
        self, list_filter: ListFilter | None = None, *, page_size: int = 0
    ) -> AsyncIterator[WorkflowInfo]:
        """The namespace's runs that the filter lets through, newest first, fetched page by page."""
        check_options("list_workflows", page_size=page_size)
        return self._calls.list_workflows(
            ListWorkflowsInput(list_filter or ListFilter(), page_size)
        )

    async def _start(
        self,
        workflow: NameReference,
        args: tuple[object, ...],
        options: StartOptions,
        result_wait_timeout: timedelta | None,
    ) -> WorkflowHandle[Any]:
        call = "execute_workflow" if result_wait_timeout is not None else "start_workflow"
        request, result_type = self._start_input(call, workflow, args, options, result_wait_timeout)
        started = await self._calls.start_workflow(request)
        return self._handle_of(request.id, started, result_type)

    def _start_input(
        self,
        call: str,
        workflow: NameReference,
        args: tuple[object, ...],
        options: StartOptions,
        result_wait_timeout: timedelta | None,
    ) -> tuple[StartWorkflowInput, object]:
        """The call for a start, and a hint for the run's result."""
        check_names(call, options, _START_OPTIONS, StartOptions.__required_keys__)
        check_options(call, **options)
        check_retry_policy(call, options.get("retry_policy"))
        check_arguments(call, run_method(workflow), args)
        hint = options.pop("result_type", None)
        signal = _start_signal(call, options)
        name = workflow_name(workflow)
        arg_types, annotated_result = types_of_call(run_method(workflow), len(args))
        request = StartWorkflowInput(
            workflow=name,
            args=args,
            arg_types=arg_types,
            result_wait_timeout=result_wait_timeout,
            **signal,
            **cast(Any, {k: v for k, v in options.items() if v is not None}),
        )
        return request, hint if hint is not None else annotated_result

    def _handle_of(
        self, workflow_id: str, started: StartedWorkflow, result_type: object
    ) -> WorkflowHandle[Any]:
        return WorkflowHandle(
            workflow_id,
            started.run_id,
            self._calls,
            self._watcher,
            self.data_converter,
            result_type=result_type,
            first_execution_run_id=started.first_execution_run_id or None,
            is_new=started.is_new,
            known_result=started.result,
        )


def _start_signal(call: str, options: StartOptions) -> dict[str, Any]:
    """Take the signal that the run begins with out of the options; empty for none."""
    signal = options.pop("start_signal", None)
    args = tuple(options.pop("start_signal_args", None) or ())
    if signal is None:
        if args:
            raise TypeError(f"{call}: option 'start_signal_args' needs a 'start_signal'")
        return {}
    return {
        "start_signal": signal_name(signal),
        "start_signal_args": args,
        "start_signal_arg_types": types_of_call(signal, len(args))[0],
    }


async def _connect(
    address: str | None, tls: TlsConfig | bool, connect_timeout: timedelta
) -> Connection:
    connection = Connection(address or os.environ.get("AETHERIS_ADDRESS") or DEFAULT_ADDRESS, tls)
    try:
        await connection.wait_ready(connect_timeout.total_seconds())
    except BaseException:
        await connection.close()
        raise
    return connection
