"""Workflow classes and activities that inherit, override and mix in."""

import abc
from typing import Any

import pytest

from aetheris_client.definition import query_name, signal_name, workflow_name
from aetheris_worker import Worker, activity, workflow
from aetheris_worker.registry import activities_by_name, workflows_by_name
from aetheris_worker.runtime.definitions import WorkflowDefinition
from tests.unit.worker.driver import Session


class Base:
    """Not a workflow itself."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @workflow.run
    async def run(self, text: str = "") -> str:
        await workflow.wait_condition(lambda: bool(self.seen))
        return f"{type(self).__name__} {self.seen}"

    @workflow.signal
    def approve(self) -> None:
        self.seen.append("base")

    @workflow.query(name="how-far")
    def progress(self) -> int:
        return 1


@workflow.defn
class First(Base):
    pass


@workflow.defn(name="second")
class Second(Base):
    def approve(self) -> None:
        self.seen.append("second")

    def progress(self) -> int:
        return 2


@workflow.defn
class Third(Second):
    @workflow.signal
    def approve(self) -> None:
        super().approve()
        self.seen.append("third")


def test_classes_that_inherit_one_run_method_are_workflows_of_their_own() -> None:
    assert workflow_name(First) == workflow_name(First.run) == "First"
    assert workflow_name(Second) == workflow_name(Second.run) == "second"
    assert workflow_name(Third) == workflow_name(Third.run) == "Third"
    with pytest.raises(TypeError, match=r"expected a name or something under @workflow\.defn"):
        workflow_name(Base.run)


@pytest.mark.parametrize(
    "cls, seen", [(First, ["base"]), (Second, ["second"]), (Third, ["second", "third"])]
)
def test_inherited_run_method_runs_on_its_class_with_its_overrides(
    cls: type, seen: list[str]
) -> None:
    session = Session(cls)
    session.step()
    session.history.signaled("approve")
    session.step()
    assert session.result() == f"{cls.__name__} {seen}"


def test_undecorated_override_remains_the_handler_of_its_name() -> None:
    definition = WorkflowDefinition.of(Second)
    assert definition.signals["approve"].method is Second.approve
    assert definition.queries["how-far"].method is Second.progress
    assert signal_name(Second.approve) == "approve"
    assert query_name(Second.progress) == "how-far"


def test_handlers_of_mixins_and_of_undecorated_classes_between_are_found() -> None:
    class Stoppable:
        @workflow.signal
        def stop(self) -> None: ...

    class Between(Stoppable, Base):
        def stop(self) -> None: ...

    @workflow.defn
    class Mixed(Between):
        pass

    definition = WorkflowDefinition.of(Mixed)
    assert set(definition.signals) == {"approve", "stop"}
    assert definition.signals["stop"].method is Between.stop


def _overriding(name: str, value: Any, base: type = Base) -> type:
    return type("Odd", (base,), {name: value})


async def _main(self: Any) -> None: ...
async def _async(self: Any) -> None: ...
def _plain(self: Any) -> None: ...


_main.__qualname__ = "Odd.main"


@pytest.mark.parametrize(
    "cls, message",
    [
        (_overriding("run", _async), r"Odd\.run overrides the @workflow\.run method Base\.run"),
        (_overriding("main", workflow.run(_main)), r"found 2 .*: Odd\.main, Base\.run"),
        (_overriding("approve", None), r"Odd\.approve: .*Base\.approve .*found NoneType"),
        (_overriding("approve", property(_plain)), r"Odd\.approve: .*found property"),
        (_overriding("approve", staticmethod(_plain)), r"Odd\.approve: .*found staticmethod"),
        (_overriding("progress", _async), r"Odd\.progress is async, and overrides Base\.progress"),
        (
            _overriding("approve", workflow.query(name="approve")(lambda self: 1)),
            r"Odd\.approve is .* query 'approve', and overrides Base\.approve, .* signal 'approve'",
        ),
        (
            _overriding("approve", workflow.signal(name="other")(lambda self: None)),
            r"Odd\.approve is the handler of signal 'other', and overrides Base\.approve",
        ),
        (
            _overriding("again", workflow.signal(name="approve")(lambda self: None)),
            r"two handlers of 'approve': .*<lambda> and Base\.approve",
        ),
        (
            _overriding("shown", property(workflow.query(name="shown")(lambda self: 1))),
            r"Odd\.shown: expected a plain method, since Odd\.shown is the handler of query",
        ),
    ],
)
def test_override_that_is_ambiguous_is_refused_with_the_names(cls: type, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        workflow.defn(cls)


def test_mixins_that_name_one_method_differently_are_refused() -> None:
    class One:
        @workflow.signal(name="one")
        def go(self) -> None: ...

    class Two:
        @workflow.signal(name="two")
        def go(self) -> None: ...

    with pytest.raises(ValueError, match=r"One\.go is .*'one', and overrides .*Two\.go, .*'two'"):
        workflow.defn(type("Both", (One, Two, Base), {}))


def test_handler_around_something_else_than_a_method_is_refused() -> None:
    with pytest.raises(TypeError, match="put this decorator innermost"):
        workflow.signal(staticmethod(_plain))  # pyright: ignore[reportCallIssue, reportArgumentType, reportUnknownArgumentType]


def test_subclass_without_a_decorator_of_its_own_is_no_workflow() -> None:
    class Bare(First):
        pass

    with pytest.raises(TypeError, match=r"its base First is under one"):
        workflows_by_name([Bare])
    with pytest.raises(TypeError, match=r"under @workflow\.defn"):
        workflow_name(Bare)


def test_workflow_that_cannot_be_made_without_arguments_is_refused_by_the_worker() -> None:
    class Abstract(Base, abc.ABC):
        @abc.abstractmethod
        def missing(self) -> None: ...

    class Needy(Base):
        def __init__(self, what: str) -> None: ...

    with pytest.raises(TypeError, match="is abstract: it lacks missing"):
        workflows_by_name([workflow.defn(Abstract)])
    with pytest.raises(TypeError, match="needs what"):
        workflows_by_name([workflow.defn(Needy)])


def test_two_workflows_of_one_name_are_refused_with_both() -> None:
    other = workflow.defn(name="First")(type("Other", (Base,), {}))
    with pytest.raises(ValueError, match="name 'First': First and Other"):
        Worker("localhost:1", task_queue="queue", workflows=[First, other])


class Tools:
    @activity.defn
    async def cut(self, size: int) -> int:
        return size


class Better(Tools):
    pass


class Forgotten(Tools):
    async def cut(self, size: int) -> int:
        return size + 1


def test_inherited_activity_method_is_an_activity() -> None:
    better = Better()
    assert activities_by_name([better.cut])["cut"].function == better.cut


@pytest.mark.parametrize(
    "activity, message",
    [
        (Forgotten().cut, r"as Tools\.cut is, which it overrides"),
        (Tools.cut, r"Tools\.cut is a method: register that of an instance"),
        (activity.defn(name="made")(type("Made", (), {})), "is a class: register an instance"),
    ],
)
def test_activity_that_could_not_be_called_is_refused(activity: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        activities_by_name([activity])


def test_two_activities_of_one_name_are_refused_with_both() -> None:
    with pytest.raises(ValueError, match=r"name 'cut': .*Tools\.cut.* and .*Tools\.cut"):
        activities_by_name([Tools().cut, Better().cut])
