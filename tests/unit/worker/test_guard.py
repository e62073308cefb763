"""What workflow code may not call; and that nothing changes for anybody else."""

# ruff: noqa: PLW0108 - names must be looked up when the test calls them

import asyncio
import copy
import datetime as dt
import gc
import logging
import os
import pickle
import random
import secrets
import subprocess
import sys
import threading
import time
import types
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date, timedelta
from datetime import datetime as aliased_datetime
from random import randint as aliased_randint
from time import time as aliased_time
from typing import ClassVar, cast
from uuid import uuid4 as aliased_uuid4

import pytest
from pydantic import BaseModel, Field

from aetheris.api.v1.common_pb2 import Payloads
from aetheris.api.v1.history_pb2 import WorkflowTaskFailedCause
from aetheris_worker import workflow
from aetheris_worker.registry import workflows_by_name
from aetheris_worker.runtime import guard
from aetheris_worker.runtime.errors import ForbiddenCallError
from tests.support.history_builder import HistoryBuilder
from tests.unit.worker.driver import Session
from tests.unit.worker.task_server import TaskServer, working


class Model(BaseModel):
    at: dt.datetime
    on: date


@dataclass
class Stamped:
    at: float = field(default_factory=lambda: time.time())


# Deprecated since Python 3.12; workflow code calls it all the same.
pytestmark = pytest.mark.filterwarnings("ignore:datetime.datetime.utcnow:DeprecationWarning")

FORBIDDEN: dict[str, tuple[Callable[[], object], str]] = {
    "time.time": (lambda: time.time(), "workflow.time()"),
    "time.time_ns": (lambda: time.time_ns(), "workflow.time()"),
    "time.monotonic": (lambda: time.monotonic(), "workflow.time()"),
    "time.perf_counter": (lambda: time.perf_counter(), "workflow.time()"),
    "time.perf_counter_ns": (lambda: time.perf_counter_ns(), "workflow.time()"),
    "time.process_time": (lambda: time.process_time(), "activity"),
    "time.sleep": (lambda: time.sleep(11), "workflow.sleep"),
    "time.localtime without a time": (lambda: time.localtime(), "workflow.time()"),
    "time.strftime without a time": (lambda: time.strftime("%H"), "workflow.time()"),
    "datetime.now": (lambda: dt.datetime.now(dt.UTC), "workflow.now()"),
    "datetime.utcnow": (
        lambda: aliased_datetime.utcnow(),  # noqa: DTZ003 # pyright: ignore[reportDeprecated]
        "workflow.now()",
    ),
    "date.today": (lambda: date.today(), "workflow.now()"),  # noqa: DTZ011
    "random.random": (lambda: random.random(), "workflow.random()"),
    "random.shuffle": (lambda: random.shuffle([1, 2]), "workflow.random()"),
    "random.seed": (lambda: random.seed(1), "workflow.random()"),
    "random.Random without a seed": (lambda: random.Random(), "workflow.random()"),
    "random.SystemRandom().random": (lambda: random.SystemRandom().random(), "activity"),
    "uuid.uuid1": (lambda: uuid.uuid1(), "workflow.uuid4()"),
    "uuid.uuid4": (lambda: uuid.uuid4(), "workflow.uuid4()"),
    "os.urandom": (lambda: os.urandom(8), "activity"),
    "os.getrandom": (lambda: os.getrandom(8), "activity"),
    "secrets.token_hex": (lambda: secrets.token_hex(), "activity"),
    "secrets.choice": (lambda: secrets.choice([1]), "activity"),
}
# Bound before anything was replaced; a worker replaces the names in the program's modules.
ALIASES: dict[str, Callable[[], object]] = {
    "time.time": lambda: aliased_time(),
    "random.randint": lambda: aliased_randint(1, 2),
    "uuid.uuid4": lambda: aliased_uuid4(),
}


TO_CALL: dict[str, Callable[[], object]] = {}


def to_call() -> object:
    return TO_CALL["it"]()


@workflow.defn(failure_exception_types=[Exception])
class Calls:
    """Calls something in a place of its choice."""

    def __init__(self) -> None:
        self.signalled = False

    @workflow.run
    async def run(self, where: str) -> str:
        if where == "task":
            await asyncio.gather(self.in_a_task())
        if where == "run":
            return str(to_call())
        if where == "condition":
            await workflow.wait_condition(lambda: bool(to_call()))
        if where == "free":
            with workflow.unsafe.sandbox_unrestricted():
                await asyncio.sleep(0)
                return str(to_call())
        await workflow.wait_condition(lambda: self.signalled)
        return "nothing"

    async def in_a_task(self) -> None:
        await asyncio.sleep(0)
        to_call()

    @workflow.signal
    def call(self) -> None:
        to_call()

    @workflow.query
    def ask(self) -> str:
        return str(to_call())


@pytest.fixture(autouse=True)
def covered() -> None:
    workflows_by_name([Calls])


@pytest.mark.parametrize("name", FORBIDDEN)
def test_call_that_replay_cannot_repeat_raises_with_its_place_and_what_to_use(name: str) -> None:
    TO_CALL["it"], instead = FORBIDDEN[name]
    with pytest.raises(ForbiddenCallError) as caught:
        Session(Calls, "run").step()
    assert caught.value.call == name
    assert instead in str(caught.value)
    assert f"{__file__}:" in str(caught.value)


@pytest.mark.parametrize("name", ALIASES)
def test_name_that_was_imported_before_is_guarded_too(name: str) -> None:
    TO_CALL["it"] = ALIASES[name]
    with pytest.raises(ForbiddenCallError) as caught:
        Session(Calls, "run").step()
    assert caught.value.call == name


@pytest.mark.parametrize("where", ["run", "task", "condition"])
def test_forbidden_call_fails_the_task_and_never_the_run(where: str) -> None:
    TO_CALL["it"] = lambda: random.random()
    with pytest.raises(ForbiddenCallError, match=r"use workflow\.random"):
        Session(Calls, where).step()


def test_forbidden_call_of_a_handler_is_refused() -> None:
    TO_CALL["it"] = lambda: time.time()
    session = Session(Calls, "wait")
    session.step()
    with pytest.raises(ForbiddenCallError):
        session.machine.query("ask", Payloads())
    session.history.signaled("call")
    with pytest.raises(ForbiddenCallError):
        session.step()


async def test_forbidden_call_fails_the_task_as_nondeterminism() -> None:
    TO_CALL["it"] = lambda: random.random()
    server, history = TaskServer(), HistoryBuilder("Calls", "run")
    history.task_started()
    server.workflow_tasks.put_nowait(server.task_of(history))
    async with working(server, workflows=[Calls]):
        failed = (await server.wait_answer()).workflow_task_failed
    cause = WorkflowTaskFailedCause.WORKFLOW_TASK_FAILED_CAUSE_NON_DETERMINISTIC_ERROR
    assert failed.cause == cause
    assert "use workflow.random()" in failed.failure.message


@pytest.mark.parametrize("name", [name for name in FORBIDDEN if name != "time.sleep"])
def test_block_that_is_unrestricted_may_call_anything(name: str) -> None:
    TO_CALL["it"] = FORBIDDEN[name][0]
    assert Session(Calls, "free").step() == ["complete"]


def allowed() -> str:
    """What workflow code may go on using."""
    logging.getLogger("program").warning("plain")
    workflow.logger.warning("of the workflow")
    model = Model(at=workflow.now(), on=workflow.now().date())
    assert Model.model_validate_json(model.model_dump_json()) == model
    assert pickle.loads(pickle.dumps(model)) == model
    assert isinstance(workflow.now(), dt.datetime)
    assert time.strftime("%Y", time.gmtime(workflow.time())) == "2023"
    assert workflow.time_ns() == round(workflow.time() * 1e6) * 1_000
    seeded = random.Random(7).random()
    workflow.random().shuffle([1, 2, 3])
    sys.modules.pop("colorsys", None)
    import colorsys

    assert isinstance(colorsys, types.ModuleType)
    assert copy.deepcopy([seeded]) == [seeded]
    return f"{seeded} {workflow.uuid4()} {date(2020, 1, 2).isoformat()}"


class Stamps(logging.Formatter):
    """As handlers of others do it."""

    def format(self, record: logging.LogRecord) -> str:
        now = dt.datetime.now(dt.UTC)
        return f"{now} {time.time()} {uuid.uuid4()} {super().format(record)}"


def test_logging_and_what_is_deterministic_go_on_working(caplog: pytest.LogCaptureFixture) -> None:
    TO_CALL["it"] = allowed
    usual = caplog.handler.formatter
    caplog.handler.setFormatter(Stamps("%(asctime)s %(message)s"))
    session = Session(Calls, "run")
    try:
        assert session.step() == ["complete"]
    finally:
        caplog.handler.setFormatter(usual)
    assert [record.message for record in caplog.records] == ["plain", "of the workflow"]
    session.replay()


def test_dataclass_that_stamps_itself_is_refused() -> None:
    TO_CALL["it"] = Stamped
    with pytest.raises(ForbiddenCallError):
        Session(Calls, "run").step()


@pytest.mark.parametrize("name", FORBIDDEN)
def test_outside_of_workflow_code_nothing_changes(name: str) -> None:
    if name != "time.sleep":
        FORBIDDEN[name][0]()
    time.sleep(0)


def test_other_threads_are_free_while_workflow_code_runs() -> None:
    errors: list[BaseException] = []

    def in_a_thread() -> None:
        for call, _ in FORBIDDEN.values():
            try:
                if call is not FORBIDDEN["time.sleep"][0]:
                    call()
            except BaseException as error:  # noqa: BLE001 - the test shows it
                errors.append(error)

    was = guard.enter()
    try:
        thread = threading.Thread(target=in_a_thread)
        thread.start()
        thread.join()
    finally:
        guard.leave(was)
    assert errors == []


class Clocked:
    """Functions of C's kind do not become methods."""

    clock: object = time.monotonic
    seconds = staticmethod(time.time)


class OwnDatetime(dt.datetime):
    pass


def test_replacements_behave_like_what_they_replace() -> None:
    clock = Clocked().clock
    assert callable(clock)
    assert clock() is not None
    assert Clocked().seconds() > 0
    assert pickle.loads(pickle.dumps(time.time)) is time.time
    assert copy.deepcopy(time.time) is time.time
    assert time.time.__name__ == "time"
    assert type(dt.datetime.now()) is dt.datetime  # noqa: DTZ005
    assert type(OwnDatetime.now()) is OwnDatetime
    assert type(OwnDatetime.today()) is OwnDatetime
    assert type(date.today()) is date  # noqa: DTZ011
    zone = dt.timezone(timedelta(hours=2))
    assert dt.datetime.now(zone).tzinfo is zone
    assert dt.datetime.now(tz=zone).tzinfo is zone
    with pytest.raises(TypeError):
        time.time(1)  # type: ignore[call-arg] # pyright: ignore[reportCallIssue]
    random.seed(3)
    first = random.random()
    random.seed(3)
    assert random.random() == first


class Drafted(BaseModel):
    """Takes what is missing from the clock and from chance."""

    id: uuid.UUID = Field(default_factory=lambda: uuid.uuid4())
    at: dt.datetime = Field(default_factory=lambda: dt.datetime.now(dt.UTC))


@workflow.defn(failure_exception_types=[Exception])
class Takes:
    """Takes a model as its input."""

    @workflow.run
    async def run(self, drafted: Drafted) -> str:
        return str(drafted.id)


@workflow.defn(failure_exception_types=[Exception])
class Reads:
    """Takes a model as its activity's result, or with a signal."""

    @workflow.run
    async def run(self) -> str:
        drafted = await workflow.execute_activity(
            "draft", result_type=Drafted, start_to_close_timeout=timedelta(minutes=1)
        )
        return str(drafted.id)

    @workflow.signal
    def take(self, drafted: Drafted) -> None: ...


@pytest.mark.parametrize("how", ["input", "result", "signal"])
def test_default_of_a_type_that_replay_cannot_repeat_is_refused(how: str) -> None:
    lacking = {"at": "2020-01-01T00:00:00Z"}
    session = Session(Takes, lacking) if how == "input" else Session(Reads)
    if how != "input":
        session.step()
    if how == "result":
        session.history.activity_completed(5, lacking)
    if how == "signal":
        session.history.signaled("take", lacking)
    with pytest.raises(ForbiddenCallError, match=r"use workflow\.uuid4"):
        session.step()
    # It was all there.
    whole = Session(Reads)
    whole.step()
    whole.history.activity_completed(5, {"id": str(uuid.UUID(int=1)), **lacking})
    assert whole.step() == ["complete"]


class OfOthers:
    """Looks at the clock when it ends, as connections and pools do."""

    ends: ClassVar[list[float]] = []

    def __init__(self) -> None:
        # A circle, which only the collector ends.
        self.itself = self

    def __del__(self) -> None:
        self.ends.append(time.monotonic())


def test_what_the_garbage_collector_ends_is_free() -> None:
    OfOthers.ends.clear()
    # Nothing is collected before workflow code runs.
    gc.disable()
    try:
        OfOthers()
        TO_CALL["it"] = lambda: gc.collect()
        assert Session(Calls, "run").step() == ["complete"]
    finally:
        gc.enable()
    assert len(OfOthers.ends) == 1
    TO_CALL["it"] = lambda: time.monotonic()
    with pytest.raises(ForbiddenCallError):
        Session(Calls, "run").step()


def test_what_is_told_of_collections_is_free() -> None:
    seen: list[str] = []

    def note(phase: str, _: object) -> None:
        time.perf_counter()
        seen.append(phase)

    # Between the guard's own, as one that was there before it came.
    index = gc.callbacks.index(guard._note_collection_start)
    gc.callbacks.insert(index + 1, note)
    try:
        TO_CALL["it"] = lambda: gc.collect()
        assert Session(Calls, "run").step() == ["complete"]
    finally:
        gc.callbacks.remove(note)
    assert seen[-2:] == ["start", "stop"]


class LoadsItself(types.ModuleType):
    def __getattribute__(self, name: str) -> object:
        raise ImportError(f"{name} is not to be had here")


def test_modules_that_load_when_used_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "loads_itself", LoadsItself("loads_itself"))
    monkeypatch.setitem(sys.modules, "no_module", cast(types.ModuleType, object()))
    guard.cover_aliases()


# What time-machine does, which would crash on anything but the C functions.
MOVES_THE_CLOCK = """
import sys, time, types, datetime
from types import BuiltinFunctionType, ModuleType
from importlib.machinery import ModuleSpec

seen = []
machine = ModuleType("_time_machine")
machine.__spec__ = ModuleSpec("_time_machine", None)
machine.patch = lambda: seen.extend(
    (time.time, time.localtime, time.strftime, datetime.datetime.now, datetime.datetime.utcnow)
)
sys.modules["_time_machine"] = machine

from aetheris_worker.runtime import guard

guard.install()
guarded = time.time, datetime.datetime.now
machine.patch()
assert len(seen) == 5
assert all(type(function) is BuiltinFunctionType for function in seen), seen
assert (time.time, datetime.datetime.now) == guarded
assert type(time.time) is not BuiltinFunctionType
"""


def test_time_machine_gets_the_functions_that_it_writes_into() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MOVES_THE_CLOCK],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
