"""Options of activities and workers: mistakes name the option and the remedy."""

from dataclasses import fields
from datetime import timedelta
from typing import Any

import pytest

from aetheris_client.retry import RetryPolicy
from aetheris_worker import Worker, workflow
from aetheris_worker.runtime.machines.activity import ActivityOptions

MINUTE = timedelta(minutes=1)
OPTIONS = [field.name for field in fields(ActivityOptions)]


@workflow.defn
class Empty:
    @workflow.run
    async def run(self) -> None: ...


@pytest.mark.parametrize(
    "name",
    [
        "schedule_to_close_timeout",
        "schedule_to_start_timeout",
        "start_to_close_timeout",
        "heartbeat_timeout",
    ],
)
def test_activity_timeout_that_is_a_number_names_it(name: str):
    options: dict[str, Any] = dict.fromkeys(OPTIONS)
    options |= {"task_queue": "q", "start_to_close_timeout": MINUTE, "capabilities": (), name: 5}
    with pytest.raises(TypeError, match=rf"'{name}': .*; write {name}=timedelta\(seconds=5\)"):
        ActivityOptions(**options).check("greet")


@pytest.mark.parametrize("name", ["initial_interval", "maximum_interval"])
def test_retry_interval_that_is_a_number_names_it(name: str):
    given: dict[str, Any] = {name: 5}
    with pytest.raises(TypeError, match=rf"'{name}': expected a timedelta, found 5"):
        RetryPolicy(**given)


@pytest.mark.parametrize(
    "option,words",
    [
        ({"capabilities": "gpu"}, r"write capabilities=\['gpu'\]"),
        ({"graceful_shutdown_timeout": 5}, "expected a timedelta"),
        ({"task_queue": 7}, "'task_queue': expected a string"),
    ],
)
def test_worker_with_a_wrong_option_names_it(option: dict[str, Any], words: str):
    given: dict[str, Any] = {"task_queue": "q", "workflows": [Empty], **option}
    with pytest.raises(TypeError, match=f"^Worker: option .*{words}"):
        Worker("127.0.0.1:1", **given)


def test_string_in_place_of_strings_is_refused_and_not_taken_letter_by_letter():
    with pytest.raises(TypeError, match=r"write non_retryable_error_types=\['Broke'\]"):
        RetryPolicy(non_retryable_error_types="Broke")
    options: dict[str, Any] = dict.fromkeys(OPTIONS)
    options |= {"start_to_close_timeout": MINUTE, "capabilities": "gpu"}
    with pytest.raises(TypeError, match=r"write capabilities=\['gpu'\]"):
        ActivityOptions(**options).check("greet")


@pytest.mark.parametrize("option", [{"task_queue": 7}, {"retry_policy": 3}, {"capabilities": [5]}])
def test_activity_option_of_the_wrong_kind_is_refused_where_it_is_said(option: dict[str, Any]):
    options: dict[str, Any] = dict.fromkeys(OPTIONS)
    options |= {"task_queue": "q", "start_to_close_timeout": MINUTE, "capabilities": (), **option}
    (name,) = option
    with pytest.raises(TypeError, match=f"option '{name}': expected a"):
        ActivityOptions(**options).check("greet")


@pytest.mark.parametrize("option", [{"task_queue": "a\udcff"}, {"capabilities": ["a\udcff"]}])
def test_activity_option_that_no_message_can_carry_is_refused_where_it_is_said(
    option: dict[str, Any],
):
    options: dict[str, Any] = dict.fromkeys(OPTIONS)
    options |= {"task_queue": "q", "start_to_close_timeout": MINUTE, "capabilities": (), **option}
    (name,) = option
    with pytest.raises(ValueError, match=f"option '{name}': expected text"):
        ActivityOptions(**options).check("greet")
