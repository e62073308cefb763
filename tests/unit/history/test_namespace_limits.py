"""Limits that a namespace has of its own: which there are, and who goes by them."""

import asyncio
from collections.abc import Mapping

import pytest

from aetheris.api.v1.operator_service_pb2 import NamespaceLimits as NamespaceLimitsMessage
from aetheris_server.config import (
    CAPPED_LIMITS,
    NAMESPACE_LIMITS,
    LimitSettings,
    limits_of_namespace,
)
from aetheris_server.errors import StorageUnavailableError
from aetheris_server.history.runs.limits import NamespaceLimits, to_run_limits
from aetheris_server.history.state.limits import RunLimits
from aetheris_server.loops import end_tasks
from tests.support.wait import wait_until


def test_limits_have_the_same_names_everywhere() -> None:
    assert set(NAMESPACE_LIMITS) == set(NamespaceLimitsMessage.DESCRIPTOR.fields_by_name)
    assert set(NAMESPACE_LIMITS) <= set(LimitSettings.model_fields)


def test_defaults_of_settings_are_within_bounds_and_those_of_the_core() -> None:
    settings, core = LimitSettings(), RunLimits()
    for name, (least, most) in NAMESPACE_LIMITS.items():
        assert least <= getattr(settings, name) <= most
    assert to_run_limits(settings) == core


def test_own_limits_take_the_place_of_the_servers_but_for_what_is_not_known() -> None:
    server = LimitSettings()
    own = limits_of_namespace(server, {"max_signals": 5, "of_a_newer_program": 1})
    assert own.max_signals == 5
    assert own.model_dump(exclude={"max_signals"}) == server.model_dump(exclude={"max_signals"})
    assert limits_of_namespace(server, {}) is server


@pytest.mark.parametrize("name", sorted(CAPPED_LIMITS))
def test_capped_limits_are_never_more_than_the_servers(name: str) -> None:
    server = LimitSettings()
    most = getattr(server, name)
    assert getattr(limits_of_namespace(server, {name: most + 1}), name) == most
    assert getattr(limits_of_namespace(server, {name: most - 1}), name) == most - 1


class _Store:
    def __init__(self) -> None:
        self.limits: Mapping[str, Mapping[str, int]] | None = {}
        self.loads = 0

    async def load(self) -> Mapping[str, Mapping[str, int]]:
        self.loads += 1
        await asyncio.sleep(0)
        if self.limits is None:
            raise StorageUnavailableError("postgres", "gone")
        return self.limits


async def test_change_counts_once_it_is_read_and_outlives_a_store_that_is_gone() -> None:
    store = _Store()
    limits = NamespaceLimits(LimitSettings(), store.load, 0.01)
    loop = asyncio.create_task(limits.run())
    try:
        store.limits = {"one": {"max_signals": 5}}
        await wait_until(lambda: limits.of("one").max_signals == 5, 5, "the change")
        assert limits.of("two").max_signals == 10_000
        store.limits, loads = None, store.loads
        await wait_until(lambda: store.loads > loads + 2, 5, "reads that fail")
        assert limits.of("one").max_signals == 5
        store.limits = {}
        await wait_until(lambda: limits.of("one").max_signals == 10_000, 5, "the change back")
    finally:
        await end_tasks([loop])
