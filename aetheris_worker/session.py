"""One worker at work: puts the parts together, and takes them apart in the right order.

The end of it: polls stop first; then what runs may finish; then it is cancelled; and all the while
answers go out, since the server gives every task up only when it is answered or has timed out.
"""

import asyncio
import logging
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Executor
from typing import Any, Final

import grpc

from aetheris.api.v1.worker_service_pb2 import ShutdownWorkerRequest, WorkflowTask
from aetheris.api.v1.worker_service_pb2_grpc import WorkerServiceStub
from aetheris.api.v1.workflow_service_pb2 import (
    GetWorkflowHistoryRequest,
    GetWorkflowHistoryResponse,
)
from aetheris_client.codec import BoundedCodec
from aetheris_client.connection import Connection
from aetheris_client.errors import CodecError
from aetheris_worker.activities.caller import ActivityCaller
from aetheris_worker.activities.local import LocalActivityPool
from aetheris_worker.activities.runner import ActivityRunner
from aetheris_worker.activities.saturation import SaturationWatch
from aetheris_worker.activities.threads import ActivityThreads
from aetheris_worker.activities.watchdog import LoopWatchdog
from aetheris_worker.answers import CALLS_IN_FLIGHT, AnswerSender
from aetheris_worker.config import WorkerConfig
from aetheris_worker.polling import ActivityPollLoop, WorkflowPollLoop
from aetheris_worker.runtime.definitions import ActivityDefinition, WorkflowDefinition
from aetheris_worker.slots import Slots
from aetheris_worker.workflow_tasks.cache import MachineCache
from aetheris_worker.workflow_tasks.handler import WorkflowTaskHandler
from aetheris_worker.workflow_tasks.local_work import LocalWork
from aetheris_worker.workflow_tasks.threads import WorkflowThreads

_LOGGER: Final = logging.getLogger("aetheris.worker")

HISTORY_CALL_TIMEOUT: Final = 20.0
# What a shutdown gives cancelled activities to clean up, and then the last answers to be sent.
CANCEL_GRACE: Final = 5.0
LAST_ANSWERS_GRACE: Final = 5.0
# More than one step that blocks is given.
EVICTION_GRACE: Final = 5.0
GOODBYE_TIMEOUT: Final = 2.0
# Its answers, and a poll of each kind; the last call, that it ends, comes when polls do not.
MAX_CALLS_IN_FLIGHT: Final = CALLS_IN_FLIGHT + 2
# What cancelled user code gets where the worker ends without more ado.
ABANDON_GRACE: Final = 2.0


class WorkerSession:
    """Owns every task of a running worker. Makes at most MAX_CALLS_IN_FLIGHT calls of `stub`."""

    def __init__(
        self,
        config: WorkerConfig,
        connection: Connection,
        stub: WorkerServiceStub,
        workflows: Mapping[str, WorkflowDefinition],
        activities: Mapping[str, ActivityDefinition],
        executor: Executor | None,
    ) -> None:
        self._config = config
        self._connection = connection
        self._stub = stub
        self._workflows = workflows
        self._activities = activities
        self._executor = executor
        self._own_executor = None if executor is not None else _make_executor(config, activities)
        self._cache = MachineCache(config.max_cached_workflows)
        self._threads = WorkflowThreads()
        self._watchdog = LoopWatchdog()
        self._sender = AnswerSender(
            stub.RespondTasks, config.namespace, config.answer_timeout, config.converter.codec
        )
        self._workflow_slots = Slots(config.max_concurrent_workflow_tasks)
        self._activity_slots = Slots(config.max_concurrent_activities)
        caller = ActivityCaller(activities, config.converter, executor or self._own_executor)
        self._group = asyncio.TaskGroup()
        # Not in the group, which waits for its tasks: user code may never end.
        self._spawned: set[asyncio.Task[None]] = set()
        self._crashed = asyncio.Event()
        self._crash: BaseException | None = None
        self._runner = ActivityRunner(
            config,
            activities,
            self._sender,
            caller,
            self._activity_slots,
            self._take_extra_workflow_task,
            self._spawn,
        )
        self._saturation = SaturationWatch(
            config.max_concurrent_activities,
            self._runner.running_types,
            lambda: self._runner.ended_count,
        )
        self._local_work = LocalWork(LocalActivityPool(config, activities, caller, self._spawn))
        self._handler = WorkflowTaskHandler(
            config,
            workflows,
            activities,
            self._cache,
            self._sender,
            self._get_history,
            self._runner,
            self._local_work,
            self._workflow_slots,
            self._threads,
            self._take_workflow_task,
            self._spawn,
        )

    async def run(self, shutdown_requested: asyncio.Event) -> None:
        """Work until the event, then come to an orderly end.

        Raises:
            ExceptionGroup: Of the RpcError with which the server refused the first polls.
        """
        self._log_start()
        self._watchdog.start()
        self._saturation.start()
        try:
            async with self._group:
                sending = self._group.create_task(self._sender.run())
                watching = self._group.create_task(self._raise_crash())
                poll_loops = self._make_poll_loops()
                polls = [self._group.create_task(poll_loop.run()) for poll_loop in poll_loops]
                await shutdown_requested.wait()
                self._handler.stop_asking()
                self._local_work.stop()
                self._runner.stop_asking()
                for poll_loop in poll_loops:
                    poll_loop.stop()
                await asyncio.wait(polls)
                await self._say_that_it_ends(poll_loops)
                await self._wind_down()
                sending.cancel()
                watching.cancel()
        finally:
            try:
                await self._abandon()
                await self._take_runs_down()
                await self._threads.end_given_up()
            finally:
                # Also where the end is cancelled in its turn.
                self._stop_threads()

    def _stop_threads(self) -> None:
        self._threads.stop()
        self._watchdog.stop()
        self._saturation.stop()
        if self._own_executor is not None:
            self._own_executor.shutdown(wait=False)

    def _log_start(self) -> None:
        config = self._config
        _LOGGER.info(
            "worker %s of %s: namespace %r, task queue %r, workflows %s, activities %s, "
            "capabilities %s",
            config.identity,
            self._connection.address,
            config.namespace,
            config.task_queue,
            sorted(self._workflows),
            sorted(self._activities),
            list(config.capabilities),
        )
        # What executors of the standard library have; others may know no such limit.
        threads = getattr(self._executor, "_max_workers", None)
        if isinstance(threads, int) and threads < config.max_concurrent_activities:
            plain = sorted(item.name for item in self._activities.values() if not item.is_async)
            _LOGGER.warning(
                "activity_executor has %d threads and max_concurrent_activities is %d: attempts "
                "beyond the threads wait while their timeouts run: %s",
                threads,
                config.max_concurrent_activities,
                ", ".join(plain),
            )

    async def _say_that_it_ends(
        self, poll_loops: Sequence[WorkflowPollLoop | ActivityPollLoop]
    ) -> None:
        """So that the server waits for nothing that it has given to this worker's last polls."""
        config = self._config
        request = ShutdownWorkerRequest(
            namespace=config.namespace,
            task_queue=config.task_queue,
            sticky_task_queue=config.sticky_task_queue,
            identity=config.identity,
            worker_instance_id=config.instance_id,
        )
        for poll_loop in poll_loops:
            if isinstance(poll_loop, WorkflowPollLoop):
                request.received_workflow_poll_number = poll_loop.received_number
            else:
                request.received_activity_poll_number = poll_loop.received_number
        try:
            await self._stub.ShutdownWorker(request, timeout=GOODBYE_TIMEOUT)
        except grpc.aio.AioRpcError as error:
            # The server learns of it by its timeouts.
            _LOGGER.info("the server was not told of the end: %s", error.details())

    def _make_poll_loops(self) -> list[WorkflowPollLoop | ActivityPollLoop]:
        # One call of each kind: a second one was measured to split the batches and save nothing.
        poll_loops: list[WorkflowPollLoop | ActivityPollLoop] = []
        if self._workflows:
            poll_loops.append(
                WorkflowPollLoop(
                    self._stub, self._config, self._workflow_slots, self._take_workflow_task
                )
            )
        if self._activities:
            runner = self._runner
            poll_loops.append(
                ActivityPollLoop(
                    self._stub, self._config, self._activity_slots, runner.start, runner.cancel
                )
            )
        return poll_loops

    async def _wind_down(self) -> None:
        if await self._is_quiet_within(self._config.graceful_shutdown_timeout):
            return
        self._runner.cancel_all()
        self._local_work.cancel_all()
        if await self._is_quiet_within(CANCEL_GRACE):
            return
        _LOGGER.warning("given up at shutdown: %s", self._abandoned())
        for task in list(self._spawned):
            task.cancel()
        await self._is_quiet_within(LAST_ANSWERS_GRACE)

    async def _abandon(self) -> None:
        """Wait no longer for user code, which may swallow its cancellation."""
        self._runner.cancel_all()
        self._local_work.cancel_all()
        for task in list(self._spawned):
            task.cancel()
        if self._spawned:
            await asyncio.wait(list(self._spawned), timeout=ABANDON_GRACE)
        if self._spawned:
            _LOGGER.error(
                "still running after shutdown, in spite of cancellation: %s", self._abandoned()
            )

    def _abandoned(self) -> str:
        names = (self._runner.abandoned(), self._local_work.abandoned())
        return ", ".join(name for name in names if name)

    async def _take_runs_down(self) -> None:
        """Close the code of cached runs, which may block."""
        self._handler.evict_all()
        try:
            async with asyncio.timeout(EVICTION_GRACE):
                await self._threads.wait_idle()
        except TimeoutError:
            _LOGGER.error("workflow code that hangs keeps cached runs from being taken down")

    async def _raise_crash(self) -> None:
        """What a spawned task raised by mistake ends the worker, rather than pass unnoticed."""
        await self._crashed.wait()
        assert self._crash is not None
        raise self._crash

    async def _is_quiet_within(self, timeout: float) -> bool:
        """Wait until nothing runs and all is answered; answers may bring new tasks."""
        try:
            async with asyncio.timeout(timeout):
                while self._spawned or not (self._threads.is_idle and self._sender.is_idle):
                    if self._spawned:
                        await asyncio.wait(list(self._spawned))
                    await self._threads.wait_idle()
                    await self._sender.wait_idle()
        except TimeoutError:
            return False
        return True

    def _take_workflow_task(self, task: WorkflowTask) -> None:
        """One for which there is a slot."""
        if self._config.converter.codec is None:
            self._handler.handle(task)
        else:
            self._spawn(self._decode_and_handle(task, self._config.converter.codec))

    def _take_extra_workflow_task(self, task: WorkflowTask) -> None:
        """One that came with an activity's answer, whether or not there is a slot."""
        self._workflow_slots.take_one_more()
        self._take_workflow_task(task)

    async def _decode_and_handle(self, task: WorkflowTask, codec: BoundedCodec) -> None:
        # Workflow code cannot wait for a codec, so it only ever sees payloads that are decoded.
        try:
            await codec.decode_message(task)
        except CodecError as error:
            self._handler.fail(task, error)
        else:
            self._handler.handle(task)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._spawned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._spawned.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self._crash is None:
            self._crash = error
            self._crashed.set()

    async def _get_history(self, request: GetWorkflowHistoryRequest) -> GetWorkflowHistoryResponse:
        response = await self._connection.call(
            lambda stubs: stubs.workflow_service.GetWorkflowHistory, request, HISTORY_CALL_TIMEOUT
        )
        if self._config.converter.codec is not None:
            await self._config.converter.codec.decode_message(response)
        return response


def _make_executor(
    config: WorkerConfig, activities: Mapping[str, ActivityDefinition]
) -> ActivityThreads | None:
    if all(activity.is_async for activity in activities.values()):
        return None
    return ActivityThreads(
        config.max_concurrent_activities + config.max_concurrent_local_activities
    )
