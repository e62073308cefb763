"""Updates in a run's code: judged, handled, replayed, and taken back."""

import itertools
import logging

import pytest

from aetheris.api.v1.history_pb2 import UpdateRequest
from aetheris_client.errors import ApplicationError
from aetheris_worker import workflow
from aetheris_worker.runtime.errors import HistoryError, NondeterminismError, ReadOnlyError
from aetheris_worker.runtime.machines.update import (
    TRANSITIONS,
    UpdateInput,
    UpdateMachine,
    UpdateStage,
)
from tests.unit.worker.driver import Session, machine_of, summary

PATHS = {
    UpdateStage.REQUESTED: [],
    UpdateStage.REJECTED: [UpdateInput.REJECT],
    UpdateStage.ACCEPTING: [UpdateInput.ACCEPT],
    UpdateStage.OPEN: [UpdateInput.ACCEPT, UpdateInput.ACCEPTANCE_RECORDED],
    UpdateStage.DONE_EARLY: [UpdateInput.ACCEPT, UpdateInput.DONE],
    UpdateStage.COMPLETING: [
        UpdateInput.ACCEPT,
        UpdateInput.ACCEPTANCE_RECORDED,
        UpdateInput.DONE,
    ],
    UpdateStage.COMPLETED: [
        UpdateInput.ACCEPT,
        UpdateInput.DONE,
        UpdateInput.ACCEPTANCE_RECORDED,
        UpdateInput.OUTCOME_RECORDED,
    ],
}


@pytest.mark.parametrize("state, cause", list(itertools.product(UpdateStage, UpdateInput)))
def test_update_machine_moves_as_its_table_says(state: UpdateStage, cause: UpdateInput) -> None:
    machine = UpdateMachine("u", "set")
    for step in PATHS[state]:
        machine.move(step)
    assert machine.state is state
    expected = TRANSITIONS.get((state, cause))
    if expected is None:
        with pytest.raises(HistoryError, match=f"{cause.name} is impossible in state {state.name}"):
            machine.move(cause)
    else:
        machine.move(cause)
        assert machine.state is expected


@workflow.defn
class Board:
    """A number that updates set; a signal ends the run."""

    def __init__(self) -> None:
        self.value = 0
        self.log: list[str] = []
        self.is_done = False

    @workflow.run
    async def run(self) -> list[str]:
        self.log.append("begun")
        await workflow.wait_condition(lambda: self.is_done)
        return self.log

    @workflow.update
    def put(self, value: int) -> int:
        info = workflow.current_update_info()
        assert info is not None
        self.value, before = value, self.value
        self.log.append(f"{info.id}={value}")
        return before

    @put.validator
    def check_put(self, value: int) -> None:
        assert workflow.current_update_info() is not None
        if value <= self.value:
            raise ApplicationError(f"expected more than {self.value}, found {value}")

    @workflow.update
    async def slow(self, value: int) -> int:
        self.log.append("slow")
        await workflow.sleep(5)
        self.value = value
        return value

    @workflow.update(name="odd")
    def odd_name(self) -> None:
        raise RuntimeError("a mistake in the code")

    @workflow.update
    def writes_in_validator(self) -> None:
        """Its validator does what it must not."""

    @writes_in_validator.validator
    def check_writes(self) -> None:
        workflow.uuid4()

    @workflow.update(dynamic=True)
    def anything(self, name: str, values: list[object]) -> str:
        return f"{name}{values}"

    @workflow.signal
    def add(self, value: int) -> None:
        self.value += value

    @workflow.signal
    def finish(self) -> None:
        self.is_done = True

    @workflow.query
    def state(self) -> int:
        return self.value


class Updating(Session):
    """A cached run that is sent updates."""

    def request(self, update_id: str, name: str, *arguments: object) -> UpdateRequest:
        request = UpdateRequest(update_id=update_id, name=name)
        encoded = self.history.converter.to_payloads(arguments)
        if encoded is not None:
            request.input.CopyFrom(encoded)
        self.history.requests[update_id] = request
        return request

    def decide(self, *updates: UpdateRequest) -> list[str]:
        """A task that brings updates, and is recorded."""
        return self.step(updates)

    def speculate(self, *updates: UpdateRequest) -> list[str]:
        """A speculative task; recorded unless the code did not move."""
        length = len(self.history.events)
        self.history.task_started()
        events = self.history.events[self.machine.last_event_id :]
        commands = [
            command.to_proto()
            for command in self.machine.advance(events, updates, is_speculative=True)
        ]
        if self.machine.is_ahead:
            assert not commands
            del self.history.events[length:]
            self.machine.fall_back()
            return []
        self.history.task_completed(commands)
        return [summary(command) for command in commands]

    def rejections(self) -> list[str]:
        return [f"{id_}: {reason}" for id_, reason in self.machine.take_rejections()]


def begun() -> Updating:
    run = Updating(Board)
    assert run.step() == []
    return run


def test_update_is_accepted_and_completed_and_replays() -> None:
    run = begun()
    assert run.decide(run.request("u1", "put", 3)) == ["accept u1", "complete u1"]
    assert run.speculate(run.request("u2", "put", 5)) == ["accept u2", "complete u2"]
    run.history.signaled("finish")
    assert run.step() == ["complete"]
    assert run.result() == ["begun", "u1=3", "u2=5"]
    run.replay()


def test_update_of_the_first_task_comes_before_the_run_method() -> None:
    run = Updating(Board)
    assert run.decide(run.request("u1", "put", 3)) == ["accept u1", "complete u1"]
    run.history.signaled("finish")
    run.step()
    assert run.result() == ["u1=3", "begun"]
    run.replay()


def test_rejected_updates_of_a_speculative_task_leave_the_run_where_it_was() -> None:
    run = begun()
    before = (run.machine.started_event_id, run.machine.run.loop.now)
    length = run.machine.run.history_length
    for _ in range(2):
        assert run.speculate(run.request("u1", "put", 0), run.request("u2", "put", -1)) == []
        assert run.rejections() == [
            "u1: expected more than 0, found 0",
            "u2: expected more than 0, found -1",
        ]
        assert (run.machine.started_event_id, run.machine.run.loop.now) == before
        assert run.machine.run.history_length == length
    assert run.speculate(run.request("u3", "put", 1)) == ["accept u3", "complete u3"]
    run.replay()


def test_updates_behind_an_accepted_one_are_judged_by_what_it_did() -> None:
    run = begun()
    updates = [("u1", 0), ("u2", 4), ("u3", 3), ("u4", 5)]
    commands = run.speculate(*(run.request(id_, "put", value) for id_, value in updates))
    assert commands == ["accept u2", "complete u2", "accept u4", "complete u4"]
    assert run.rejections() == [
        "u1: expected more than 0, found 0",
        "u3: expected more than 4, found 3",
    ]
    run.replay()


def test_update_is_judged_behind_the_signals_of_its_task() -> None:
    run = begun()
    run.history.signaled("add", 10)
    assert run.decide(run.request("u1", "put", 5)) == []
    assert run.rejections() == ["u1: expected more than 10, found 5"]
    run.replay()


def test_async_handler_goes_on_in_later_tasks() -> None:
    run = begun()
    assert run.speculate(run.request("u1", "slow", 7)) == ["accept u1", "timer 1 5s"]
    run.history.timer_fired("1")
    assert run.step() == ["complete u1"]
    assert run.replay().run.parts.keys() == run.machine.run.parts.keys()


def test_error_of_the_code_fails_the_task_and_not_the_update() -> None:
    run = begun()
    with pytest.raises(RuntimeError, match="a mistake"):
        run.decide(run.request("u1", "odd"))


@pytest.mark.parametrize("is_speculative", [True, False])
def test_validator_may_only_look(is_speculative: bool) -> None:
    run = begun()
    request = run.request("u1", "writes_in_validator")
    with pytest.raises(ReadOnlyError):
        run.speculate(request) if is_speculative else run.decide(request)


def test_dynamic_handler_takes_what_has_none_of_its_own() -> None:
    run = begun()
    assert run.decide(run.request("u1", "other", 1, "b")) == ["accept u1", "complete u1"]


def test_arguments_that_the_handler_does_not_take_reject() -> None:
    run = begun()
    assert run.speculate(run.request("u1", "put", "three"), run.request("u2", "put")) == []
    first, second = run.rejections()
    assert first.startswith("u1: cannot decode")
    assert second == "u2: update 'put' came with 0 arguments"


@workflow.defn(name="Board")
class Other:
    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: False)


def test_history_with_an_update_that_the_code_does_not_take_does_not_replay() -> None:
    run = begun()
    run.decide(run.request("u1", "put", 3))
    with pytest.raises(NondeterminismError, match="acceptance of update 'u1'"):
        machine_of(Other).advance(run.history.events)


@workflow.defn
class Leaves:
    def __init__(self) -> None:
        self.is_done = False

    @workflow.run
    async def run(self) -> None:
        await workflow.wait_condition(lambda: self.is_done)

    @workflow.update
    async def hang(self) -> None:
        await workflow.sleep(100)

    @workflow.update(unfinished_policy=workflow.HandlerUnfinishedPolicy.ABANDON)
    async def hang_quietly(self) -> None:
        await workflow.sleep(100)

    @workflow.signal
    def finish(self) -> None:
        self.is_done = True


@pytest.mark.parametrize("name, warns", [("hang", True), ("hang_quietly", False)])
def test_end_of_a_run_names_update_handlers_that_it_abandons(
    name: str, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    run = Updating(Leaves)
    run.step()
    run.decide(run.request("u1", name))
    run.history.signaled("finish")
    with caplog.at_level(logging.WARNING):
        assert run.step() == ["complete"]
    assert ("update handlers were still running" in caplog.text) is warns


@workflow.defn
class SetsHandlers:
    """Its handlers come late."""

    @workflow.run
    async def run(self) -> str:
        results: list[str] = []
        workflow.set_update_handler("late", results.append, validator=self._check)
        workflow.set_dynamic_update_handler(lambda name, values: results.append(name))
        await workflow.wait_condition(lambda: len(results) == 2)
        assert workflow.all_handlers_finished()
        return "".join(results)

    def _check(self, text: str) -> None:
        if text == "no":
            raise ValueError("no")


def test_handlers_may_be_set_while_the_run_is_under_way() -> None:
    run = Updating(SetsHandlers)
    run.step()
    assert run.speculate(run.request("u1", "late", "no")) == []
    assert run.speculate(run.request("u2", "late", "a")) == ["accept u2", "complete u2"]
    commands = run.speculate(run.request("u3", "any"))
    assert commands == ["accept u3", "complete u3", "complete"]
    assert run.result() == "aany"
    run.replay()


def test_override_keeps_the_validator_of_what_it_overrides() -> None:
    class Base:
        @workflow.update
        def put(self, value: int) -> None: ...

        @put.validator
        def check_put(self, value: int) -> None: ...

    @workflow.defn
    class Derived(Base):
        @workflow.run
        async def run(self) -> None: ...

        def put(self, value: int) -> None: ...  # pyright: ignore[reportIncompatibleVariableOverride]

    definition = Derived.__aetheris_workflow_definition__  # type: ignore[attr-defined]
    assert definition.updates["put"].validator is Base.check_put
    assert definition.updates["put"].method is Derived.put


def test_two_handlers_of_one_update_are_refused() -> None:
    with pytest.raises(ValueError, match="two handlers of 'put'"):

        @workflow.defn
        class Twice:
            @workflow.run
            async def run(self) -> None: ...

            @workflow.update
            def put(self) -> None: ...

            @workflow.update(name="put")
            def other(self) -> None: ...


def test_validator_that_is_async_is_refused() -> None:
    @workflow.update
    def put(self: object) -> None: ...

    async def check(self: object) -> None: ...

    with pytest.raises(TypeError, match="a validator is a method that is not async"):
        put.validator(check)  # pyright: ignore[reportArgumentType]
