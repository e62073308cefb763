"""How long the supervisor waits before it starts a process again."""

from itertools import pairwise

from aetheris_server.processes.child import _delay_after


def test_delay_doubles_from_half_a_second_to_half_a_minute_and_stays_there() -> None:
    delays = [_delay_after(lives) for lives in range(1, 5_000)]
    assert delays[:3] == [0.5, 1.0, 2.0]
    assert all(later >= earlier for earlier, later in pairwise(delays))
    assert delays[-1] == 30.0
