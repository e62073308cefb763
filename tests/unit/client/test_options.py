"""What callers say by keyword: mistakes name the call, the option and the remedy."""

from collections.abc import Callable
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from aetheris_client import Client, ClientConfig, ListFilter, OperatorClient
from aetheris_client.client import StartOptions
from aetheris_client.definition import WORKFLOW_DEFINITION
from aetheris_client.options import _KINDS as KINDS
from aetheris_client.options import MAX_DURATION, check_options
from tests.support.canned_server import CannedServer


@pytest.mark.parametrize(
    "options,words",
    [
        ({"run_timeout": 5}, r"'run_timeout': expected a timedelta, found 5; write .*seconds=5"),
        ({"start_delay": "5s"}, r"'start_delay': expected a timedelta, found '5s'"),
        ({"run_timeout": timedelta.max}, r"'run_timeout': .* is longer than"),
        ({"id": 7}, r"'id': expected a string, found 7; write id='7'"),
        ({"id": None}, r"'id' is missing"),
        ({"task_queue": None}, r"'task_queue' is missing"),
        ({"taskqueue": "q"}, r"no option 'taskqueue': did you mean 'task_queue'"),
        ({"workflow_id": "w"}, r"no option 'workflow_id': did you mean 'id'"),
        ({"args": [1]}, r"no option 'args': did you mean the arguments themselves"),
        ({"zzz": 1}, r"no option 'zzz': there are execution_timeout, id,"),
        ({"id_conflict_policy": "fail"}, r"write id_conflict_policy=WorkflowIdConflictPolicy.FAIL"),
        ({"id_reuse_policy": 1}, r"expected a WorkflowIdReusePolicy \(ALLOW_DUPLICATE"),
        ({"memo": ["a"]}, r"'memo': expected a mapping"),
        ({"memo": {1: "a"}}, r"'memo': expected a mapping"),
        ({"search_attributes": "a"}, r"'search_attributes': expected a mapping"),
        ({"request_id": b"x"}, r"'request_id': expected a string"),
    ],
)
async def test_start_with_a_wrong_option_names_it_and_sends_nothing(
    server: CannedServer, client: Client, options: dict[str, Any], words: str
):
    given = {"id": "w", "task_queue": "q", **options}
    calls: list[Any] = [client.start_workflow, client.execute_workflow]
    for start in calls:
        with pytest.raises((TypeError, ValueError), match=f"^{start.__name__}: .*{words}"):
            await start("w", **given)
    assert server.requests == []


async def test_call_with_a_wrong_option_names_it(server: CannedServer, client: Client):
    handle: Any = client.get_workflow_handle("w")
    operator: Any = client.operator
    for call in (
        lambda: handle.result(timeout=5),
        lambda: handle.query("q", timeout=5),
        lambda: handle.query("q", reject_condition="NONE"),
        lambda: handle.signal("s", request_id=5),
        lambda: handle.cancel(reason=5),
        lambda: handle.terminate(reason=5),
        lambda: operator.create_namespace("n", retention_interval=5),
        lambda: operator.describe_task_queue("q", "WORKFLOW"),
        lambda: Client.connect(server.address, rpc_timeout=5),  # pyright: ignore[reportArgumentType]
        lambda: Client.connect(server.address, connect_timeout=5),  # pyright: ignore[reportArgumentType]
    ):
        with pytest.raises(TypeError, match=r"option '\w+': expected .*, found"):
            await call()
    with pytest.raises(TypeError, match="'workflow_id'"):
        client.get_workflow_handle(7)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="'page_size'"):
        client.list_workflows(page_size=-1)
    assert server.requests == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"statuses": ["COMPLETED"]},
        {"statuses": "COMPLETED"},
        {"earliest_start_time": datetime(2026, 1, 1)},  # noqa: DTZ001 - what is refused
        {"latest_start_time": "2026-01-01"},
        {"workflow_type": 7},
    ],
)
def test_filter_with_a_wrong_condition_names_it(wrong: dict[str, Any]):
    (name,) = wrong
    with pytest.raises(TypeError, match=f"ListFilter: option '{name}': expected"):
        ListFilter(**wrong)


async def test_text_that_no_message_can_carry_is_refused_and_named(
    server: CannedServer, client: Client
):
    odd = "a\udcff"
    handle, operator = client.get_workflow_handle("w"), client.operator
    calls: dict[str, Callable[[], Any]] = {
        "option 'id'": lambda: client.start_workflow("w", id=odd, task_queue="q"),
        "option 'task_queue'": lambda: client.start_workflow("w", id="w", task_queue=odd),
        "option 'memo'": lambda: client.start_workflow("w", id="w", task_queue="q", memo={odd: 1}),
        "the name of a workflow": lambda: client.start_workflow(odd, id="w", task_queue="q"),
        "the name of a signal": lambda: handle.signal(odd),
        "the name of a query": lambda: handle.query(odd),
        "option 'reason'": lambda: handle.cancel(reason=odd),
        "option 'request_id'": lambda: handle.terminate(request_id=odd),
        "option 'name'": lambda: operator.create_namespace(odd),
        "option 'description'": lambda: operator.create_namespace("n", description=odd),
    }
    for field, call in calls.items():
        with pytest.raises(ValueError, match=rf"{field}: expected text .*found 'a\\udcff'"):
            await call()
    with pytest.raises(ValueError, match=r"'workflow_id': expected text"):
        client.get_workflow_handle(odd)
    with pytest.raises(ValueError, match=r"'workflow_type': expected text"):
        ListFilter(workflow_type=odd)
    assert server.requests == []


def test_every_option_of_a_start_is_checked():
    # A policy has a check of its own.
    unchecked = {"result_type", "retry_policy"}
    names = StartOptions.__required_keys__ | StartOptions.__optional_keys__
    assert names - unchecked <= set(KINDS)


def test_longest_duration_is_taken():
    check_options("call", run_timeout=MAX_DURATION)


class Census:
    async def run(self, folder: str, depth: int = 1) -> None: ...


setattr(Census.run, WORKFLOW_DEFINITION, SimpleNamespace(name="census"))


@pytest.mark.parametrize(
    "args,words",
    [((), "missing a required argument: 'folder'"), ((1, 2, 3), "too many positional arguments")],
)
async def test_start_with_other_arguments_than_the_run_method_takes_names_it(
    server: CannedServer, client: Client, args: tuple[Any, ...], words: str
):
    start: Any = client.start_workflow
    with pytest.raises(TypeError, match=rf"Census\.run\(self, folder: str.*{words}"):
        await start(Census.run, *args, id="w", task_queue="q")
    assert server.requests == []


def test_operator_client_is_made_of_exported_parts():
    assert OperatorClient.__init__.__annotations__["config"] is ClientConfig
