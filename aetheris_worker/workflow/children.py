"""Children, and other runs, that code starts, waits for, signals and cancels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, TypedDict, TypeVar, TypeVarTuple, Unpack, overload

from aetheris_client.definition import run_method, types_of_call, workflow_name
from aetheris_client.enums import WorkflowIdReusePolicy
from aetheris_client.options import check_arguments, check_names, check_options
from aetheris_client.retry import RetryPolicy
from aetheris_worker.runtime.futures import WorkflowFuture
from aetheris_worker.runtime.machines.child import (
    ChildOptions,
    ChildWorkflowCancellationType,
    ChildWorkflowHandle,
    ChildWorkflows,
    ParentClosePolicy,
    send_signal,
)
from aetheris_worker.runtime.machines.external import ExternalRequests, RunTarget
from aetheris_worker.runtime.run import WorkflowRun
from aetheris_worker.workflow.current_run import current_run

R = TypeVar("R")
A1 = TypeVar("A1")
A2 = TypeVar("A2")
Ts = TypeVarTuple("Ts")

# Why there are overloads for one and two arguments: see `starting`.


class StartChildOptions(TypedDict, total=False):
    """How a child is run.

    id: Its workflow id; a UUID that replay repeats where absent.
    task_queue: Where its workflow tasks go; the run's own queue where absent.
    cancellation_type: What becomes of it when the code cancels it; WAIT_CANCELLATION_COMPLETED
        where absent.
    parent_close_policy: What becomes of it when the run closes; TERMINATE where absent.
    execution_timeout, run_timeout: Limits on its chain of runs and on one run; none where absent.
    task_timeout: Limit on one workflow task; the server's default where absent.
    id_reuse_policy: What to do where a closed run has the id; a new run where absent.
    retry_policy: How it is tried again if it fails; not at all where absent.
    memo, search_attributes: Notes on the run.
    """

    id: str | None
    task_queue: str | None
    cancellation_type: ChildWorkflowCancellationType
    parent_close_policy: ParentClosePolicy
    execution_timeout: timedelta | None
    run_timeout: timedelta | None
    task_timeout: timedelta | None
    id_reuse_policy: WorkflowIdReusePolicy | None
    retry_policy: RetryPolicy | None
    memo: Mapping[str, object]
    search_attributes: Mapping[str, object]


@overload
async def start_child_workflow(
    workflow: Callable[[Any, A1], Awaitable[R]],
    a1: A1,
    /,
    **options: Unpack[StartChildOptions],
) -> ChildWorkflowHandle[R]: ...
@overload
async def start_child_workflow(
    workflow: Callable[[Any, A1, A2], Awaitable[R]],
    a1: A1,
    a2: A2,
    /,
    **options: Unpack[StartChildOptions],
) -> ChildWorkflowHandle[R]: ...
@overload
async def start_child_workflow(
    workflow: Callable[[Any, Unpack[Ts]], Awaitable[R]],
    *arguments: *Ts,
    **options: Unpack[StartChildOptions],
) -> ChildWorkflowHandle[R]: ...
@overload
async def start_child_workflow(
    workflow: Callable[..., Awaitable[R]],
    *,
    args: Sequence[Any],
    **options: Unpack[StartChildOptions],
) -> ChildWorkflowHandle[R]: ...
@overload
async def start_child_workflow(
    workflow: str | type[Any],
    *arguments: Any,
    result_type: type[R],
    **options: Unpack[StartChildOptions],
) -> ChildWorkflowHandle[R]: ...
@overload
async def start_child_workflow(
    workflow: str | type[Any],
    *arguments: Any,
    result_type: object = None,
    args: Sequence[Any] = ...,
    **options: Unpack[StartChildOptions],
) -> ChildWorkflowHandle[Any]: ...
async def start_child_workflow(
    workflow: Any, *arguments: Any, **options: Any
) -> ChildWorkflowHandle[Any]:
    """Start a child; returns when it has started.

    Args:
        workflow: A workflow's run method, its class or its name. Only of the run method do type
            checkers see what it takes and gives.
        arguments: The run method's; or all of them as the option `args`, which no type checker
            looks into.
        options: See StartChildOptions. `result_type` is a hint for the result of a workflow that
            is given by name.

    Returns:
        Its handle: await it for the result, `signal` it, `cancel()` it.

    Raises:
        ChildWorkflowError: It was not started; the cause, an ApplicationError, says why by its
            type: WorkflowAlreadyExists, NamespaceNotFound.
        TypeError, ValueError: An option, or an argument, is wrong.
        PayloadEncodeError: An argument has no encoding.
        asyncio.CancelledError: The code itself cancelled the task that waits, and so the child.
    """
    return await _start(workflow, arguments, **options)


@overload
async def execute_child_workflow(
    workflow: Callable[[Any, A1], Awaitable[R]],
    a1: A1,
    /,
    **options: Unpack[StartChildOptions],
) -> R: ...
@overload
async def execute_child_workflow(
    workflow: Callable[[Any, A1, A2], Awaitable[R]],
    a1: A1,
    a2: A2,
    /,
    **options: Unpack[StartChildOptions],
) -> R: ...
@overload
async def execute_child_workflow(
    workflow: Callable[[Any, Unpack[Ts]], Awaitable[R]],
    *arguments: *Ts,
    **options: Unpack[StartChildOptions],
) -> R: ...
@overload
async def execute_child_workflow(
    workflow: Callable[..., Awaitable[R]],
    *,
    args: Sequence[Any],
    **options: Unpack[StartChildOptions],
) -> R: ...
@overload
async def execute_child_workflow(
    workflow: str | type[Any],
    *arguments: Any,
    result_type: type[R],
    **options: Unpack[StartChildOptions],
) -> R: ...
@overload
async def execute_child_workflow(
    workflow: str | type[Any],
    *arguments: Any,
    result_type: object = None,
    args: Sequence[Any] = ...,
    **options: Unpack[StartChildOptions],
) -> Any: ...
async def execute_child_workflow(workflow: Any, *arguments: Any, **options: Any) -> Any:
    """Start a child and wait for its result; see `start_child_workflow`.

    Raises:
        ChildWorkflowError: It did not complete, or was not started; the cause says why.
    """
    handle = await _start(workflow, arguments, **options)
    return await handle


def _start(
    workflow: str | type[Any] | Callable[..., object],
    arguments: tuple[Any, ...],
    *,
    args: Sequence[Any] | None = None,
    result_type: object = None,
    **options: Unpack[StartChildOptions],
) -> WorkflowFuture[ChildWorkflowHandle[Any]]:
    run = current_run("start_child_workflow")
    if args is not None:
        if arguments:
            raise TypeError("arguments: expected only one of *arguments and args")
        arguments = tuple(args)
    if options.keys() - _OPTIONS:
        check_names("child workflow", options, _OPTIONS, required=())
    name, method = workflow_name(workflow), run_method(workflow)
    check_arguments("child workflow", method, arguments)
    # Behind `self`.
    argument_types, own_result_type = types_of_call(method, len(arguments))
    take = options.get
    how = ChildOptions(
        task_queue=take("task_queue") or run.task_queue,
        cancellation_type=take(
            "cancellation_type", ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED
        ),
        parent_close_policy=take("parent_close_policy", ParentClosePolicy.TERMINATE),
        id_reuse_policy=take("id_reuse_policy"),
        execution_timeout=take("execution_timeout"),
        run_timeout=take("run_timeout"),
        task_timeout=take("task_timeout"),
        retry_policy=take("retry_policy"),
        memo=take("memo") or {},
        search_attributes=take("search_attributes") or {},
    )
    id_ = take("id")
    return run.parts.make(ChildWorkflows).start(
        id_ if id_ is not None else str(run.uuid4()),
        name,
        arguments,
        how,
        argument_types,
        own_result_type if result_type is None else result_type,
        run.parts.make(ExternalRequests),
    )


_OPTIONS: Final = StartChildOptions.__optional_keys__


class ExternalWorkflowHandle:
    """Another run, whoever has started it.

    Attributes:
        id: Its workflow id.
        run_id: Which run; None for the newest.
    """

    def __init__(self, run: WorkflowRun, target: RunTarget) -> None:
        self.id = target.workflow_id
        self.run_id = target.run_id or None
        self._target = target
        self._requests = run.parts.make(ExternalRequests)

    async def signal(self, signal: str | Callable[..., object], *arguments: object) -> None:
        """Signal it; returns when the signal is in its history.

        Args:
            signal: A handler method of its workflow, or a signal's name.
            arguments: Of the handler.

        Raises:
            ApplicationError: It was not signalled. The type says why:
                ExternalWorkflowExecutionNotFound (there is none, or it has closed),
                NamespaceNotFound, SignalCountLimitExceeded.
            PayloadEncodeError: An argument has no encoding.
        """
        await send_signal(self._requests, self._target, signal, arguments)

    async def cancel(self, reason: str = "") -> None:
        """Ask it to cancel; returns when the request is in its history.

        Raises:
            ApplicationError: It was not asked. The type says why:
                ExternalWorkflowExecutionNotFound, NamespaceNotFound.
        """
        check_options("cancel", reason=reason)
        await self._requests.cancel(self._target, reason)


def get_external_workflow_handle(
    workflow_id: str, *, run_id: str | None = None, namespace: str | None = None
) -> ExternalWorkflowHandle:
    """A handle of another run; nothing is asked of it yet.

    Args:
        workflow_id: Its workflow id.
        run_id: Which run; the newest where absent.
        namespace: Its namespace; the run's own where absent.
    """
    run = current_run("get_external_workflow_handle")
    check_options(
        "get_external_workflow_handle", workflow_id=workflow_id, run_id=run_id, namespace=namespace
    )
    target = RunTarget(workflow_id, run_id or "", namespace=namespace or "")
    return ExternalWorkflowHandle(run, target)
