import re
from typing import Any

import pytest

from aetheris.api.v1 import (
    failure_pb2,
    worker_service_pb2,
    workflow_service_pb2,
)
from aetheris.server.v1 import history_service_pb2, log_pb2
from aetheris_server.errors import InvalidArgumentError
from aetheris_server.rpc.bounds import MAX_DEPTH, MAX_ITEMS, check_bounds
from tests.support.requests import METHODS, good_request

# A dict stands for a message below, which the stubs do not know.
Start: Any = workflow_service_pb2.StartWorkflowRequest
List: Any = workflow_service_pb2.ListWorkflowsRequest
Decision: Any = worker_service_pb2.RespondWorkflowTaskCompletedRequest
Failed: Any = worker_service_pb2.RespondActivityTaskFailedRequest


def chain(length: int) -> failure_pb2.Failure:
    """A failure with so many links."""
    outermost = link = failure_pb2.Failure(message="0")
    for number in range(1, length):
        link = link.cause
        link.message = str(number)
    return outermost


def refused_field(request: Any) -> str:
    with pytest.raises(InvalidArgumentError) as caught:
        check_bounds(request)
    with pytest.raises(InvalidArgumentError, match=re.escape(f"{caught.value.field}: ")):
        check_bounds(request, request.ByteSize())
    return caught.value.field


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_good_request_is_within_bounds(method: Any) -> None:
    request = good_request(method.name)
    check_bounds(request)
    check_bounds(request, request.ByteSize())


def test_failure_as_deep_as_may_be_is_taken_and_one_deeper_is_refused() -> None:
    check_bounds(Failed(failure=chain(MAX_DEPTH - 1)))
    assert refused_field(Failed(failure=chain(MAX_DEPTH))).startswith("failure.cause.cause")


def test_deepest_failure_can_be_read_wherever_it_goes() -> None:
    failure = chain(MAX_DEPTH)
    record = log_pb2.LogRecord()
    record.events.add().workflow_execution_failed_event_attributes.failure.CopyFrom(failure)
    assert log_pb2.LogRecord.FromString(record.SerializeToString()) == record
    answer = history_service_pb2.StartTasksResponse()
    history = answer.tasks.add().workflow_task.history
    history.events.extend(record.events)
    found = history_service_pb2.StartTasksResponse.FromString(answer.SerializeToString())
    assert found == answer


def test_failure_in_a_command_is_bounded_too() -> None:
    request = Decision()
    request.commands.add()
    command = request.commands.add().fail_workflow_execution_command_attributes
    command.failure.CopyFrom(chain(100))
    assert refused_field(request).startswith(
        "commands[1].fail_workflow_execution_command_attributes.failure.cause"
    )


@pytest.mark.parametrize(
    "request_,field",
    [
        (Decision(capabilities=["x"] * (MAX_ITEMS + 1)), "capabilities"),
        (Decision(commands=[{} for _ in range(MAX_ITEMS + 1)]), "commands"),
        (
            Start(input={"payloads": [{} for _ in range(MAX_ITEMS + 1)]}),
            "input.payloads",
        ),
        (
            Start(memo={"fields": {str(n): {} for n in range(MAX_ITEMS + 1)}}),
            "memo.fields",
        ),
        (
            List(filter={"statuses": [1] * (MAX_ITEMS + 1)}),
            "filter.statuses",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_more_items_than_any_field_may_have_are_refused(request_: Any, field: str) -> None:
    assert refused_field(request_) == field


@pytest.mark.parametrize(
    "seconds,nanos", [(315_576_000_001, 0), (-(2**63), 0), (1, -1), (-1, 1), (0, 10**9)]
)
def test_duration_that_is_none_is_refused_wherever_it_is(seconds: int, nanos: int) -> None:
    duration = {"seconds": seconds, "nanos": nanos}
    start = Start(start_delay=duration)
    assert refused_field(start) == "start_delay"
    decision = Decision()
    command = decision.commands.add().schedule_activity_task_command_attributes
    command.retry_policy.initial_interval.seconds = seconds
    command.retry_policy.initial_interval.nanos = nanos
    assert refused_field(decision) == (
        "commands[0].schedule_activity_task_command_attributes.retry_policy.initial_interval"
    )


@pytest.mark.parametrize("seconds,nanos", [(-62_135_596_801, 0), (253_402_300_800, 0), (1, -1)])
def test_time_outside_of_the_calendar_is_refused(seconds: int, nanos: int) -> None:
    request = List()
    request.filter.earliest_start_time.seconds = seconds
    request.filter.earliest_start_time.nanos = nanos
    assert refused_field(request) == "filter.earliest_start_time"


def test_query_result_in_a_map_is_named_by_its_key() -> None:
    request = Decision()
    request.query_results["q"].failure.CopyFrom(chain(100))
    assert refused_field(request).startswith("query_results['q'].failure.cause")


def test_internal_call_is_bounded_as_the_request_in_it() -> None:
    call = history_service_pb2.CallRequest(
        respond_activity_task_failed=Failed(failure=chain(MAX_DEPTH))
    )
    assert refused_field(call).startswith("respond_activity_task_failed.failure.cause")


def test_answer_of_a_batch_is_left_to_be_judged_alone() -> None:
    request = worker_service_pb2.RespondTasksRequest()
    request.answers.add().activity_task_failed.failure.CopyFrom(chain(MAX_DEPTH))
    check_bounds(request)
