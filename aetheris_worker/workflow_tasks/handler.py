"""Makes decisions: takes workflow tasks and queries, has the code run, hands in the answers.

The code runs in a thread of its own (threads.py), one step of a run at a time
(lanes.py); all else happens on the event loop. A run is in the cache from its decision on; if
the server does not take the decision, the run leaves, and its next task starts from the history.
"""

import functools
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any, Final

from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris.api.v1.worker_service_pb2 import (
    TaskAnswer,
    TaskAnswerResult,
    WorkflowQueryResult,
    WorkflowTask,
)
from aetheris_client.errors import AetherisError, RpcError
from aetheris_worker.answers import AnswerSender
from aetheris_worker.config import WorkerConfig
from aetheris_worker.runtime.definitions import WorkflowDefinition
from aetheris_worker.runtime.errors import DeadlockError
from aetheris_worker.runtime.replay import RunMachine
from aetheris_worker.slots import Slots
from aetheris_worker.workflow_tasks.cache import MachineCache
from aetheris_worker.workflow_tasks.deciding import Decider, Step
from aetheris_worker.workflow_tasks.eager import EagerActivities, reserve_eager
from aetheris_worker.workflow_tasks.history import GetHistory, fetch_history, first_event_id
from aetheris_worker.workflow_tasks.lanes import RunLanes
from aetheris_worker.workflow_tasks.local_work import LocalWork
from aetheris_worker.workflow_tasks.outcomes import (
    DecisionRefusedError,
    DecisionTooLargeError,
    located_message,
    query_failed,
)
from aetheris_worker.workflow_tasks.replies import Replies, label_of, log_refused
from aetheris_worker.workflow_tasks.threads import WorkflowThreads

_LOGGER: Final = logging.getLogger("aetheris.worker")

_INVALID_ARGUMENT: Final = 3
_NOT_FOUND: Final = 5
_RESOURCE_EXHAUSTED: Final = 8


class StillHangingError(AetherisError):
    """An earlier attempt hangs in a thread that nothing can stop."""

    def __init__(self, label: str) -> None:
        super().__init__(f"workflow code of {label} still blocks a thread of this worker")


class WorkflowTaskHandler:
    """Owns the cache. Each task occupies one slot, until its answer is with the server.

    `take_next` gets the workflow tasks that come with answers, each in the slot of the task before.
    """

    def __init__(
        self,
        config: WorkerConfig,
        definitions: Mapping[str, WorkflowDefinition],
        activity_types: Collection[str],
        cache: MachineCache,
        sender: AnswerSender,
        get_history: GetHistory,
        eager: EagerActivities,
        local_work: LocalWork,
        slots: Slots,
        threads: WorkflowThreads,
        take_next: Callable[[WorkflowTask], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._config = config
        self._decider = Decider(config, definitions, activity_types)
        self._replies = Replies(config, sender, slots)
        self._cache = cache
        self._sender = sender
        self._get_history = get_history
        self._eager = eager
        self._local_work = local_work
        self._slots = slots
        self._threads = threads
        self._lanes = RunLanes()
        # By run id; those that have come back leave with the next one that hangs.
        self._hanging: dict[str, Step] = {}
        self._take_next = take_next
        self._spawn = spawn

    def stop_asking(self) -> None:
        """Ask for no more tasks along with answers: the worker shuts down."""
        self._decider.stop_asking()

    def handle(self, task: WorkflowTask) -> None:
        """Decide, or answer the query; the caller has taken a slot for it."""
        run_id = task.workflow_execution.run_id
        self._lanes.enter(run_id, functools.partial(self._begin, task, time.monotonic()))

    def fail(self, task: WorkflowTask, reason: BaseException | None) -> None:
        """Say that the task, which was not handled, led to this."""
        self._local_work.drop(task.workflow_execution.run_id)
        self._replies.fail(task, reason)

    def evict_all(self) -> None:
        """Take all cached runs down."""
        for run_id, machine in self._cache.clear():
            self._evict(run_id, machine)

    def _begin(self, task: WorkflowTask, received_at: float) -> None:
        """In the run's lane."""
        try:
            self._check_not_hanging(task)
            if task.HasField("query"):
                self._begin_query(task)
                return
            machine = self._continuing(task)
            events = task.history.events
            if task.next_page_token or (machine is None and first_event_id(events) != 1):
                self._spawn(self._fetch_and_decide(task, received_at))
            else:
                self._decide(task, machine, events, received_at)
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
            raise StillHangingError(label_of(task))

    def _begin_query(self, task: WorkflowTask) -> None:
        machine = self._cache.find(task.workflow_execution.run_id)
        # A cached run is at its last decision, which is what a query is about.
        if machine is not None and machine.started_event_id >= task.previous_started_event_id:
            self._threads.submit(
                label_of(task),
                functools.partial(self._decider.ask, machine, task.query),
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
            and first_event_id(task.history.events) <= machine.started_event_id + 1
        ):
            return machine
        return None

    async def _fetch_and_decide(self, task: WorkflowTask, received_at: float) -> None:
        machine = self._continuing(task)
        try:
            events = await self._fetch(task, whole=machine is None)
            if machine is not None and self._continuing(task) is not machine:
                # It has left the cache meanwhile.
                machine = None
                events = await self._fetch(task, whole=True)
        except BaseException as error:
            self._local_work.drop(task.workflow_execution.run_id)
            self._lanes.leave(task.workflow_execution.run_id)
            if isinstance(error, (RpcError, TimeoutError)):
                # Not the code's fault: the task runs into its timeout and is offered again.
                _LOGGER.warning("no history of %s: %s", label_of(task), error)
                self._slots.give_back()
            elif isinstance(error, Exception):
                # A codec raises what it pleases.
                self._replies.fail(task, error)
            else:
                raise
        else:
            self._decide(task, machine, events, received_at)

    async def _replay_for_query(self, task: WorkflowTask) -> None:
        """Build the run's state from its history, only to ask it."""
        step = Step(task, None)
        try:
            events = await self._fetch(task, whole=True)
            work = functools.partial(self._decider.replay_and_ask, step, events)
            result = await self._threads.run(label_of(task), work, step.come_back, step.progress)
        except Exception as error:  # noqa: BLE001 - the query's caller hears of it
            result = query_failed(error, self._config.converter)
        self._replies.send_query_result(task, result)

    async def _fetch(self, task: WorkflowTask, *, whole: bool) -> Sequence[HistoryEvent]:
        return await fetch_history(self._get_history, self._config.namespace, task, whole=whole)

    def _decide(
        self,
        task: WorkflowTask,
        cached: RunMachine | None,
        events: Sequence[HistoryEvent],
        received_at: float,
    ) -> None:
        step = Step(task, cached, received_at)
        self._threads.submit(
            label_of(task),
            functools.partial(self._decider.advance, step, events),
            functools.partial(self._on_advanced, step),
            step.come_back,
            step.progress,
        )

    def _on_advanced(self, step: Step, answer: object, error: BaseException | None) -> None:
        is_handed_in = False
        try:
            is_handed_in = self._try_hand_in(step, answer, error)
        finally:
            if not is_handed_in:
                self._lanes.leave(step.task.workflow_execution.run_id)

    def _try_hand_in(self, step: Step, answer: object, error: BaseException | None) -> bool:
        """Send the decision, and keep the lane until the server has it: a query must not be asked
        of a state that may never be. False where there is no decision.
        """
        task, machine = step.task, step.machine
        run_id = task.workflow_execution.run_id
        if isinstance(answer, TaskAnswer) and machine is not None:
            send = functools.partial(self._send_decision, task, machine, answer)
            if machine.is_closed or machine.is_tainted:
                self._cache.forget(run_id, machine)
                self._local_work.drop(run_id)
                send()
                return True
            for evicted_id, evicted in self._cache.put(run_id, machine):
                self._evict(evicted_id, evicted)
            local = machine.local_activities
            if (
                local is None
                or machine.is_ahead
                or not self._local_work.hold(
                    task,
                    local,
                    answer,
                    step.received_at,
                    send,
                    waits_for_more=machine.waits_for_world,
                )
            ):
                send()
            return True
        self._local_work.drop(run_id)
        if machine is not None:
            self._cache.forget(run_id, machine)
        if isinstance(error, DeadlockError):
            self._note_hanging(run_id, step)
        self._replies.fail(task, error)
        return False

    def _send_decision(self, task: WorkflowTask, machine: RunMachine, answer: TaskAnswer) -> None:
        reserved = reserve_eager(self._eager, answer.workflow_task_completed)
        self._sender.send_nowait(
            answer, functools.partial(self._on_decided, task, machine, reserved)
        )

    def _note_hanging(self, run_id: str, step: Step) -> None:
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
            message = located_message(result.error, machine)
            # The code is ahead of the history now.
            self._drop(task, machine)
            self._local_work.drop(task.workflow_execution.run_id)
            self._eager.release(reserved)
            if result.error.code == _RESOURCE_EXHAUSTED:
                self._replies.fail(task, DecisionTooLargeError(result.error.message))
            elif result.error.code == _INVALID_ARGUMENT:
                log_refused(task, result, message)
                # History knows of it only where it has looked at the decision itself. Else the task
                # would time out, again and again, and nobody would be told why.
                self._replies.send_failure(task, DecisionRefusedError(message))
            else:
                log_refused(task, result)
                self._slots.give_back()
            return
        completed = result.workflow_task_completed
        if machine.is_ahead:
            if completed.is_discarded:
                machine.fall_back()
            else:
                self._drop(task, machine)
        for activity_task in completed.activity_tasks:
            self._eager.start(activity_task)
        self._eager.release(reserved - len(completed.activity_tasks))
        if completed.HasField("workflow_task"):
            self._take_next(completed.workflow_task)
        else:
            self._local_work.drop(task.workflow_execution.run_id)
            self._slots.give_back()

    def _on_asked(
        self, task: WorkflowTask, machine: RunMachine, result: object, error: BaseException | None
    ) -> None:
        run_id = task.workflow_execution.run_id
        if isinstance(result, WorkflowQueryResult):
            self._replies.send_query_result(task, result)
        else:
            self._replies.fail(task, error)
        if error is not None:
            # It hangs in a thread, which takes it down.
            self._cache.forget(run_id, machine)
        elif machine.is_tainted:
            self._drop(task, machine)
        self._lanes.leave(run_id)
