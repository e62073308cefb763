"""The lease: how long it counts, and what its renewals go through."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from aetheris_server.cluster.lease import Lease
from aetheris_server.errors import StorageUnavailableError
from aetheris_server.storage.hosts import LeaseRenewer
from tests.support.clock import ManualClock
from tests.support.wait import wait_until

_LEASE = 3.0


class _Renewals:
    """A store that answers as a test says; each renewal takes some time of the clock."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.takes = 0.0
        self.answer: bool | Exception = True
        self.count = 0
        self.is_closed = False

    async def renew(self, host_id: str, lease_timeout: float, timeout: float) -> bool:
        self.count += 1
        self.clock.advance(self.takes)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def close(self) -> None:
        self.is_closed = True


def _lease(clock: ManualClock) -> tuple[Lease, _Renewals, list[float]]:
    renewals, rejoined = _Renewals(clock), list[float]()

    async def rejoin() -> None:
        rejoined.append(clock.monotonic())

    lease = Lease("a", _LEASE, 0.001, cast("LeaseRenewer", renewals), clock, rejoin)
    return lease, renewals, rejoined


async def _renew_until(lease: Lease, predicate: Callable[[], bool]) -> None:
    task = asyncio.create_task(lease.run())
    try:
        await wait_until(predicate, 5)
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def test_lease_is_not_valid_before_it_begins(clock: ManualClock) -> None:
    lease, _, _ = _lease(clock)
    assert not lease.is_valid


def test_lease_that_is_not_renewed_runs_out(clock: ManualClock) -> None:
    lease, _, _ = _lease(clock)
    lease.begin(clock.monotonic())
    clock.advance(_LEASE)
    assert lease.is_valid
    clock.advance(0.01)
    assert not lease.is_valid


async def test_lease_counts_from_before_its_renewal_was_sent(clock: ManualClock) -> None:
    lease, renewals, _ = _lease(clock)
    renewals.takes = 2.0
    await _renew_until(lease, lambda: renewals.count >= 1)
    renewals_end = clock.monotonic()
    assert lease.is_valid
    clock.advance(_LEASE - 2.0 + 0.01)
    assert clock.monotonic() < renewals_end + _LEASE
    assert not lease.is_valid


async def test_renewals_go_on_over_failures_and_renew_what_has_run_out(clock: ManualClock) -> None:
    lease, renewals, rejoined = _lease(clock)
    lease.begin(clock.monotonic())
    renewals.answer, renewals.takes = StorageUnavailableError("postgres", "gone"), 1.0
    await _renew_until(lease, lambda: not lease.is_valid)
    renewals.answer = ValueError("a fault")
    await _renew_until(lease, lambda: renewals.count >= 8)
    renewals.answer, renewals.takes = True, 0.0
    await _renew_until(lease, lambda: lease.is_valid)
    assert rejoined == []
    assert renewals.is_closed


async def test_host_that_was_buried_serves_nothing_and_joins_anew(clock: ManualClock) -> None:
    lease, renewals, rejoined = _lease(clock)
    lease.begin(clock.monotonic())
    renewals.answer = False
    await _renew_until(lease, lambda: bool(rejoined))
    assert not lease.is_valid


def test_lease_that_has_lapsed_is_steady_only_after_a_whole_lease(clock: ManualClock) -> None:
    lease, _, _ = _lease(clock)
    lease.begin(clock.monotonic())
    assert not lease.is_steady
    clock.advance(_LEASE)
    lease.begin(clock.monotonic())
    assert lease.is_steady
    # The store was away: all hosts are late, and each needs the time to renew.
    clock.advance(_LEASE + 1)
    lease.begin(clock.monotonic())
    assert not lease.is_steady
