"""A worker: takes tasks of one task queue, runs workflow code and activities, answers.

Polls and async activities run on the event loop that calls `run`; workflow code in a thread of its
own (tasks/threads.py), and so do activities that are plain functions (activities/threads.py).
"""

import asyncio
import os
import socket
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from datetime import timedelta
from types import TracebackType
from typing import Any, Final, Self, cast

from aetheris.api.v1.worker_service_pb2_grpc import WorkerServiceStub
from aetheris_client.client import DEFAULT_NAMESPACE, Client
from aetheris_client.connection import Connection
from aetheris_client.converter import DataConverter
from aetheris_client.options import check_options
from aetheris_worker.config import WorkerConfig
from aetheris_worker.registry import activities_by_name, workflows_by_name
from aetheris_worker.session import MAX_CALLS_IN_FLIGHT, WorkerSession

STICKY_TIMEOUT: Final = timedelta(seconds=5)
ANSWER_TIMEOUT: Final = 300.0


class Worker:
    """Runs workflows and activities.

        worker = Worker(client, task_queue="census", workflows=[Census], activities=[count])
        async with worker: ...          # or: await worker.run()

    Args:
        client: A client, whose connection, namespace and converter are used; or `host:port`, for a
            connection of the worker's own.
        task_queue: Where its tasks come from.
        workflows: Classes under @workflow.defn.
        activities: Functions, or bound methods, under @activity.defn.
        namespace: The client's, or `default`, where None.
        capabilities: What this worker can do; it also gets tasks that require these.
        max_concurrent_activities: Attempts at a time.
        max_concurrent_local_activities: Attempts of local activities at a time, beside those.
        max_concurrent_workflow_tasks: Workflow tasks at a time.
        max_cached_workflows: Runs kept in memory between their tasks; 0 keeps none.
        activity_executor: Where plain-function activities run; a pool of as many threads as there
            may be activities where None.
        identity: Who it is, in histories; process and host where None.
        build_id: The build of the code that it runs, such as a commit or an image's tag. It is
            recorded with each task, and runs and task queues may want their tasks to go to one.
        graceful_shutdown_timeout: How long activities may go on once the worker shuts down; then
            they are cancelled.
        data_converter: How values become payloads; the client's where None.
    """

    def __init__(
        self,
        client: Client | str,
        *,
        task_queue: str,
        workflows: Sequence[type] = (),
        activities: Sequence[Callable[..., object]] = (),
        namespace: str | None = None,
        capabilities: Sequence[str] = (),
        max_concurrent_activities: int = 100,
        max_concurrent_local_activities: int = 100,
        max_concurrent_workflow_tasks: int = 100,
        max_cached_workflows: int = 1_000,
        activity_executor: Executor | None = None,
        identity: str | None = None,
        build_id: str | None = None,
        graceful_shutdown_timeout: timedelta = timedelta(seconds=10),
        data_converter: DataConverter | None = None,
    ) -> None:
        check_options(
            "Worker",
            task_queue=task_queue,
            namespace=namespace,
            capabilities=capabilities,
            identity=identity,
            build_id=build_id,
            graceful_shutdown_timeout=graceful_shutdown_timeout,
        )
        _check_executor(activity_executor)
        if not workflows and not activities:
            raise ValueError("a worker needs at least one workflow or activity")
        known = client.config if isinstance(client, Client) else None
        self.config = WorkerConfig(
            namespace=namespace or (known.namespace if known else DEFAULT_NAMESPACE),
            task_queue=task_queue,
            sticky_task_queue=f"{task_queue}:{uuid.uuid4()}" if max_cached_workflows else "",
            sticky_timeout=STICKY_TIMEOUT,
            identity=identity or f"{os.getpid()}@{socket.gethostname()}",
            instance_id=str(uuid.uuid4()),
            build_id=build_id or "",
            capabilities=tuple(sorted(set(capabilities))),
            converter=data_converter or (known.converter if known else DataConverter.default()),
            answer_timeout=ANSWER_TIMEOUT,
            max_concurrent_activities=max_concurrent_activities,
            max_concurrent_local_activities=max_concurrent_local_activities,
            max_concurrent_workflow_tasks=max_concurrent_workflow_tasks,
            max_cached_workflows=max_cached_workflows,
            graceful_shutdown_timeout=graceful_shutdown_timeout.total_seconds(),
        )
        self._client = client
        self._workflows = workflows_by_name(workflows)
        self._activities = activities_by_name(activities)
        self._executor = activity_executor
        self._shutdown_requested = asyncio.Event()
        self._ended: asyncio.Event | None = None
        self._background: asyncio.Task[None] | None = None
        self._body: asyncio.Task[object] | None = None

    async def run(self) -> None:
        """Work until `shutdown`; cancelling it stops at once.

        Raises:
            RpcError: The server refused the first polls, for example for an unknown namespace.
        """
        if self._ended is not None:
            raise RuntimeError("a worker runs only once")
        self._ended = asyncio.Event()
        own_connection = None
        if isinstance(self._client, Client):
            connection = self._client.connection
        else:
            connection = own_connection = Connection(self._client)
        try:
            with connection.worker_service(MAX_CALLS_IN_FLIGHT) as stub:
                await self._make_session(connection, stub).run(self._shutdown_requested)
        except BaseExceptionGroup as group:
            raise _first_of(group) from None
        finally:
            if own_connection is not None:
                await own_connection.close()
            self._ended.set()

    def _make_session(self, connection: Connection, stub: WorkerServiceStub) -> WorkerSession:
        return WorkerSession(
            self.config, connection, stub, self._workflows, self._activities, self._executor
        )

    async def shutdown(self) -> None:
        """Take no more tasks, let the running ones end, and return when all is answered."""
        self._shutdown_requested.set()
        if self._ended is not None:
            await self._ended.wait()

    async def __aenter__(self) -> Self:
        self._body = asyncio.current_task()
        self._background = asyncio.create_task(self.run(), name="aetheris worker")
        self._background.add_done_callback(self._stop_body)
        return self

    async def __aexit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        body, self._body = self._body, None
        background = self._background
        assert background is not None
        if body is not None and _has_failed(background):
            body.uncancel()
        self._shutdown_requested.set()
        await background

    def _stop_body(self, background: "asyncio.Task[None]") -> None:
        # Without its worker, the body of `async with` might wait for ever.
        if self._body is not None and _has_failed(background):
            self._body.cancel()


def _check_executor(executor: Executor | None) -> None:
    if isinstance(executor, ProcessPoolExecutor):
        raise TypeError(
            "Worker: option 'activity_executor': expected an executor of threads, found a "
            "ProcessPoolExecutor; write ThreadPoolExecutor(...), and let the activity use a "
            "process pool of its own"
        )


def _has_failed(task: "asyncio.Task[None]") -> bool:
    return task.done() and not task.cancelled() and task.exception() is not None


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that made the others be cancelled; there is one."""
    error: BaseException = group.exceptions[0]
    return _first_of(cast(Any, error)) if isinstance(error, BaseExceptionGroup) else error
