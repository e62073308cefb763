"""Children and other runs, in the eyes of workflow code."""

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import pytest

from aetheris.api.v1 import workflow_pb2
from aetheris_client.converter import DataConverter
from aetheris_client.enums import WorkflowIdReusePolicy
from aetheris_client.errors import ApplicationError, ChildWorkflowError
from aetheris_worker import workflow
from aetheris_worker.runtime.commands import CommandLog
from aetheris_worker.runtime.errors import HistoryError, NondeterminismError
from aetheris_worker.runtime.loop import WorkflowLoop
from aetheris_worker.runtime.machines import child, external
from aetheris_worker.runtime.machines.child import (
    ChildInput,
    ChildMachine,
    ChildOptions,
    ChildStage,
    ChildWorkflowCancellationType,
    ParentClosePolicy,
)
from aetheris_worker.runtime.machines.external import (
    ExternalInput,
    ExternalMachine,
    ExternalRequests,
    ExternalStage,
    RunTarget,
)
from aetheris_worker.runtime.parts import RunScope
from aetheris_worker.runtime.registry import RUN_MACHINES
from tests.unit.worker.driver import Session

_WAIT_COMPLETED = ChildWorkflowCancellationType.WAIT_CANCELLATION_COMPLETED
_WAIT_REQUESTED = ChildWorkflowCancellationType.WAIT_CANCELLATION_REQUESTED
_TRY = ChildWorkflowCancellationType.TRY_CANCEL
_ABANDON = ChildWorkflowCancellationType.ABANDON


# The tables.

_CHILD_PATHS = {
    ChildStage.STARTING: [],
    ChildStage.WITHDRAWN: [ChildInput.CANCEL],
    ChildStage.INITIATED: [ChildInput.INITIATE_RECORDED],
    ChildStage.CANCEL_PENDING: [ChildInput.INITIATE_RECORDED, ChildInput.CANCEL],
    ChildStage.STARTED: [ChildInput.INITIATE_RECORDED, ChildInput.START],
    ChildStage.CANCELLING: [ChildInput.INITIATE_RECORDED, ChildInput.START, ChildInput.CANCEL],
    ChildStage.ABANDONED: [ChildInput.INITIATE_RECORDED, ChildInput.ABANDON],
    ChildStage.CLOSED: [ChildInput.INITIATE_RECORDED, ChildInput.START, ChildInput.CLOSE],
}
_EXTERNAL_PATHS = {
    ExternalStage.ASKING: [],
    ExternalStage.WITHDRAWN: [ExternalInput.GIVE_UP],
    ExternalStage.ASKED: [ExternalInput.ASK_RECORDED],
    ExternalStage.CLOSED: [ExternalInput.ASK_RECORDED, ExternalInput.CLOSE],
}


def _scope() -> RunScope:
    loop = WorkflowLoop(None, lambda _, __: pytest.fail("no timers here"))
    return RunScope(loop, CommandLog(RUN_MACHINES.describe), DataConverter.default())


def _options(**options: Any) -> ChildOptions:
    given: dict[str, Any] = {
        "task_queue": "queue",
        "cancellation_type": _TRY,
        "parent_close_policy": ParentClosePolicy.TERMINATE,
        "id_reuse_policy": None,
        "execution_timeout": None,
        "run_timeout": None,
        "task_timeout": None,
        "retry_policy": None,
        "memo": {},
        "search_attributes": {},
    }
    return ChildOptions(**{**given, **options})


@pytest.mark.parametrize("state, cause", list(itertools.product(ChildStage, ChildInput)))
def test_child_machine_moves_as_its_table_says(state: ChildStage, cause: ChildInput) -> None:
    scope = _scope()
    machine = ChildMachine("c", "Child", None, _options(), None, scope, ExternalRequests(scope))
    for step in _CHILD_PATHS[state]:
        machine.move(step)
    assert machine.state is state
    expected = child.TRANSITIONS.get((state, cause))
    if expected is None:
        with pytest.raises(HistoryError, match=f"{cause.name} is impossible in state {state.name}"):
            machine.move(cause)
    else:
        machine.move(cause)
        assert machine.state is expected


@pytest.mark.parametrize("state, cause", list(itertools.product(ExternalStage, ExternalInput)))
def test_external_machine_moves_as_its_table_says(
    state: ExternalStage, cause: ExternalInput
) -> None:
    machine = ExternalMachine(RunTarget("w"), "signal 's'", _scope())
    for step in _EXTERNAL_PATHS[state]:
        machine.move(step)
    assert machine.state is state
    expected = external.TRANSITIONS.get((state, cause))
    if expected is None:
        with pytest.raises(HistoryError, match=f"{cause.name} is impossible in state {state.name}"):
            machine.move(cause)
    else:
        machine.move(cause)
        assert machine.state is expected


def test_start_command_carries_every_option() -> None:
    scope = _scope()
    workflow_options = _options(
        parent_close_policy=ParentClosePolicy.REQUEST_CANCEL,
        id_reuse_policy=WorkflowIdReusePolicy.REJECT_DUPLICATE,
        execution_timeout=timedelta(seconds=9),
        run_timeout=timedelta(seconds=8),
        task_timeout=timedelta(seconds=7),
        retry_policy=workflow.RetryPolicy(maximum_attempts=3),
        memo={"note": 1},
        search_attributes={"customer": "c1"},
    )
    child.ChildWorkflows(scope).start(
        "c", "Child", [5], workflow_options, (), None, ExternalRequests(scope)
    )
    command = scope.commands.seal()[0].to_proto()
    given = command.start_child_workflow_execution_command_attributes
    assert (given.workflow_id, given.workflow_type.name, given.task_queue.name) == (
        "c",
        "Child",
        "queue",
    )
    assert given.input.payloads[0].data == b"5"
    assert given.workflow_execution_timeout.ToSeconds() == 9
    assert given.workflow_run_timeout.ToSeconds() == 8
    assert given.workflow_task_timeout.ToSeconds() == 7
    assert given.parent_close_policy == workflow_pb2.PARENT_CLOSE_POLICY_REQUEST_CANCEL
    policy = workflow_pb2.WORKFLOW_ID_REUSE_POLICY_REJECT_DUPLICATE
    assert given.workflow_id_reuse_policy == policy
    assert given.retry_policy.maximum_attempts == 3
    assert given.memo.fields["note"].data == b"1"
    assert given.search_attributes.indexed_fields["customer"].metadata["type"] == b"Keyword"


# Children.


@workflow.defn(name="Child")
class _Child:
    @workflow.run
    async def run(self, number: int) -> int:
        return number

    @workflow.signal
    async def go(self, number: int) -> None:
        del number


@workflow.defn
class Parents:
    """Notes what it comes to."""

    @workflow.run
    async def run(self) -> list[object]:
        handle = await workflow.start_child_workflow(_Child.run, 7, id="c")
        noted: list[object] = [handle.id, handle.first_execution_run_id]
        await handle.signal(_Child.go, 1)
        noted.append(await handle)
        return noted


def test_child_is_started_signalled_and_awaited() -> None:
    session = Session(Parents)
    assert session.step() == ["child c Child"]
    initiated = session.history.events[-1].event_id
    session.history.child_started(initiated, "r1")
    assert session.step() == ["signal go to c"]
    asked = session.history.events[-1].event_id
    session.history.external_answered(asked, "EXTERNAL_WORKFLOW_EXECUTION_SIGNALED")
    assert session.step() == []
    session.history.child_closed(initiated, "COMPLETED", 7)
    assert session.step() == ["complete"]
    assert session.result() == ["c", "r1", 7]
    session.replay()


@workflow.defn
class FailingParent:
    @workflow.run
    async def run(self) -> list[object]:
        try:
            await workflow.execute_child_workflow("Child", 1, id="c")
        except ChildWorkflowError as error:
            cause = error.cause
            kind = cause.type if isinstance(cause, ApplicationError) else type(cause).__name__
            return [error.workflow_id, error.workflow_type, kind]
        return []


@pytest.mark.parametrize(
    "how,kind",
    [
        ("FAILED", "Broken"),
        ("CANCELLED", "CancelledError"),
        ("TIMED_OUT", "TimeoutError"),
        ("TERMINATED", "TerminatedError"),
    ],
)
def test_child_that_does_not_complete_says_why(how: str, kind: str) -> None:
    session = Session(FailingParent)
    session.step()
    initiated = session.history.events[-1].event_id
    session.history.child_started(initiated)
    session.history.child_closed(initiated, how)
    assert session.step() == ["complete"]
    assert session.result() == ["c", "Child", kind]
    session.replay()


def test_child_that_is_not_started_says_why() -> None:
    session = Session(FailingParent)
    session.step()
    session.history.child_start_failed(session.history.events[-1].event_id)
    assert session.step() == ["complete"]
    assert session.result() == ["c", "Child", "WorkflowAlreadyExists"]


@workflow.defn
class DefaultIds:
    @workflow.run
    async def run(self) -> None:
        await workflow.start_child_workflow("Child")


def test_child_without_an_id_has_the_same_one_on_replay() -> None:
    session = Session(DefaultIds)
    (command,) = session.step()
    assert len(command.split()[1]) == 36
    session.replay()


@workflow.defn(name="Parents")
class OtherChild:
    @workflow.run
    async def run(self) -> None:
        await workflow.start_child_workflow(_Child.run, 7, id="d")


def test_child_of_another_id_is_a_nondeterminism() -> None:
    session = Session(Parents)
    session.step()
    session.history.child_started(session.history.events[-1].event_id)
    session.workflow = OtherChild
    with pytest.raises(NondeterminismError, match=r"start of child 'c'.*started child 'd'"):
        session.replay()


# Cancelling.


class _Cancels:
    cancellation_type = _TRY

    async def wait(self) -> list[object]:
        """Cancels the child when a signal comes, and notes what that comes to."""
        waits = asyncio.create_task(self._child())
        await workflow.wait_condition(lambda: self.is_asked)
        waits.cancel()
        try:
            return [await waits, workflow.now().timestamp() > 0]
        except asyncio.CancelledError:
            return ["cancelled"]

    async def _child(self) -> object:
        return await workflow.execute_child_workflow(
            "Child", id="c", cancellation_type=self.cancellation_type
        )

    is_asked = False


def _cancelling(how: ChildWorkflowCancellationType) -> type:
    @workflow.defn(name="Cancelling")
    class Cancelling(_Cancels):
        cancellation_type = how

        @workflow.run
        async def run(self) -> list[object]:
            return await self.wait()

        @workflow.signal
        def ask(self) -> None:
            self.is_asked = True

    return Cancelling


def _cancelled_session(how: ChildWorkflowCancellationType) -> tuple[Session, int, list[str]]:
    """A run that has just cancelled its started child, and what it did."""
    session = Session(_cancelling(how))
    assert session.step() == ["child c Child"]
    initiated = session.history.events[-1].event_id
    session.history.child_started(initiated)
    assert session.step() == []
    session.history.signaled("ask")
    return session, initiated, session.step()


@pytest.mark.parametrize("how", [_TRY, _ABANDON])
def test_cancelled_child_is_waited_for_no_longer(how: ChildWorkflowCancellationType) -> None:
    session, _, commands = _cancelled_session(how)
    assert commands == (["cancel c", "complete"] if how is _TRY else ["complete"])
    assert session.result() == ["cancelled"]
    session.replay()


def test_cancelled_child_is_waited_for_until_it_is_asked() -> None:
    session, _, commands = _cancelled_session(_WAIT_REQUESTED)
    assert commands == ["cancel c"]
    asked = session.history.events[-1].event_id
    session.history.external_answered(asked, "EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED")
    assert session.step() == ["complete"]
    assert session.result() == ["cancelled"]
    session.replay()


@pytest.mark.parametrize("ends_cancelled", [True, False])
def test_cancelled_child_is_waited_for_until_it_has_ended(ends_cancelled: bool) -> None:
    session, initiated, commands = _cancelled_session(_WAIT_COMPLETED)
    assert commands == ["cancel c"]
    asked = session.history.events[-1].event_id
    session.history.external_answered(asked, "EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED")
    assert session.step() == []
    session.history.child_closed(initiated, "CANCELLED" if ends_cancelled else "COMPLETED", 3)
    assert session.step() == ["complete"]
    assert session.result() == (["cancelled"] if ends_cancelled else [3, True])
    session.replay()


def test_request_that_comes_too_late_leaves_the_end_as_it_is() -> None:
    session, initiated, _ = _cancelled_session(_WAIT_REQUESTED)
    asked = session.history.events[-1].event_id
    name = "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED"
    session.history.external_answered(asked, name, cause=1)
    assert session.step() == []
    session.history.child_closed(initiated, "COMPLETED", 4)
    assert session.step() == ["complete"]
    assert session.result() == [4, True]


def test_child_cancelled_before_it_started_is_asked_once_it_has() -> None:
    session = Session(_cancelling(_WAIT_COMPLETED))
    session.step()
    initiated = session.history.events[-1].event_id
    session.history.signaled("ask")
    assert session.step() == []
    session.history.child_started(initiated)
    assert session.step() == ["cancel c"]
    session.history.child_closed(initiated, "CANCELLED")
    assert session.step() == ["complete"]
    assert session.result() == ["cancelled"]
    session.replay()


@workflow.defn
class ThinksAgain:
    @workflow.run
    async def run(self) -> str:
        waits = asyncio.ensure_future(workflow.start_child_workflow("Child", id="c"))
        sends = asyncio.ensure_future(workflow.get_external_workflow_handle("w").signal("s"))
        await asyncio.sleep(0)
        waits.cancel()
        sends.cancel()
        results = await asyncio.gather(waits, sends, return_exceptions=True)
        return " ".join(type(result).__name__ for result in results)


def test_what_is_cancelled_at_once_leaves_no_command() -> None:
    session = Session(ThinksAgain)
    assert session.step() == ["complete"]
    assert session.result() == "CancelledError CancelledError"


# Other runs.


@workflow.defn
class Neighbours:
    @workflow.run
    async def run(self) -> list[str]:
        other = workflow.get_external_workflow_handle("w", run_id="r")
        noted: list[str] = []
        for ask in (lambda: other.signal("s", 1), lambda: other.cancel("enough")):
            try:
                await ask()
            except ApplicationError as error:
                noted.append(f"{error.type}, {error.non_retryable}")
            else:
                noted.append("done")
        return noted


@pytest.mark.parametrize("fails", [True, False])
def test_other_run_is_signalled_and_asked_to_cancel(fails: bool) -> None:
    session = Session(Neighbours)
    for command, done, failed in (
        (
            "signal s to w",
            "EXTERNAL_WORKFLOW_EXECUTION_SIGNALED",
            "SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_FAILED",
        ),
        (
            "cancel w",
            "EXTERNAL_WORKFLOW_EXECUTION_CANCEL_REQUESTED",
            "REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_FAILED",
        ),
    ):
        assert session.step() == [command]
        # The run id is part of what is compared.
        initiated: Any = session.history.events[-1]
        kind = initiated.WhichOneof("attributes")
        getattr(initiated, kind).workflow_execution.run_id = "r"
        asked = initiated.event_id
        if fails:
            session.history.external_answered(asked, failed, cause=1)
        else:
            session.history.external_answered(asked, done)
    assert session.step() == ["complete"]
    expected = "ExternalWorkflowExecutionNotFound, True" if fails else "done"
    assert session.result() == [expected] * 2
    session.replay()


# Options.


@pytest.mark.parametrize(
    "options,named",
    [
        ({"timeout": timedelta(1)}, "execution_timeout"),
        ({"run_timeout": 5}, "run_timeout"),
        ({"run_timeout": timedelta(-1)}, "run_timeout"),
        ({"parent_close_policy": "ABANDON"}, "parent_close_policy"),
        ({"cancellation_type": "TRY"}, "cancellation_type"),
        ({"retry_policy": 3}, "retry_policy"),
        ({"id": 5}, "id"),
        ({"memo": 5}, "memo"),
    ],
)
def test_bad_option_of_a_child_is_named_where_it_is_given(
    options: dict[str, Any], named: str
) -> None:
    @workflow.defn
    class Mistaken:
        @workflow.run
        async def run(self) -> str:
            try:
                await workflow.start_child_workflow("Child", **options)
            except (TypeError, ValueError) as error:
                return str(error)
            return ""

    session = Session(Mistaken)
    assert session.step() == ["complete"]
    assert named in str(session.result())
