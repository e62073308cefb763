"""Makes decisions: takes workflow tasks and queries, has the code run, hands in the answers.

The code runs in a thread of its own (tasks/threads.py), one step of a run at a time
(tasks/lanes.py); all else happens on the event loop. A run is in the cache from its decision on; if
the server does not take the decision, the run leaves, and its next task starts from the history.
"""

import functools
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from aetheris.api.v1.command_pb2 import Command, ScheduleActivityTaskCommandAttributes
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris.api.v1.worker_service_pb2 import (
    ActivityTask,
    RespondWorkflowTaskCompletedRequest,
    TaskAnswer,
    TaskAnswerResult,
    WorkflowQuery,
    WorkflowQueryResult,
    WorkflowTask,
)
from aetheris_client.errors import AetherisError, RpcError
from aetheris_worker.answers import AnswerSender
from aetheris_worker.config import SDK_NAME, SDK_VERSION, WorkerConfig
from aetheris_worker.runtime.definitions import WorkflowDefinition
from aetheris_worker.runtime.errors import DeadlockError
from aetheris_worker.runtime.info import RunId
from aetheris_worker.runtime.replay import RunMachine
from aetheris_worker.slots import Slots
from aetheris_worker.workflow_tasks.cache import MachineCache
from aetheris_worker.workflow_tasks.history import GetHistory, fetch_history
from aetheris_worker.workflow_tasks.lanes import RunLanes
from aetheris_worker.workflow_tasks.outcomes import (
    MAX_DECISION_BYTES,
    MAX_QUERIES_BYTES,
    MAX_QUERY_BYTES,
    DecisionRefusedError,
    DecisionTooLargeError,
    answer_query,
    cause_of,
    failure_of,
    query_failed,
)
from aetheris_worker.workflow_tasks.threads import WorkflowThreads

_LOGGER: Final = logging.getLogger("aetheris.worker")

# Activities that go with the decision save a poll each, but may keep a fan-out from spreading over
# the workers: so only a few of each decision.
MAX_EAGER_ACTIVITIES: Final = 4

_INVALID_ARGUMENT: Final = 3
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


class StillHangingError(AetherisError):
    """An earlier attempt hangs in a thread that nothing can stop."""

    def __init__(self, label: str) -> None:
        super().__init__(f"workflow code of {label} still blocks a thread of this worker")


@dataclass(slots=True)
class _Step:
    """A task whose code is run; the machine is made on the way where none is cached."""

    task: WorkflowTask
    machine: RunMachine | None
    has_come_back: bool = False

    def progress(self) -> int:
        """See RunMachine.progress."""
        return 0 if self.machine is None else self.machine.progress

    def come_back(self) -> None:
        """Its code was given up, and has ended after all."""
        try:
            if self.machine is not None:
                self.machine.evict()
        finally:
            self.has_come_back = True


class WorkflowTaskHandler:
    """Owns the cache. Each task occupies one slot, until its answer is with the server.

    `take_next` gets the workflow tasks that come with answers, each in the slot of the task before.
    """

    def __init__(
        self,
        config: WorkerConfig,
        definitions: Mapping[str, WorkflowDefinition],
        cache: MachineCache,
        sender: AnswerSender,
        get_history: GetHistory,
        eager: EagerActivities,
        slots: Slots,
        threads: WorkflowThreads,
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
        self._threads = threads
        self._lanes = RunLanes()
        # By run id; those that have come back leave with the next one that hangs.
        self._hanging: dict[str, _Step] = {}
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
        run_id = task.workflow_execution.run_id
        self._lanes.enter(run_id, functools.partial(self._begin, task))

    def evict_all(self) -> None:
        """Take all cached runs down."""
        for run_id, machine in self._cache.clear():
            self._evict(run_id, machine)

    def _begin(self, task: WorkflowTask) -> None:
        """In the run's lane."""
        try:
            self._check_not_hanging(task)
            if task.HasField("query"):
                self._begin_query(task)
                return
            machine = self._continuing(task)
            events = task.history.events
            if task.next_page_token or (machine is None and _begin_of(events) != 1):
                self._spawn(self._fetch_and_decide(task))
            else:
                self._decide(task, machine, events)
        except Exception as error:  # noqa: BLE001 - the server and the log hear of it
            self._lanes.leave(task.workflow_execution.run_id)
            self.fail(task, error)

    def _check_not_hanging(self, task: WorkflowTask) -> None:
        """One thread that hangs in a run's code is enough: another attempt would hang as well."""
        run_id = task.workflow_execution.run_id
        hanging = self._hanging.get(run_id)
        if hanging is None:
            return
        if hanging.has_come_back:
            del self._hanging[run_id]
        else:
            raise StillHangingError(_label(task))

    def _begin_query(self, task: WorkflowTask) -> None:
        machine = self._cache.find(task.workflow_execution.run_id)
        # A cached run is at its last decision, which is what a query is about.
        if machine is not None and machine.started_event_id >= task.previous_started_event_id:
            self._threads.submit(
                _label(task),
                functools.partial(self._ask, machine, task.query),
                functools.partial(self._on_asked, task, machine),
                machine.evict,
            )
        else:
            self._spawn(self._replay_for_query(task))
            self._lanes.leave(task.workflow_execution.run_id)

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
        except BaseException as error:
            self._lanes.leave(task.workflow_execution.run_id)
            if isinstance(error, (RpcError, TimeoutError)):
                # Not the code's fault: the task runs into its timeout and is offered again.
                _LOGGER.warning("no history of %s: %s", _label(task), error)
                self._slots.give_back()
            elif isinstance(error, Exception):
                # A codec raises what it pleases.
                self.fail(task, error)
            else:
                raise
        else:
            self._decide(task, machine, events)

    async def _replay_for_query(self, task: WorkflowTask) -> None:
        """Build the run's state from its history, only to ask it."""
        step = _Step(task, None)
        try:
            events = await self._fetch(task, whole=True)
            work = functools.partial(self._replay_and_ask, step, events)
            result = await self._threads.run(_label(task), work, step.come_back, step.progress)
        except Exception as error:  # noqa: BLE001 - the query's caller hears of it
            result = query_failed(error, self._config.converter)
        self._send_query_result(task, result)

    async def _fetch(self, task: WorkflowTask, *, whole: bool) -> Sequence[HistoryEvent]:
        return await fetch_history(self._get_history, self._config.namespace, task, whole=whole)

    def _decide(
        self, task: WorkflowTask, cached: RunMachine | None, events: Sequence[HistoryEvent]
    ) -> None:
        step = _Step(task, cached)
        self._threads.submit(
            _label(task),
            functools.partial(self._advance, step, events),
            functools.partial(self._on_advanced, step),
            step.come_back,
            step.progress,
        )

    def _on_advanced(self, step: _Step, answer: object, error: BaseException | None) -> None:
        is_handed_in = False
        try:
            is_handed_in = self._try_hand_in(step, answer, error)
        finally:
            if not is_handed_in:
                self._lanes.leave(step.task.workflow_execution.run_id)

    def _try_hand_in(self, step: _Step, answer: object, error: BaseException | None) -> bool:
        """Send the decision, and keep the lane until the server has it: a query must not be asked
        of a state that may never be. False where there is no decision.
        """
        task, machine = step.task, step.machine
        run_id = task.workflow_execution.run_id
        if isinstance(answer, TaskAnswer) and machine is not None:
            reserved = self._reserve_eager(answer)
            if machine.is_closed or machine.is_tainted:
                self._cache.forget(run_id, machine)
            else:
                for evicted_id, evicted in self._cache.put(run_id, machine):
                    self._evict(evicted_id, evicted)
            self._sender.send_nowait(
                answer, functools.partial(self._on_decided, task, machine, reserved)
            )
            return True
        if machine is not None:
            self._cache.forget(run_id, machine)
        if isinstance(error, DeadlockError):
            self._note_hanging(run_id, step)
        self.fail(task, error)
        return False

    def _note_hanging(self, run_id: str, step: _Step) -> None:
        hanging = {key: other for key, other in self._hanging.items() if not other.has_come_back}
        self._hanging = {**hanging, run_id: step}

    def _drop(self, task: WorkflowTask, machine: RunMachine) -> None:
        run_id = task.workflow_execution.run_id
        self._cache.forget(run_id, machine)
        self._evict(run_id, machine)

    def _evict(self, run_id: str, machine: RunMachine) -> None:
        """Take down a run that has left the cache; its code may run, and block."""

        def on_evicted(_: object, error: BaseException | None) -> None:
            if error is not None:
                _LOGGER.error("taking run %s down failed", run_id, exc_info=error)
            self._lanes.leave(run_id)

        def begin() -> None:
            if self._cache.find(run_id) is machine:
                # It was in use when it should have left, and is the newest again.
                self._lanes.leave(run_id)
                return
            label = f"{machine.run.id.workflow_id!r}, which leaves the cache"
            self._threads.submit(label, machine.evict, on_evicted, machine.evict)

        self._lanes.enter(run_id, begin)

    # In a thread for workflow code.

    def _advance(self, step: _Step, events: Sequence[HistoryEvent]) -> TaskAnswer:
        machine = step.machine = step.machine or self._new_machine(step.task)
        try:
            new_events = events[machine.started_event_id + 1 - _begin_of(events) :]
            produced = machine.advance(new_events)
            commands = [command.to_proto() for command in produced]
            answer = self._completed(step.task, machine, commands)
            size = answer.ByteSize()
            if size > MAX_DECISION_BYTES:
                reason = f"it has {size} bytes; {MAX_DECISION_BYTES} is the limit"
                raise DecisionTooLargeError(reason)
        except BaseException:
            machine.evict()
            raise
        if machine.is_closed or machine.is_tainted:
            machine.evict()
        return answer

    def _replay_and_ask(self, step: _Step, events: Sequence[HistoryEvent]) -> WorkflowQueryResult:
        machine = step.machine = self._new_machine(step.task)
        try:
            machine.advance(events, is_whole=False)
            return self._ask(machine, step.task.query)
        finally:
            machine.evict()

    def _ask(self, machine: RunMachine, query: WorkflowQuery) -> WorkflowQueryResult:
        return answer_query(machine, query, self._config.converter, MAX_QUERY_BYTES)

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
            result = answer_query(machine, query, self._config.converter, max(0, left))
            left -= result.ByteSize()
            completed.query_results[query_id].CopyFrom(result)
        return answer

    # On the event loop again.

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
        try:
            self._take_result(task, machine, reserved, result)
        finally:
            self._lanes.leave(task.workflow_execution.run_id)

    def _take_result(
        self, task: WorkflowTask, machine: RunMachine, reserved: int, result: TaskAnswerResult
    ) -> None:
        if result.HasField("error"):
            # The code is ahead of the history now.
            self._drop(task, machine)
            self._eager.release(reserved)
            if result.error.code == _RESOURCE_EXHAUSTED:
                self.fail(task, DecisionTooLargeError(result.error.message))
            elif result.error.code == _INVALID_ARGUMENT:
                _log_refused(task, result)
                # History knows of it only where it has looked at the decision itself. Else the task
                # would time out, again and again, and nobody would be told why.
                self._send_failure(task, DecisionRefusedError(result.error.message))
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

    def fail(self, task: WorkflowTask, reason: BaseException | None) -> None:
        """Say that the task, or the query, led to this."""
        error = reason if isinstance(reason, Exception) else RuntimeError(f"ended by {reason!r}")
        if task.HasField("query"):
            self._send_query_result(task, query_failed(error, self._config.converter))
            return
        _LOGGER.error("workflow task of %s failed", _label(task), exc_info=error)
        self._send_failure(task, error)

    def _send_failure(self, task: WorkflowTask, error: Exception) -> None:
        answer = TaskAnswer()
        failed = answer.workflow_task_failed
        failed.task_token = task.task_token
        failed.identity = self._config.identity
        failed.cause = cause_of(error)
        failed.failure.CopyFrom(failure_of(error, self._config.converter))
        self._sender.send_nowait(answer, functools.partial(self._on_sent, task))

    def _on_asked(
        self, task: WorkflowTask, machine: RunMachine, result: object, error: BaseException | None
    ) -> None:
        run_id = task.workflow_execution.run_id
        if isinstance(result, WorkflowQueryResult):
            self._send_query_result(task, result)
        else:
            self.fail(task, error)
        if error is not None:
            # It hangs in a thread, which takes it down.
            self._cache.forget(run_id, machine)
        elif machine.is_tainted:
            self._drop(task, machine)
        self._lanes.leave(run_id)

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
