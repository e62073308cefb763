"""What a host that lacks shards may still call ready."""

from aetheris_server.cluster.readiness import Readiness
from tests.support.clock import ManualClock


def test_host_is_not_ready_before_it_had_its_shards(clock: ManualClock) -> None:
    readiness = Readiness(clock)
    readiness.note_missing()
    assert not readiness.is_enough(1, 8)
    readiness.note_complete()
    assert readiness.is_enough(0, 8)


def test_host_that_lacks_few_shards_is_ready_for_a_moment(clock: ManualClock) -> None:
    readiness = Readiness(clock)
    readiness.note_complete()
    readiness.note_missing()
    assert readiness.is_enough(3, 8)
    assert not readiness.is_enough(4, 8)
    clock.advance(4.0)
    # Another one that goes missing does not begin the time anew.
    readiness.note_missing()
    assert readiness.is_enough(3, 8)
    clock.advance(1.1)
    assert not readiness.is_enough(3, 8)


def test_host_that_has_lost_all_is_not_ready(clock: ManualClock) -> None:
    readiness = Readiness(clock)
    readiness.note_complete()
    readiness.note_nothing()
    assert not readiness.is_enough(0, 8)
