import asyncio
from datetime import timedelta
from math import inf

import pytest

from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.errors import NotReadyError, UnavailableError
from aetheris_server.matching.offers import Offer, QueuedTask


def ref(run_id: str = "r") -> TaskRef:
    message = TaskRef(run_id=run_id, scheduled_event_id=5, attempt=2, capabilities=["a"])
    message.scheduled_time.FromMilliseconds(1_000_500)
    return message


def queued(offer: Offer, run_id: str = "r") -> QueuedTask:
    offer.add()
    return QueuedTask(ref(run_id), offer, None, 1001.0, 10.0)


def test_queued_task_of_a_reference_takes_its_scheduled_time_as_score() -> None:
    task = QueuedTask(ref(), None, None, wall_now=1001.0, now=10.0)
    assert (task.key, task.score, task.capabilities) == ("r/5/2", 1000.5, {"a"})
    assert (task.sticky_until, task.expire_at) == (inf, inf)


def test_queued_task_with_a_sticky_queue_is_kept_from_its_scheduled_time_on() -> None:
    message = ref()
    message.sticky_task_queue = "s"
    assert QueuedTask(message, None, None, 1001.0, 10.0).sticky_until == pytest.approx(19.5)
    message.sticky_timeout.FromTimedelta(timedelta(seconds=2))
    assert QueuedTask(message, None, None, 1001.0, 10.0).sticky_until == pytest.approx(11.5)
    assert QueuedTask(message, None, None, 2000.0, 10.0).sticky_until == 10.0
    # Another host's clock is ahead: never longer than asked for.
    assert QueuedTask(message, None, None, 900.0, 10.0).sticky_until == 12.0


def test_queued_task_of_a_query_expires() -> None:
    message = ref()
    message.query_id = "q"
    message.expire_time.FromMilliseconds(1_003_000)
    task = QueuedTask(message, None, None, 1001.0, 10.0)
    assert (task.key, task.expire_at) == ("query/q", pytest.approx(12.0))


async def test_offer_whose_tasks_are_all_settled_wakes_its_waiter() -> None:
    offer = Offer()
    one, two = queued(offer, "1"), queued(offer, "2")
    waiter = asyncio.create_task(offer.wait())
    await asyncio.sleep(0)
    offer.settle(one)
    assert not offer.is_settled
    offer.settle(two)
    await waiter
    assert offer.is_settled


async def test_offer_that_gets_a_task_back_wakes_its_waiter() -> None:
    offer = Offer()
    task = queued(offer)
    waiter = asyncio.create_task(offer.wait())
    await asyncio.sleep(0)
    offer.hold(task)
    await waiter
    assert list(offer.waiting) == [task]
    assert not offer.is_settled


async def test_offer_that_failed_raises() -> None:
    offer = Offer()
    task = queued(offer)
    waiter = asyncio.create_task(offer.wait())
    await asyncio.sleep(0)
    task.fail()
    await waiter
    with pytest.raises(UnavailableError) as raised:
        _ = offer.is_settled
    assert isinstance(raised.value, NotReadyError)


async def test_offer_that_lingers_waits_no_longer_than_told() -> None:
    offer = Offer()
    offer.hold(queued(offer))
    await offer.wait(linger=0.001)
    assert not offer.is_settled
