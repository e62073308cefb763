from typing import Any, cast

import pytest

from aetheris_server.cluster import default_builds
from aetheris_server.cluster.default_builds import DefaultBuilds
from aetheris_server.storage.task_queues import QueueBuilds

_Q, _OTHER = ("n", "q"), ("n", "other")


class _Rows:
    """What the table has; `loads` counts who read it."""

    def __init__(self) -> None:
        self.found = QueueBuilds(0, {})
        self.loads = 0


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> _Rows:
    rows = _Rows()

    async def load(_: object) -> QueueBuilds:
        rows.loads += 1
        return rows.found

    monkeypatch.setattr(default_builds, "load_default_builds", load)
    return rows


def followed() -> tuple[DefaultBuilds, list[tuple[str, str]]]:
    builds = DefaultBuilds(cast("Any", None))
    changed: list[tuple[str, str]] = []
    builds.on_changed = changed.append
    return builds, changed


async def test_cluster_in_which_nothing_was_ever_set_is_not_read(rows: _Rows) -> None:
    builds, _ = followed()
    for _ in range(3):
        await builds.follow(0)
    assert rows.loads == 0
    assert builds.find(*_Q) == ""


async def test_another_version_is_read_once_and_says_which_queues_changed(rows: _Rows) -> None:
    builds, changed = followed()
    rows.found = QueueBuilds(2, {_Q: "b1", _OTHER: "b2"})
    for _ in range(3):
        await builds.follow(2)
    assert rows.loads == 1
    assert (builds.find(*_Q), builds.find(*_OTHER), builds.find("n", "third")) == ("b1", "b2", "")
    assert sorted(changed) == [_OTHER, _Q]
    changed.clear()
    rows.found = QueueBuilds(3, {_Q: "b1"})
    await builds.follow(3)
    assert changed == [_OTHER]
    assert builds.find(*_OTHER) == ""


def test_what_was_read_before_a_change_and_comes_late_counts_no_more() -> None:
    builds, changed = followed()
    builds.note(QueueBuilds(5, {_Q: "new"}))
    changed.clear()
    for version in (4, 5):
        builds.note(QueueBuilds(version, {_Q: "old"}))
    assert builds.find(*_Q) == "new"
    assert changed == []
