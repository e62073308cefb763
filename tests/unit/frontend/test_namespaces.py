import asyncio
from collections.abc import Callable

import pytest

from aetheris_server.config import LimitSettings
from aetheris_server.errors import InvalidArgumentError, NamespaceNotFoundError
from aetheris_server.frontend.namespaces import NamespaceDirectory
from tests.support.clock import ManualClock
from tests.support.peers import NAMESPACE_ID, FakeCatalog


async def test_id_is_loaded_once_while_it_is_fresh(clock: ManualClock) -> None:
    catalog = FakeCatalog()
    directory = NamespaceDirectory(catalog, clock, LimitSettings())
    for _ in range(3):
        assert await directory.id_of("default") == NAMESPACE_ID
    assert catalog.loads == 1


async def test_id_is_loaded_again_when_it_is_old(clock: ManualClock) -> None:
    catalog = FakeCatalog()
    directory = NamespaceDirectory(catalog, clock, LimitSettings())
    await directory.id_of("default")
    clock.advance(10)
    await directory.id_of("default")
    assert catalog.loads == 2


async def test_many_who_wait_for_one_name_load_it_once(clock: ManualClock) -> None:
    catalog = FakeCatalog()
    directory = NamespaceDirectory(catalog, clock, LimitSettings())
    ids = await asyncio.gather(*(directory.id_of("default") for _ in range(50)))
    assert set(ids) == {NAMESPACE_ID}
    assert catalog.loads == 1


async def test_unknown_name_is_found_as_soon_as_it_is_made(clock: ManualClock) -> None:
    catalog = FakeCatalog()
    directory = NamespaceDirectory(catalog, clock, LimitSettings())
    with pytest.raises(NamespaceNotFoundError):
        await directory.id_of("new")
    await catalog.create_namespace("id", "new", "", 3600, "request")
    assert await directory.id_of("new") == "id"


@pytest.mark.parametrize("name", ["", "a b", "\0"])
async def test_name_that_cannot_be_never_reaches_the_store(clock: ManualClock, name: str) -> None:
    catalog = FakeCatalog()
    with pytest.raises(InvalidArgumentError, match=r"^namespace: "):
        await NamespaceDirectory(catalog, clock, LimitSettings()).id_of(name)
    assert catalog.loads == 0


async def test_names_that_are_remembered_are_bounded(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aetheris_server.frontend.namespaces._MAX_NAMES", 1)
    catalog = FakeCatalog()
    await catalog.create_namespace("id", "other", "", 3600, "request")
    directory = NamespaceDirectory(catalog, clock, LimitSettings())
    for name in ("default", "other", "default"):
        await directory.id_of(name)
    assert catalog.loads == 3


def _check(seen: list[int]) -> Callable[[int, LimitSettings], None]:
    def check(size: int, limits: LimitSettings) -> None:
        seen.append(limits.payload_max_bytes)
        if size > limits.payload_max_bytes:
            raise InvalidArgumentError("input", "too large")

    return check


async def test_request_is_held_to_the_limits_that_its_namespace_has_of_its_own(
    clock: ManualClock,
) -> None:
    catalog, server = FakeCatalog(), LimitSettings()
    await catalog.create_namespace("id", "small", "", 3600, "r", {"payload_max_bytes": 256})
    directory = NamespaceDirectory(catalog, clock, server)
    seen: list[int] = []

    assert await directory.admit("default", 257, _check(seen)) == NAMESPACE_ID
    assert seen == [server.payload_max_bytes]
    with pytest.raises(InvalidArgumentError):
        await directory.admit("small", 257, _check(seen))
    assert seen[1:] == [server.payload_max_bytes, 256]
    assert directory.limits_of("small").payload_max_bytes == 256

    await catalog.update_namespace("small", None, None, {}, ["payload_max_bytes"])
    clock.advance(10)
    assert await directory.admit("small", 257, _check(seen)) == "id"
    assert directory.limits_of("small") is server
