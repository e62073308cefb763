"""Makes decisions: takes workflow tasks and queries, runs the code, hands in the answers.

Runs on the event loop, without awaiting, as long as the run is cached or its history came along;
only a history that must be fetched takes a task of its own. A run is in the cache from its decision
on; if the server does not take the decision, the run leaves, and its next task starts from the
history.
"""

import functools
import logging
import time
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol

from aetheris.api.v1.command_pb2 import Command, ScheduleActivityTaskCommandAttributes
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris.api.v1.worker_service_pb2 import (
    ActivityTask,
    RespondWorkflowTaskCompletedRequest,
    TaskAnswer,
    TaskAnswerResult,
    WorkflowQueryResult,
    WorkflowTask,
)
from aetheris_client.errors import AetherisError, RpcError
from aetheris_worker.answers import AnswerSender
from aetheris_worker.config import SDK_NAME, SDK_VERSION, WorkerConfig
from aetheris_worker.runtime.commands import ProducedCommand
from aetheris_worker.runtime.definitions import WorkflowDefinition
from aetheris_worker.runtime.info import RunId
from aetheris_worker.runtime.replay import RunMachine
from aetheris_worker.slots import Slots
from aetheris_worker.tasks.cache import RunCache
from aetheris_worker.tasks.history import GetHistory, fetch_history
from aetheris_worker.tasks.outcomes import (
    MAX_DECISION_BYTES,
    MAX_QUERIES_BYTES,
    MAX_QUERY_BYTES,
    DecisionTooLargeError,
    answer_query,
    cause_of,
    failure_of,
    query_failed,
)
from aetheris_worker.tasks.watchdog import Watchdog

_LOGGER: Final = logging.getLogger("aetheris.worker")

# Activities that go with the decision save a poll each, but may keep a fan-out from spreading over
# the workers: so only a few of each decision.
MAX_EAGER_ACTIVITIES: Final = 4

_NOT_FOUND: Final = 5
_RESOURCE_EXHAUSTED: Final = 8
# Room for what is said of queries that failed.
_SPARE_BYTES: Final = 256 * 1024


class EagerActivities(Protocol):
    """What becomes of activities that this worker could run at once."""

    def try_reserve(self, scheduled: ScheduleActivityTaskCommandAttributes) -> bool:
        """Keep a slot, if the activity could run here and there is one."""
        ...

    def release(self, count: int) -> None:
        """Slots kept in vain."""
        ...

    def start(self, task: ActivityTask) -> None:
        """Run it, in a slot that was kept for it."""
        ...


class WorkflowNotRegisteredError(AetherisError):
    """A task came for a workflow type that this worker does not have."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"workflow type {name!r} is not registered here; there are {known}")


class WorkflowTaskHandler:
    """Owns the cache. Each task occupies one slot, until its answer is with the server.

    `take_next` gets the workflow tasks that come with answers, each in the slot of the task before.
    """

    def __init__(
        self,
        config: WorkerConfig,
        definitions: Mapping[str, WorkflowDefinition],
        cache: RunCache,
        sender: AnswerSender,
        get_history: GetHistory,
        eager: EagerActivities,
        slots: Slots,
        watchdog: Watchdog,
        take_next: Callable[[WorkflowTask], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._config = config
        self._definitions = definitions
        self._cache = cache
        self._sender = sender
        self._get_history = get_history
        self._eager = eager
        self._slots = slots
        self._watchdog = watchdog
        self._take_next = take_next
        self._spawn = spawn
        self._asks_for_more = True
        self._plain_completed = _completed_template(config)
        self._sticky_completed = _completed_template(config)
        if config.sticky_task_queue:
            self._sticky_completed.return_new_workflow_task = True
            sticky = self._sticky_completed.sticky_attributes
            sticky.worker_task_queue = config.sticky_task_queue
            sticky.schedule_to_start_timeout.FromTimedelta(config.sticky_timeout)

    def stop_asking(self) -> None:
        """Ask for no more tasks along with answers: the worker shuts down."""
        self._asks_for_more = False

    def handle(self, task: WorkflowTask) -> None:
        """Decide, or answer the query; the caller has taken a slot for it."""
        if task.HasField("query"):
            machine = self._cache.find(task.workflow_execution.run_id)
            # A cached run is at its last decision, which is what a query is about.
            if machine is not None and machine.started_event_id >= task.previous_started_event_id:
                self._answer_query(task, machine)
            else:
                self._spawn(self._replay_for_query(task))
            return
        machine = self._continuing(task)
        events = task.history.events
        if task.next_page_token or (machine is None and _begin_of(events) != 1):
            self._spawn(self._fetch_and_decide(task))
        else:
            self._decide(task, machine, events)

    def _continuing(self, task: WorkflowTask) -> RunMachine | None:
        """The cached run, if the task's events go on where it stands."""
        machine = self._cache.find(task.workflow_execution.run_id)
        if (
            machine is not None
            and machine.started_event_id == task.previous_started_event_id
            and _begin_of(task.history.events) <= machine.started_event_id + 1
        ):
            return machine
        return None

    async def _fetch_and_decide(self, task: WorkflowTask) -> None:
        machine = self._continuing(task)
        try:
            events = await self._fetch(task, whole=machine is None)
            if machine is not None and self._continuing(task) is not machine:
                # It has left the cache meanwhile.
                machine = None
                events = await self._fetch(task, whole=True)
        except (RpcError, TimeoutError) as error:
            # Not the code's fault: the task runs into its timeout and is offered again.
            _LOGGER.warning("no history of %s: %s", _label(task), error)
            self._slots.give_back()
        except Exception as error:  # noqa: BLE001 - a codec raises what it pleases
            self.fail(task, error)
        else:
            self._decide(task, machine, events)

    async def _replay_for_query(self, task: WorkflowTask) -> None:
        """Build the run's state from its history, only to ask it."""
        machine: RunMachine | None = None
        try:
            events = await self._fetch(task, whole=True)
            machine = self._new_machine(task)
            self._advance(task, machine, events, is_whole=False)
            with self._watched(task):
                result = answer_query(machine, task.query, self._config.converter, MAX_QUERY_BYTES)
        except Exception as error:  # noqa: BLE001 - the query's caller hears of it
            result = query_failed(error, self._config.converter)
        finally:
            if machine is not None:
                with self._watched(task):
                    machine.evict()
        self._send_query_result(task, result)

    async def _fetch(self, task: WorkflowTask, *, whole: bool) -> Sequence[HistoryEvent]:
        return await fetch_history(self._get_history, self._config.namespace, task, whole=whole)

    def _decide(
        self, task: WorkflowTask, cached: RunMachine | None, events: Sequence[HistoryEvent]
    ) -> None:
        run_id = task.workflow_execution.run_id
        machine = cached
        try:
            if machine is None:
                machine = self._new_machine(task)
            new_events = events[machine.started_event_id + 1 - _begin_of(events) :]
            produced = self._advance(task, machine, new_events, is_whole=True)
            commands = [command.to_proto() for command in produced]
            answer = self._completed(task, machine, commands)
            size = answer.ByteSize()
            if size > MAX_DECISION_BYTES:
                reason = f"it has {size} bytes; {MAX_DECISION_BYTES} is the limit"
                raise DecisionTooLargeError(reason)
        except Exception as error:  # noqa: BLE001 - the server and the log hear of it
            if machine is not None:
                self._drop(task, machine)
            self.fail(task, error)
            return
        reserved = self._reserve_eager(answer)
        if machine.is_closed or machine.is_tainted:
            self._drop(task, machine)
        else:
            with self._watched(task):
                # Another run may be evicted for it.
                self._cache.put(run_id, machine)
        self._sender.send_nowait(
            answer, functools.partial(self._on_decided, task, machine, reserved)
        )

    def _advance(
        self,
        task: WorkflowTask,
        machine: RunMachine,
        events: Sequence[HistoryEvent],
        *,
        is_whole: bool,
    ) -> Sequence[ProducedCommand]:
        with self._watched(task):
            return machine.advance(events, is_whole=is_whole)

    @contextmanager
    def _watched(self, task: WorkflowTask) -> Generator[None]:
        self._watchdog.watched = (_label(task), time.monotonic())
        try:
            yield
        finally:
            self._watchdog.watched = None

    def _drop(self, task: WorkflowTask, machine: RunMachine) -> None:
        with self._watched(task):
            self._cache.drop(task.workflow_execution.run_id, machine)

    def _completed(
        self, task: WorkflowTask, machine: RunMachine, commands: list[Command]
    ) -> TaskAnswer:
        answer = TaskAnswer()
        completed = answer.workflow_task_completed
        goes_on = self._asks_for_more and not machine.is_closed
        completed.CopyFrom(self._sticky_completed if goes_on else self._plain_completed)
        completed.task_token = task.task_token
        completed.commands.extend(commands)
        completed.unhandled_signal_count = machine.unhandled_signal_count
        if not task.queries:
            return answer
        # The decision itself comes first.
        left = min(MAX_QUERIES_BYTES, MAX_DECISION_BYTES - _SPARE_BYTES - completed.ByteSize())
        for query_id, query in task.queries.items():
            with self._watched(task):
                result = answer_query(machine, query, self._config.converter, max(0, left))
            left -= result.ByteSize()
            completed.query_results[query_id].CopyFrom(result)
        return answer

    def _reserve_eager(self, answer: TaskAnswer) -> int:
        """Ask for the activities that this worker could run at once; returns how many."""
        reserved = 0
        for command in answer.workflow_task_completed.commands:
            if command.HasField("schedule_activity_task_command_attributes"):
                scheduled = command.schedule_activity_task_command_attributes
                if reserved < MAX_EAGER_ACTIVITIES and self._eager.try_reserve(scheduled):
                    scheduled.request_eager_execution = True
                    reserved += 1
        return reserved

    def _on_decided(
        self, task: WorkflowTask, machine: RunMachine, reserved: int, result: TaskAnswerResult
    ) -> None:
        if result.HasField("error"):
            # The code is ahead of the history now.
            self._drop(task, machine)
            self._eager.release(reserved)
            if result.error.code == _RESOURCE_EXHAUSTED:
                self.fail(task, DecisionTooLargeError(result.error.message))
            else:
                _log_refused(task, result)
                self._slots.give_back()
            return
        completed = result.workflow_task_completed
        for activity_task in completed.activity_tasks:
            self._eager.start(activity_task)
        self._eager.release(reserved - len(completed.activity_tasks))
        if completed.HasField("workflow_task"):
            self._take_next(completed.workflow_task)
        else:
            self._slots.give_back()

    def fail(self, task: WorkflowTask, error: Exception) -> None:
        """Say that the task, or the query, led to this."""
        if task.HasField("query"):
            self._send_query_result(task, query_failed(error, self._config.converter))
            return
        _LOGGER.error("workflow task of %s failed", _label(task), exc_info=error)
        answer = TaskAnswer()
        failed = answer.workflow_task_failed
        failed.task_token = task.task_token
        failed.identity = self._config.identity
        failed.cause = cause_of(error)
        failed.failure.CopyFrom(failure_of(error, self._config.converter))
        self._sender.send_nowait(answer, functools.partial(self._on_sent, task))

    def _answer_query(self, task: WorkflowTask, machine: RunMachine) -> None:
        with self._watched(task):
            result = answer_query(machine, task.query, self._config.converter, MAX_QUERY_BYTES)
        self._send_query_result(task, result)
        if machine.is_tainted:
            self._drop(task, machine)

    def _send_query_result(self, task: WorkflowTask, result: WorkflowQueryResult) -> None:
        answer = TaskAnswer()
        completed = answer.query_task_completed
        completed.task_token = task.task_token
        completed.identity = self._config.identity
        completed.result.CopyFrom(result)
        self._sender.send_nowait(answer, functools.partial(self._on_sent, task))

    def _on_sent(self, task: WorkflowTask, result: TaskAnswerResult) -> None:
        if result.HasField("error"):
            _log_refused(task, result)
        self._slots.give_back()

    def _new_machine(self, task: WorkflowTask) -> RunMachine:
        name = task.workflow_type.name
        definition = self._definitions.get(name)
        if definition is None:
            raise WorkflowNotRegisteredError(name, sorted(self._definitions))
        execution = task.workflow_execution
        run_id = RunId(self._config.namespace, execution.workflow_id, execution.run_id)
        return RunMachine(definition, run_id, self._config.converter)


def _completed_template(config: WorkerConfig) -> RespondWorkflowTaskCompletedRequest:
    """What is the same in all decisions."""
    return RespondWorkflowTaskCompletedRequest(
        identity=config.identity,
        worker_instance_id=config.instance_id,
        capabilities=config.capabilities,
        sdk_name=SDK_NAME,
        sdk_version=SDK_VERSION,
    )


def _begin_of(events: Sequence[HistoryEvent]) -> int:
    """The id of the first event; 0 if there is none."""
    return events[0].event_id if events else 0


def _label(task: WorkflowTask) -> str:
    return f"{task.workflow_type.name} {task.workflow_execution.workflow_id!r}"


def _log_refused(task: WorkflowTask, result: TaskAnswerResult) -> None:
    error = result.error
    # A stale task is an everyday thing: it timed out, or the run was terminated.
    level = logging.DEBUG if error.code == _NOT_FOUND else logging.WARNING
    _LOGGER.log(level, "the answer for %s was not taken: %s", _label(task), error.message)
