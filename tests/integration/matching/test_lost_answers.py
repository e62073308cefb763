"""Answers of polls that do not reach their worker, as far as matching can know of them."""

import asyncio

import pytest

from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY, TASK_QUEUE_TYPE_WORKFLOW
from aetheris.api.v1.worker_service_pb2 import ActivityCancellation
from aetheris.api.v1.worker_service_pb2 import ShutdownWorkerRequest as ShutdownWorker
from aetheris.server.v1.matching_service_pb2 import (
    NotifyCancellationRequest,
    ShutdownWorkerRequest,
)
from tests.support.matching import (
    NAMESPACE_ID,
    activity_poll,
    activity_ref,
    workflow_poll,
    workflow_ref,
)
from tests.support.matching_host import MatchingHost, poll_activity_tasks
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

CANCELLATION = NotifyCancellationRequest(
    namespace_id=NAMESPACE_ID,
    task_queue="q",
    worker_instance_id="worker",
    cancellation=ActivityCancellation(activity_id="a", attempt=1),
)


def shutdown(worker: str, *, sticky: str = "", received: int = 0) -> ShutdownWorkerRequest:
    return ShutdownWorkerRequest(
        namespace_id=NAMESPACE_ID,
        task_queue_type=TASK_QUEUE_TYPE_WORKFLOW if sticky else TASK_QUEUE_TYPE_ACTIVITY,
        request=ShutdownWorker(
            task_queue="q",
            worker_instance_id=worker,
            sticky_task_queue=sticky,
            received_activity_poll_number=received,
        ),
    )


async def answered(host: MatchingHost, *names: str, number: int, received_number: int = 0) -> None:
    poll = await host.start_poll(
        activity_poll(max_tasks=9, number=number, received_number=received_number)
    )
    await host.service.add_tasks([activity_ref(name) for name in names])
    assert await poll == list(names)


async def test_answer_that_the_next_poll_says_did_not_come_is_given_back(
    host: MatchingHost,
) -> None:
    await answered(host, "a", "b", number=1)
    poll = await host.start_poll(activity_poll(number=2, received_number=0))
    await wait_until(lambda: host.history.released == [b"a", b"b"])
    poll.cancel()


async def test_answer_that_the_next_poll_says_came_is_kept(host: MatchingHost) -> None:
    await answered(host, "a", number=1)
    await answered(host, "b", number=2, received_number=1)
    await host.poll(activity_poll(number=3, received_number=2, poll_timeout=0.01))
    await host.service.shutdown_worker(shutdown("worker", received=2))
    assert host.history.released == []


async def test_poll_that_its_worker_has_followed_by_another_gets_no_tasks(
    host: MatchingHost,
) -> None:
    gone = await host.start_poll(activity_poll(number=1))
    poll = asyncio.create_task(host.poll(activity_poll(number=2)))
    assert await gone == []
    await host.service.add_tasks([activity_ref("a")])
    assert await poll == ["a"]


async def test_poll_that_comes_after_a_later_one_gets_no_tasks_and_gives_nothing_back(
    host: MatchingHost,
) -> None:
    await answered(host, "a", number=2)
    assert await host.poll(activity_poll(number=1)) == []
    assert host.history.released == []
    waiting = await host.start_poll(activity_poll(number=4, received_number=2))
    assert await host.poll(activity_poll(number=3, received_number=2)) == []
    await host.service.add_tasks([activity_ref("b")])
    assert await waiting == ["b"]


async def test_poll_followed_by_another_while_its_tasks_start_gives_them_back(
    host: MatchingHost,
) -> None:
    host.history.gate = asyncio.Event()
    gone = await host.start_poll(activity_poll(number=1))
    offer = asyncio.create_task(host.service.add_tasks([activity_ref("a")]))
    await wait_until(lambda: host.history.requests)
    poll = asyncio.create_task(host.poll(activity_poll(number=2)))
    await wait_until(lambda: host.service.statistics().poll_count == 2)
    host.history.gate.set()
    assert await gone == []
    await wait_until(lambda: host.history.released == [b"a"])
    await offer
    poll.cancel()


async def test_worker_that_shuts_down_gives_back_what_did_not_come_and_polls_no_more(
    host: MatchingHost,
) -> None:
    await answered(host, "a", number=1)
    other = await host.start_poll(activity_poll(worker="other"))
    poll = await host.start_poll(activity_poll(number=2, received_number=1))
    await host.service.add_tasks([activity_ref("b")])
    assert await other == ["b"]
    await host.service.add_tasks([activity_ref("c")])
    assert await poll == ["c"]
    waiting = await host.start_poll(activity_poll(number=3, received_number=2))
    await host.service.shutdown_worker(shutdown("worker", received=2))
    assert await waiting == []
    assert host.history.released == []
    await answered(host, "d", number=1)
    await host.service.shutdown_worker(shutdown("worker", received=0))
    await wait_until(lambda: host.history.released == [b"d"])


async def test_sticky_tasks_of_a_worker_that_shuts_down_are_open_to_all_at_once(
    host: MatchingHost,
) -> None:
    gone = await host.start_workflow_poll(workflow_poll(sticky_task_queue="s"))
    gone.cancel()
    await asyncio.wait([gone])
    held = asyncio.create_task(
        host.service.add_tasks([workflow_ref("a", sticky_task_queue="s", sticky_timeout=60)])
    )
    other = await host.start_workflow_poll(workflow_poll())
    await host.service.shutdown_worker(shutdown("s", sticky="s"))
    async with asyncio.timeout(1.0):
        assert await other == ["a"]
    await held


async def test_request_to_cancel_in_an_answer_that_did_not_come_is_told_again(
    host: MatchingHost,
) -> None:
    await host.service.notify_cancellation(CANCELLATION)
    for number, received_number, activity_ids in [(1, 0, ["a"]), (2, 0, ["a"]), (3, 2, [])]:
        request = activity_poll(number=number, received_number=received_number, poll_timeout=0.01)
        response = await poll_activity_tasks(host.service, request)
        assert [told.activity_id for told in response.cancellations] == activity_ids


async def test_request_to_cancel_goes_past_a_poll_that_its_worker_has_followed_by_another(
    host: MatchingHost,
) -> None:
    host.history.gate = asyncio.Event()
    gone = await host.start_poll(activity_poll(number=1))
    offer = asyncio.create_task(host.service.add_tasks([activity_ref("a")]))
    await wait_until(lambda: host.history.requests)
    poll = asyncio.create_task(poll_activity_tasks(host.service, activity_poll(number=2)))
    await wait_until(lambda: host.service.statistics().poll_count == 2)
    await host.service.notify_cancellation(CANCELLATION)
    host.history.gate.set()
    assert await gone == []
    assert [told.activity_id for told in (await poll).cancellations] == ["a"]
    await offer
