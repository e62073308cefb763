"""What is done in a thread for workflow code: code is replayed, decides, and is asked."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from aetheris.api.v1.command_pb2 import Command
from aetheris.api.v1.history_pb2 import HistoryEvent
from aetheris.api.v1.worker_service_pb2 import (
    RespondWorkflowTaskCompletedRequest,
    TaskAnswer,
    WorkflowQuery,
    WorkflowQueryResult,
    WorkflowTask,
)
from aetheris_client.errors import AetherisError
from aetheris_client.failure import to_failure
from aetheris_worker.config import SDK_NAME, SDK_VERSION, WorkerConfig
from aetheris_worker.runtime.definitions import WorkflowDefinition
from aetheris_worker.runtime.info import RunId
from aetheris_worker.runtime.machines.local_activity import LocalActivities
from aetheris_worker.runtime.replay import RunMachine
from aetheris_worker.workflow_tasks.history import first_event_id
from aetheris_worker.workflow_tasks.outcomes import (
    MAX_DECISION_BYTES,
    MAX_QUERIES_BYTES,
    MAX_QUERY_BYTES,
    DecisionTooLargeError,
    answer_query,
)

# Room for what is said of queries that failed.
_SPARE_BYTES: Final = 256 * 1024


class WorkflowNotRegisteredError(AetherisError):
    """A task came for a workflow type that this worker does not have."""

    def __init__(self, name: str, known: list[str]) -> None:
        super().__init__(f"workflow type {name!r} is not registered here; there are {known}")


class LocalActivityNotRegisteredError(AetherisError):
    """Workflow code asks for a local activity that this worker does not have."""

    def __init__(self, names: list[str], known: list[str]) -> None:
        super().__init__(
            f"local activity types {names} are not registered on the worker that runs the "
            f"workflow; there are {known}"
        )


@dataclass(slots=True)
class Step:
    """A task whose code is run; the machine is made on the way where none is cached.

    Attributes:
        received_at: When the task came, as `time.monotonic` has it.
    """

    task: WorkflowTask
    machine: RunMachine | None
    received_at: float = 0.0
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


class Decider:
    """Runs the code of tasks. Of this worker it knows only what goes into the answers."""

    def __init__(
        self,
        config: WorkerConfig,
        definitions: Mapping[str, WorkflowDefinition],
        activity_types: Collection[str],
    ) -> None:
        self._config = config
        self._activity_types = frozenset(activity_types)
        self._definitions = definitions
        self._asks_for_more = True
        self._plain_completed = _completed_template(config)
        self._sticky_completed = _completed_template(config)
        if config.sticky_task_queue:
            self._sticky_completed.return_new_workflow_task = True
            sticky = self._sticky_completed.sticky_attributes
            sticky.worker_task_queue = config.sticky_task_queue
            sticky.schedule_to_start_timeout.FromTimedelta(config.sticky_timeout)

    def stop_asking(self) -> None:
        """Ask for no more tasks along with decisions."""
        self._asks_for_more = False

    def advance(self, step: Step, events: Sequence[HistoryEvent]) -> TaskAnswer:
        """The decision that the events lead to.

        Raises:
            WorkflowNotRegisteredError, LocalActivityNotRegisteredError, DecisionTooLargeError: No
                code, or more than fits.
            Exception: What the code raised, and what is wrong with it; the run is taken down.
        """
        machine = step.machine = step.machine or self._new_machine(step.task)
        try:
            task = step.task
            new_events = events[machine.last_event_id + 1 - first_event_id(events) :]
            produced = machine.advance(new_events, task.updates, is_speculative=task.is_speculative)
            commands = [command.to_proto() for command in produced]
            local = machine.local_activities
            if local is not None and not machine.is_closed:
                self._check_local(local)
            answer = self._completed(step.task, machine, commands)
            if local is not None and machine.is_tainted:
                # It leaves the cache, and its local activities with it: they are begun again.
                answer.workflow_task_completed.force_create_new_workflow_task = bool(local.open)
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

    def replay_and_ask(self, step: Step, events: Sequence[HistoryEvent]) -> WorkflowQueryResult:
        """The answer to a query that is asked of a run made for it alone."""
        machine = step.machine = self._new_machine(step.task)
        try:
            machine.advance(events, is_whole=False)
            return self.ask(machine, step.task.query)
        finally:
            machine.evict()

    def ask(self, machine: RunMachine, query: WorkflowQuery) -> WorkflowQueryResult:
        """The answer of a run that stands where the query is about."""
        return answer_query(machine, query, self._config.converter, MAX_QUERY_BYTES)

    def _check_local(self, local: LocalActivities) -> None:
        known = self._activity_types
        unknown = sorted({request.activity_type for request in local.requests()} - known)
        if unknown:
            raise LocalActivityNotRegisteredError(unknown, sorted(known))

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
        if task.updates:
            self._add_rejections(completed, machine)
        if machine.version:
            completed.workflow_version = machine.version
        if not task.queries:
            return answer
        # The decision itself comes first.
        left = min(MAX_QUERIES_BYTES, MAX_DECISION_BYTES - _SPARE_BYTES - completed.ByteSize())
        for query_id, query in task.queries.items():
            result = answer_query(machine, query, self._config.converter, max(0, left))
            left -= result.ByteSize()
            completed.query_results[query_id].CopyFrom(result)
        return answer

    def _add_rejections(
        self, completed: RespondWorkflowTaskCompletedRequest, machine: RunMachine
    ) -> None:
        completed.is_discardable = machine.is_ahead
        for update_id, reason in machine.take_rejections():
            failure = to_failure(reason, self._config.converter, drops_details=True)
            completed.update_rejections.add(update_id=update_id, failure=failure)

    def _new_machine(self, task: WorkflowTask) -> RunMachine:
        name = task.workflow_type.name
        definition = self._definitions.get(name)
        if definition is None:
            raise WorkflowNotRegisteredError(name, sorted(self._definitions))
        execution = task.workflow_execution
        run_id = RunId(self._config.namespace, execution.workflow_id, execution.run_id)
        return RunMachine(definition, run_id, self._config.converter, self._config.build_id)


def _completed_template(config: WorkerConfig) -> RespondWorkflowTaskCompletedRequest:
    """What is the same in all decisions."""
    return RespondWorkflowTaskCompletedRequest(
        identity=config.identity,
        worker_instance_id=config.instance_id,
        worker_version=config.build_id,
        capabilities=config.capabilities,
        sdk_name=SDK_NAME,
        sdk_version=SDK_VERSION,
    )
