"""Redis loses some of a queue's keys, at any moment: no task is stuck."""

import time
from collections.abc import Sequence

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aetheris.server.v1.matching_service_pb2 import TaskRef
from aetheris_server.clock import SystemClock
from aetheris_server.config import MatchingSettings, RedisSettings
from aetheris_server.matching.backlog import Backlog, LeaseEnds
from aetheris_server.matching.match import SubQueue
from aetheris_server.matching.offers import QueuedTask, TaskLease, queue_key
from tests.support.matching import activity_poll, activity_ref, workflow_ref
from tests.support.matching_host import running_host
from tests.support.redis_keys import QueueKeys, queue_keys
from tests.support.wait import wait_until

pytestmark = pytest.mark.integration

QUEUE = queue_key(workflow_ref("any"))
SHARED, STICKY = SubQueue("", frozenset()), SubQueue("s", frozenset())
PLACES = [SHARED, STICKY]
NAMES = "abcd"

# Which of a queue's keys go, of those that are there: a bit for each, in order of their names.
removals = st.tuples(st.just("remove"), st.integers(1, 15))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from(NAMES)),
        st.tuples(st.just("push_sticky"), st.sampled_from(NAMES)),
        st.tuples(st.just("pop"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["finish", "give_back", "let_expire"]), st.just(0)),
        removals,
    ),
    max_size=15,
)


class Model:
    """What a history owes, and a backlog that may lose keys."""

    def __init__(self, backlog: Backlog, keys: QueueKeys) -> None:
        self._backlog = backlog
        self._keys = keys
        self._refs = {name: workflow_ref(name) for name in NAMES}
        self._leased: list[tuple[TaskLease, TaskRef]] = []
        self.owed: set[str] = set()

    async def apply(self, step: str, argument: object) -> None:
        match step:
            case "push" | "push_sticky":
                await self.push(str(argument), is_sticky=step == "push_sticky")
            case "pop":
                popped = await self._backlog.pop(QUEUE, PLACES, int(str(argument)))
                self._leased.extend(popped.leased)
            case "finish":
                await self._end_leases("done")
            case "give_back":
                await self._end_leases("returned")
            case "let_expire":
                await self._expire()
            case _:
                self._remove(int(str(argument)))

    async def push(self, name: str, *, is_sticky: bool = False, is_repeated: bool = False) -> None:
        ref = TaskRef()
        ref.CopyFrom(self._refs[name])
        ref.is_repeated = is_repeated
        if is_sticky:
            ref.sticky_task_queue = "s"
            ref.sticky_timeout.seconds = 60
        self.owed.add(name)
        await self._backlog.push({QUEUE: [QueuedTask(ref, None, None, time.time(), 0.0)]})

    async def repair(self) -> None:
        """What the sweep does: whatever is owed is offered again."""
        for name in sorted(self.owed):
            await self.push(name, is_repeated=True)

    async def deliver_all(self) -> set[str]:
        """What pollers of all kinds get, with nothing known but what Redis tells."""
        await self._expire()
        counts = (await self._backlog.inspect([QUEUE]))[QUEUE].counts
        popped = await self._backlog.pop(QUEUE, list(counts), 1_000)
        return {ref.run_id for _, ref in popped.leased}

    async def _end_leases(self, fate: str) -> None:
        leases = [lease for lease, _ in self._leased]
        await self._backlog.end_leases({QUEUE: LeaseEnds(**{fate: leases})})
        if fate == "done":
            self.owed -= {ref.run_id for _, ref in self._leased}
        self._leased.clear()

    async def _expire(self) -> None:
        client = self._keys.client
        for key in self._keys.names("leases:"):
            client.zadd(key, dict.fromkeys(client.zrange(key, 0, -1), 1.0))
        await self._backlog.inspect([QUEUE])

    def _remove(self, bits: int) -> None:
        names = enumerate(self._keys.names())
        self._keys.delete(*(name for place, name in names if bits >> place & 1))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=steps)
async def test_any_keys_removed_at_any_moment_every_owed_task_is_delivered_after_a_sweep(
    redis_settings: RedisSettings, steps: Sequence[tuple[str, object]]
) -> None:
    with queue_keys(redis_settings) as keys:
        backlog = Backlog(redis_settings, 60, SystemClock())
        model = Model(backlog, keys)
        for step, argument in steps:
            await model.apply(step, argument)
        await model.repair()
        assert await model.deliver_all() >= model.owed
        await backlog.close()


async def test_pushed_again_a_task_that_was_lost_counts_as_repaired(
    redis_settings: RedisSettings,
) -> None:
    backlog = Backlog(redis_settings, 60, SystemClock())
    repeated = activity_ref("a")
    repeated.is_repeated = True
    task = QueuedTask(repeated, None, None, time.time(), 0.0)
    queue = queue_key(repeated)
    assert (await backlog.push({queue: [task]}))[queue].repair_count == 1
    assert (await backlog.push({queue: [task, task]}))[queue].repair_count == 0
    await backlog.close()


@pytest.mark.parametrize("doomed", ["sub:", "subs", ""])
async def test_keys_lost_while_a_queue_is_open_are_noticed_and_offered_again(
    matching_settings: MatchingSettings, redis_settings: RedisSettings, doomed: str
) -> None:
    refs = [activity_ref(name, "gpu") for name in "abc"]
    async with running_host(matching_settings, redis_settings) as host:
        await wait_until(lambda: host.losses, what="the first look at an empty redis")
        # A poll that may not have them keeps the queue under inspection.
        watching = await host.start_poll(activity_poll())
        await host.service.add_tasks(refs)
        await host.service._upkeep._make_round()
        losses = len(host.losses)
        with redis.Redis.from_url(redis_settings.url, decode_responses=True) as client:
            keys = QueueKeys(client, redis_settings.key_prefix)
            keys.delete(*keys.names(doomed))
        await wait_until(lambda: len(host.losses) > losses, what="the loss to be noticed")
        watching.cancel()


async def test_tasks_popped_and_done_are_no_loss(
    matching_settings: MatchingSettings, redis_settings: RedisSettings
) -> None:
    async with running_host(matching_settings, redis_settings) as host:
        await wait_until(lambda: host.losses)
        await host.service.add_tasks([activity_ref(str(n)) for n in range(50)])
        for _ in range(10):
            await host.poll(activity_poll(max_tasks=5))
            await host.service._upkeep._make_round()
        await host.service._upkeep._make_round()
        assert len(host.losses) == 1


async def test_describe_of_a_long_queue_is_one_short_call(redis_settings: RedisSettings) -> None:
    backlog = Backlog(redis_settings, 60, SystemClock())
    refs = [activity_ref(str(n)) for n in range(100_000)]
    tasks = [QueuedTask(ref, None, None, time.time(), 0.0) for ref in refs]
    queue = queue_key(refs[0])
    for start in range(0, len(tasks), 20_000):
        await backlog.push({queue: tasks[start : start + 20_000]})
    for _ in range(50):
        await backlog.pop(queue, [SHARED], 1_000)
    started = time.monotonic()
    [state] = await backlog.describe(queue)
    assert (state.waiting_count, state.in_flight_count) == (50_000, 50_000)
    assert time.monotonic() - started < 0.1
    await backlog.close()
