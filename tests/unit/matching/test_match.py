from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aetheris_server.matching.match import STICKY_PRESENCE, Matcher, SubQueue, Task, WaitingPoll

AnyPoller = WaitingPoll[Task]


def new_matcher(default: frozenset[str] = frozenset()) -> Matcher[Task, AnyPoller]:
    return Matcher(default)


def waiting(
    matcher: Matcher[Task, AnyPoller],
    *capabilities: str,
    sticky_queue: str = "",
    max_tasks: int = 1,
    now: float = 0.0,
) -> AnyPoller:
    poller: AnyPoller = WaitingPoll(frozenset(capabilities), sticky_queue, max_tasks)
    assert matcher.claim(poller, now) == []
    matcher.line_up(poller, now)
    return poller


def task(key: str, *capabilities: str, score: float = 0.0, sticky_queue: str = "") -> Task:
    return Task(key, score, frozenset(capabilities), sticky_queue, sticky_until=100.0)


def keys(tasks: Sequence[Task]) -> list[str]:
    return [task.key for task in tasks]


def test_offer_with_pollers_in_line_goes_to_the_one_that_waited_longest() -> None:
    matcher = new_matcher()
    first, second = waiting(matcher, "a"), waiting(matcher)
    assert matcher.offer(task("1"), 0) is first
    assert matcher.offer(task("2"), 0) is second
    assert matcher.offer(task("3"), 0) is None


def test_offer_of_several_at_once_is_spread_over_pollers() -> None:
    matcher = new_matcher()
    first, second = waiting(matcher, max_tasks=9), waiting(matcher, max_tasks=9)
    for n in range(5):
        matcher.offer(task(str(n)), 0)
    assert keys(matcher.leave(first, 0)) == ["0", "2", "4"]
    assert keys(matcher.leave(second, 0)) == ["1", "3"]


def test_offer_to_a_poller_that_left_is_held() -> None:
    matcher = new_matcher()
    poller = waiting(matcher, max_tasks=2)
    matcher.leave(poller, 0)
    assert matcher.offer(task("1"), 0) is None
    assert matcher.find("1") is not None


@pytest.mark.parametrize(
    "required,offered,fits",
    [
        ((), (), True),
        ((), ("a",), True),
        (("a",), (), False),
        (("a",), ("a", "b"), True),
        (("a", "b"), ("a",), False),
        (("a",), ("b",), False),
    ],
)
def test_offer_needs_a_poller_that_has_all_capabilities(
    required: Sequence[str], offered: Sequence[str], fits: bool
) -> None:
    matcher = new_matcher()
    poller = waiting(matcher, *offered)
    assert matcher.offer(task("1", *required), 0) is (poller if fits else None)


def test_claim_of_held_tasks_takes_the_oldest_over_all_fit_sub_queues() -> None:
    matcher = new_matcher()
    for key, score in (("x", 3), ("y", 1), ("z", 2)):
        matcher.offer(task(key, *({"a"} if key == "y" else ()), score=score), 0)
    matcher.offer(task("unfit", "b", score=0), 0)
    assert keys(matcher.claim(WaitingPoll(frozenset("a"), "", 2), 0)) == ["y", "z"]
    assert keys(list(matcher.held())) == ["x", "unfit"]


def test_claim_of_expired_tasks_drops_them() -> None:
    matcher = new_matcher()
    matcher.offer(Task("1", 0.0, expire_at=5.0), 0)
    assert matcher.claim(WaitingPoll(), 5.0) == []
    assert matcher.held_count == 0


def test_sticky_task_with_both_pollers_in_line_goes_to_the_sticky_one() -> None:
    matcher = new_matcher()
    waiting(matcher)
    sticky = waiting(matcher, sticky_queue="s")
    assert matcher.offer(task("1", sticky_queue="s"), 0) is sticky


def test_sticky_task_of_a_worker_seen_lately_is_kept_for_it() -> None:
    matcher = new_matcher()
    waiting(matcher)
    matcher.leave(waiting(matcher, sticky_queue="s"), 0)
    assert matcher.offer(task("1", sticky_queue="s"), 1.0) is None
    assert keys(matcher.claim(WaitingPoll(sticky_queue="s"), 1.0)) == ["1"]


def test_sticky_task_of_a_worker_never_seen_goes_to_any_poller() -> None:
    matcher = new_matcher()
    poller = waiting(matcher)
    assert matcher.offer(task("1", sticky_queue="s"), 0) is poller


def test_sticky_task_whose_worker_vanished_is_opened_by_expire() -> None:
    matcher = new_matcher()
    poller = waiting(matcher)
    matcher.leave(waiting(matcher, sticky_queue="s"), 0)
    matcher.offer(task("1", sticky_queue="s"), 0)
    assert matcher.expire(STICKY_PRESENCE) == []
    assert matcher.expire(STICKY_PRESENCE + 0.01) == [poller]


def test_sticky_task_whose_time_is_over_is_opened_by_expire() -> None:
    matcher = new_matcher()
    matcher.leave(waiting(matcher, sticky_queue="s", now=99.0), 99.0)
    able = waiting(matcher, now=99.0)
    assert matcher.offer(task("1", sticky_queue="s"), 99.0) is None
    assert matcher.expire(99.9) == []
    assert matcher.expire(100.0) == [able]


def test_sticky_task_that_its_worker_may_not_have_goes_to_any_poller() -> None:
    matcher = new_matcher()
    waiting(matcher, sticky_queue="s")
    able = waiting(matcher, "a")
    assert matcher.offer(task("1", "a", sticky_queue="s"), 0) is able


def test_default_is_required_by_tasks_that_require_nothing() -> None:
    matcher = new_matcher(frozenset("x"))
    plain, able, other = waiting(matcher), waiting(matcher, "x"), waiting(matcher, "a")
    assert matcher.offer(task("1"), 0) is able
    assert matcher.offer(task("2", "a"), 0) is other
    assert matcher.offer(task("3"), 0) is None
    assert not matcher.is_poller_expected(task("4"), 2.0)
    assert matcher.leave(plain, 2.0) == []


def test_change_of_the_default_takes_along_the_tasks_that_are_held() -> None:
    matcher = new_matcher(frozenset("x"))
    plain, able = waiting(matcher, max_tasks=2), waiting(matcher, "y")
    for key, score in (("late", 2.0), ("early", 1.0)):
        assert matcher.offer(task(key, score=score), 0) is None
    assert matcher.change_default(frozenset("y"), 0) == [able]
    assert keys(able.tasks) == ["early"]
    assert matcher.change_default(frozenset(), 0) == [plain]
    assert keys(plain.tasks) == ["late"]


def test_change_of_the_default_opens_what_was_kept_for_a_worker_that_lacks_it() -> None:
    matcher = new_matcher()
    matcher.leave(waiting(matcher, sticky_queue="s"), 0)
    able = waiting(matcher, "x")
    assert matcher.offer(task("1", sticky_queue="s"), 0) is None
    assert matcher.change_default(frozenset("x"), 0) == [able]
    assert not matcher.may_have(waiting(matcher, sticky_queue="s"), SubQueue("s", frozenset()), 0)
    assert matcher.may_have(waiting(matcher, "x"), SubQueue("s", frozenset()), 0)


def test_worker_that_has_the_default_is_still_preferred_for_what_it_has_cached() -> None:
    matcher = new_matcher(frozenset("x"))
    waiting(matcher, "x")
    sticky = waiting(matcher, "x", sticky_queue="s")
    assert matcher.offer(task("1", sticky_queue="s"), 0) is sticky


def test_withdraw_of_a_held_task_leaves_the_others() -> None:
    matcher = new_matcher()
    tasks = [task(str(n), score=5) for n in range(3)]
    for each in tasks:
        matcher.offer(each, 0)
    assert matcher.withdraw(tasks[1])
    assert not matcher.withdraw(tasks[1])
    assert keys(matcher.claim(WaitingPoll(max_tasks=9), 0)) == ["0", "2"]


def test_is_poller_expected_holds_for_a_second_after_a_fit_poll() -> None:
    matcher = new_matcher()
    matcher.leave(waiting(matcher, "a"), 0)
    assert matcher.is_poller_expected(task("1", "a"), 1.0)
    assert not matcher.is_poller_expected(task("1", "b"), 1.0)
    assert not matcher.is_poller_expected(task("1", "a"), 1.01)


CAPABILITY_SETS = st.sampled_from([frozenset(names) for names in ("", "a", "b", "ab")])
STICKY_QUEUES = st.sampled_from(["", "", "s", "t"])


class MatcherMachine(RuleBasedStateMachine):
    """Any order of events: what the matcher holds and hands out against a plain list of tasks."""

    def __init__(self) -> None:
        super().__init__()
        self.matcher = new_matcher()
        self.default: frozenset[str] = frozenset()
        self.now = 0.0
        self.held: dict[str, Task] = {}
        self.pollers: list[AnyPoller] = []
        self.offered_count = 0
        self.handed_out: list[str] = []
        self.dropped_count = 0

    def required(self, task: Task) -> frozenset[str]:
        return task.capabilities or self.default

    def is_present(self, sticky_queue: str, task: Task) -> bool:
        return self.matcher._is_sticky_present(sticky_queue, self.required(task), self.now)

    def may_have(self, poller: AnyPoller, task: Task) -> bool:
        kept_for = task.place[0].sticky_queue if task.place else ""
        return self.required(task) <= poller.capabilities and (
            kept_for in ("", poller.sticky_queue) or not self.is_present(kept_for, task)
        )

    @rule(
        capabilities=CAPABILITY_SETS,
        score=st.integers(0, 5),
        sticky_queue=STICKY_QUEUES,
        sticky_timeout=st.sampled_from([0.0, 0.5, 2.0, 9.0]),
        expire_timeout=st.sampled_from([1.0, float("inf")]),
    )
    def offer(
        self,
        capabilities: frozenset[str],
        score: int,
        sticky_queue: str,
        sticky_timeout: float,
        expire_timeout: float,
    ) -> None:
        self.offered_count += 1
        new = Task(
            str(self.offered_count),
            score,
            capabilities,
            sticky_queue,
            self.now + sticky_timeout,
            self.now + expire_timeout,
        )
        room = {poller: len(poller.tasks) for poller in self.pollers}
        poller = self.matcher.offer(new, self.now)
        if poller is None:
            self.held[new.key] = new
        else:
            assert room[poller] < poller.max_tasks
            assert poller.tasks[-1] is new
            assert self.required(new) <= poller.capabilities
            reserved = sticky_timeout > 0 and self.is_present(sticky_queue, new)
            assert not reserved or poller.sticky_queue == sticky_queue

    @rule(capabilities=CAPABILITY_SETS, sticky_queue=STICKY_QUEUES, max_tasks=st.integers(1, 3))
    def poll(self, capabilities: frozenset[str], sticky_queue: str, max_tasks: int) -> None:
        poller: AnyPoller = WaitingPoll(capabilities, sticky_queue, max_tasks)
        self.matcher._note_seen(poller, self.now)
        places = [task for task in self.held.values() if self.may_have(poller, task)]
        places.sort(key=lambda task: (task.score, task.place[2] if task.place else 0))
        wanted = [task for task in places if task.expire_at > self.now][:max_tasks]
        claimed = self.matcher.claim(poller, self.now)
        assert keys(claimed) == keys(wanted)
        for each in claimed:
            del self.held[each.key]
        self.handed_out.extend(keys(claimed))
        self.forget_expired()
        if not claimed:
            self.matcher.line_up(poller, self.now)
            self.pollers.append(poller)

    @precondition(lambda self: self.pollers)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        poller = self.pollers.pop(data.draw(st.integers(0, len(self.pollers) - 1)))
        self.handed_out.extend(keys(self.matcher.leave(poller, self.now)))
        assert poller.tasks == []

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        assert self.matcher.withdraw(self.held.pop(key))
        self.handed_out.append(key)

    @rule(seconds=st.sampled_from([0.1, 0.9, 2.0, 61.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def expire(self) -> None:
        self.note_given(self.matcher.expire(self.now))

    @rule(default=st.sampled_from([frozenset(), frozenset("a"), frozenset("b")]))
    def change_default(self, default: frozenset[str]) -> None:
        self.default = default
        self.note_given(self.matcher.change_default(default, self.now))

    def note_given(self, given: Sequence[AnyPoller]) -> None:
        self.forget_expired()
        for poller in given:
            for each in poller.tasks:
                self.held.pop(each.key, None)
        for held in self.held.values():
            assert held.expire_at > self.now
            for poller in self.matcher.in_line():
                assert not self.may_have(poller, held), "a task is held back"

    def forget_expired(self) -> None:
        for key in [key for key in self.held if self.matcher.find(key) is None]:
            if self.held[key].expire_at <= self.now:
                del self.held[key]
                self.dropped_count += 1

    @invariant()
    def every_task_is_in_one_place(self) -> None:
        assigned = [each.key for poller in self.pollers for each in poller.tasks]
        everywhere = [*keys(list(self.matcher.held())), *assigned, *self.handed_out]
        assert len(everywhere) == len(set(everywhere))
        assert len(everywhere) + self.dropped_count == self.offered_count
        assert {t.key for t in self.matcher.held()} == set(self.held)

    @invariant()
    def every_poller_can_do_what_it_got(self) -> None:
        for poller in self.pollers:
            assert len(poller.tasks) <= poller.max_tasks
            assert all(each.capabilities <= poller.capabilities for each in poller.tasks)

    @invariant()
    def what_is_held_is_in_its_place(self) -> None:
        for each in self.matcher.held():
            assert each.place is not None
            sub_queue = each.place[0]
            assert sub_queue == SubQueue(sub_queue.sticky_queue, each.capabilities)
            assert sub_queue.sticky_queue in ("", each.sticky_queue)


MatcherMachine.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestMatcherMachine = MatcherMachine.TestCase
