import pytest

from tests.support.wait import wait_until


async def test_wait_until_returns_the_first_true_value() -> None:
    values = iter([0, None, "done"])
    assert await wait_until(lambda: next(values)) == "done"


async def test_wait_until_awaits_an_async_predicate() -> None:
    values = iter([False, True])

    async def _next() -> bool:
        return next(values)

    assert await wait_until(_next)


async def test_wait_until_past_the_deadline_names_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.02 s for rain; last value: 0"):
        await wait_until(lambda: 0, timeout=0.02, what="rain")
