import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetheris_server.ids import new_run_id, shard_of


def test_new_run_id_is_a_uuid_of_version_seven() -> None:
    run_id = uuid.UUID(new_run_id())
    assert (run_id.version, run_id.variant) == (7, uuid.RFC_4122)


def test_new_run_id_many_at_once_are_distinct_and_ascending() -> None:
    run_ids = [new_run_id() for _ in range(10_000)]
    assert run_ids == sorted(set(run_ids))


def test_new_run_id_from_many_threads_are_distinct() -> None:
    with ThreadPoolExecutor(8) as pool:
        run_ids = list(pool.map(lambda _: new_run_id(), range(5_000)))
    assert len(set(run_ids)) == len(run_ids)


def test_new_run_id_when_the_wall_clock_steps_back_still_ascends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = new_run_id()
    monkeypatch.setattr("time.time_ns", lambda: 0)
    assert new_run_id() > before


@pytest.mark.parametrize(
    "namespace_id,workflow_id,shard_count,shard",
    [
        ("ns", "wf", 64, 19),
        ("ns", "wf", 512, 403),
        ("", "", 512, 158),
        ("ñ", "日本", 512, 128),
    ],
)
def test_shard_of_never_changes(
    namespace_id: str, workflow_id: str, shard_count: int, shard: int
) -> None:
    assert shard_of(namespace_id, workflow_id, shard_count) == shard


def test_shard_of_ids_with_the_same_concatenation_differs() -> None:
    assert shard_of("ab", "c", 16384) != shard_of("a", "bc", 16384)


@given(st.text(), st.text(), st.integers(1, 16384))
def test_shard_of_any_ids_is_in_range(
    namespace_id: str, workflow_id: str, shard_count: int
) -> None:
    assert 0 <= shard_of(namespace_id, workflow_id, shard_count) < shard_count


def test_shard_of_many_ids_spreads_evenly() -> None:
    counts = [0] * 64
    for number in range(64_000):
        counts[shard_of("ns", f"order-{number}", 64)] += 1
    assert min(counts) > 850
    assert max(counts) < 1150
