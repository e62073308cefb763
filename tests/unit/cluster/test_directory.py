"""Who should have what, and where it is."""

from aetheris.api.v1.task_queue_pb2 import TASK_QUEUE_TYPE_ACTIVITY
from aetheris_server.cluster.directory import Directory
from aetheris_server.cluster.placement import choose_host
from aetheris_server.storage.hosts import Sight
from aetheris_server.storage.shards import ShardRow

_SHARD_COUNT = 64
_KEYS = [f"key {number}" for number in range(200)]


def _sight(*names: str, expired: tuple[str, ...] = ()) -> Sight:
    hosts = {name: f"{name}:1" for name in names}
    return Sight(hosts=hosts, expired=frozenset(expired), version=(0, 0))


def _directory(name: str) -> Directory:
    directory = Directory(_SHARD_COUNT)
    directory.address = f"{name}:1"
    return directory


def _row(shard_id: int, host_id: str | None) -> ShardRow:
    return ShardRow(shard_id, host_id, range_id=1, watermark=0)


def test_host_that_goes_moves_its_own_keys_alone() -> None:
    before = {key: choose_host(key, ["a", "b", "c"]) for key in _KEYS}
    after = {key: choose_host(key, ["a", "b"]) for key in _KEYS}
    moved = {key for key in _KEYS if before[key] != after[key]}
    assert moved == {key for key in _KEYS if before[key] == "c"}


def test_every_shard_is_wanted_by_one_live_host() -> None:
    directories = [_directory(name) for name in "ab"]
    for directory in directories:
        directory.note(_sight("a", "b", "c", expired=("c",)), [])
    wanted = [shard_id for directory in directories for shard_id in directory.wanted]
    assert sorted(wanted) == list(range(_SHARD_COUNT))


def test_shard_is_located_by_the_row_of_a_live_host() -> None:
    directory = _directory("a")
    directory.note(_sight("a", "b"), [_row(0, "a"), _row(1, "b"), _row(2, "gone"), _row(3, None)])
    assert [directory.locate_shard(shard_id) for shard_id in range(4)] == [None, "b:1", None, None]
    assert [directory.is_elsewhere(shard_id) for shard_id in range(4)] == [
        False,
        True,
        False,
        False,
    ]


def test_queue_is_located_alike_by_all_hosts() -> None:
    directories = {name: _directory(name) for name in "ab"}
    for directory in directories.values():
        directory.note(_sight("a", "b"), [])
    for key in _KEYS:
        located = {
            directory.locate_queue("ns", key, TASK_QUEUE_TYPE_ACTIVITY) or directory.address
            for directory in directories.values()
        }
        assert len(located) == 1


def test_host_that_is_alone_has_every_queue() -> None:
    directory = _directory("a")
    directory.note(_sight("a"), [])
    assert directory.locate_queue("ns", "queue", TASK_QUEUE_TYPE_ACTIVITY) is None
