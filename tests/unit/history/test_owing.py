"""The table of places in which a run that owes tasks, or whose row says so, may be."""

from collections.abc import Callable

import pytest

from aetheris_server.history.owing import Owing
from aetheris_server.history.state.run import RunKey

_KEY = RunKey("namespace", "workflow", "run")
_PLACES = ("", "unflagged", "flagged", "stale")


def _begin(runs: Owing) -> None:
    runs.begin(runs.plan(until_seq=9))


def _settle(runs: Owing) -> None:
    plan = runs.plan(until_seq=9)
    runs.begin(plan)
    runs.settle(plan.flag)


def _settle_after(event: Callable[[Owing], None]) -> Callable[[Owing], None]:
    """An event that comes while the settlement is on its way."""

    def settle(runs: Owing) -> None:
        plan = runs.plan(until_seq=9)
        runs.begin(plan)
        event(runs)
        runs.settle(plan.flag)

    return settle


def _owes(runs: Owing) -> None:
    runs.note(_KEY, True, 1)


def _owes_nothing(runs: Owing) -> None:
    runs.note(_KEY, False, 1)


def _row_says_owes(runs: Owing) -> None:
    _owes(runs)
    runs.note_row_written(_KEY, True)


def _row_says_nothing(runs: Owing) -> None:
    _owes_nothing(runs)
    runs.note_row_written(_KEY, False)


# Where the event takes a run that is nowhere, unflagged, flagged, stale.
_TABLE: list[tuple[Callable[[Owing], None], tuple[str, str, str, str]]] = [
    (_owes, ("unflagged", "unflagged", "flagged", "flagged")),
    (_owes_nothing, ("", "", "stale", "stale")),
    (_row_says_owes, ("flagged", "flagged", "flagged", "flagged")),
    (_row_says_nothing, ("", "", "", "")),
    (_begin, ("", "unflagged", "flagged", "")),
    (_settle, ("", "flagged", "flagged", "")),
    (_settle_after(_owes), ("unflagged", "flagged", "flagged", "unflagged")),
    (_settle_after(_owes_nothing), ("", "stale", "stale", "")),
    (_settle_after(_row_says_owes), ("flagged", "flagged", "flagged", "unflagged")),
    (_settle_after(_row_says_nothing), ("", "", "", "")),
]


def _runs_with(place: str) -> Owing:
    runs = Owing()
    if place == "unflagged":
        runs.note(_KEY, True, 1)
    elif place:
        runs.note_recovered(_KEY, owes=place == "flagged", is_flagged=True, watermark=0)
    return runs


def _place(runs: Owing) -> str:
    (place,) = [name for name in _PLACES if name and _KEY in getattr(runs, name)] or [""]
    return place


@pytest.mark.parametrize("event, places", _TABLE)
@pytest.mark.parametrize("index", range(4))
def test_run_goes_where_the_table_says(
    event: Callable[[Owing], None], places: tuple[str, str, str, str], index: int
) -> None:
    runs = _runs_with(_PLACES[index])
    assert _place(runs) == _PLACES[index]
    event(runs)
    assert _place(runs) == places[index]


def test_row_that_was_written_while_its_flag_was_on_its_way_is_cleared_next() -> None:
    runs = _runs_with("unflagged")
    _settle_after(_row_says_nothing)(runs)
    assert runs.plan(until_seq=9).clear == {_KEY}


def test_settlement_that_failed_is_cleared_next_unless_the_run_owes() -> None:
    runs = _runs_with("unflagged")
    plan = runs.plan(until_seq=9)
    runs.begin(plan)
    runs.unsettle(plan.flag)
    assert runs.plan(until_seq=9).clear == set()
    _owes_nothing(runs)
    assert runs.plan(until_seq=9).clear == {_KEY}
