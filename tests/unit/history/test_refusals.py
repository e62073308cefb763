"""How long a run at fault is left alone."""

from aetheris_server.errors import RunSetAsideError
from aetheris_server.history.engine.refusals import REFUSAL_INTERVAL, REFUSAL_MAX_INTERVAL, Refusals
from tests.support.clock import ManualClock

_ERROR = RunSetAsideError("run")


def _refuse_again(refusals: Refusals, clock: ManualClock) -> float:
    seconds = refusals.add("run", _ERROR)
    clock.advance(seconds)
    assert not refusals.is_refused("run")
    return seconds


def test_run_that_is_refused_again_is_refused_for_longer_up_to_a_bound() -> None:
    clock = ManualClock()
    refusals = Refusals(clock)
    intervals = [_refuse_again(refusals, clock) for _ in range(10)]
    assert intervals[:4] == [REFUSAL_INTERVAL * 2**number for number in range(4)]
    assert intervals[-1] == REFUSAL_MAX_INTERVAL


def test_faults_of_one_moment_count_once() -> None:
    refusals = Refusals(ManualClock())
    assert [refusals.add("run", _ERROR) for _ in range(9)] == [REFUSAL_INTERVAL] * 9


def test_run_that_goes_well_for_long_enough_is_forgotten() -> None:
    clock = ManualClock()
    refusals = Refusals(clock)
    _refuse_again(refusals, clock)
    refusals.note_success("run")
    assert _refuse_again(refusals, clock) == 2 * REFUSAL_INTERVAL
    clock.advance(2 * REFUSAL_INTERVAL)
    refusals.note_success("run")
    assert _refuse_again(refusals, clock) == REFUSAL_INTERVAL
