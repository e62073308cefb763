import asyncio
import uuid

from aetheris_server.storage.database import Database
from aetheris_server.storage.hosts import look_at_cluster
from aetheris_server.storage.shards import ensure_cluster
from aetheris_server.storage.task_queues import change_default_build, load_default_builds

_NAMESPACE_ID = str(uuid.uuid4())


async def test_changes_are_loaded_with_the_version_that_looks_tell(db: Database) -> None:
    await ensure_cluster(db, 4)
    assert (await look_at_cluster(db)).settings_version == 0
    assert (await load_default_builds(db)).by_queue == {}
    await change_default_build(db, _NAMESPACE_ID, "q", "b1", "one")
    await change_default_build(db, _NAMESPACE_ID, "other", "b2", "one")
    found = await load_default_builds(db)
    assert found.by_queue == {(_NAMESPACE_ID, "q"): "b1", (_NAMESPACE_ID, "other"): "b2"}
    assert found.version == (await look_at_cluster(db)).settings_version == 2
    await change_default_build(db, _NAMESPACE_ID, "q", "", "two")
    found = await load_default_builds(db)
    assert (found.version, found.by_queue) == (3, {(_NAMESPACE_ID, "other"): "b2"})


async def test_request_that_comes_again_changes_nothing_while_it_is_remembered(
    db: Database,
) -> None:
    await ensure_cluster(db, 4)
    for number in range(21):
        await change_default_build(db, _NAMESPACE_ID, "q", f"b{number}", f"r{number}")
    for number in (1, 20):
        await change_default_build(db, _NAMESPACE_ID, "q", "again", f"r{number}")
    found = await load_default_builds(db)
    assert (found.version, found.by_queue) == (21, {(_NAMESPACE_ID, "q"): "b20"})
    await change_default_build(db, _NAMESPACE_ID, "q", "forgotten", "r0")
    assert (await load_default_builds(db)).by_queue == {(_NAMESPACE_ID, "q"): "forgotten"}


async def test_changes_at_once_each_have_a_version(db: Database) -> None:
    await ensure_cluster(db, 4)
    await asyncio.gather(
        *(
            change_default_build(db, _NAMESPACE_ID, f"q{number % 3}", f"b{number}", f"r{number}")
            for number in range(12)
        )
    )
    found = await load_default_builds(db)
    assert found.version == 12
    assert found.by_queue.keys() == {(_NAMESPACE_ID, f"q{number}") for number in range(3)}
