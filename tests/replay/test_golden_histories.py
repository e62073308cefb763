"""Histories that real servers and earlier workers wrote still replay. Files are only ever added."""

from pathlib import Path

import pytest

from aetheris.api.v1.history_pb2 import EventType
from aetheris_worker.testing import NondeterminismError, Replayer, read_history
from tests.replay.workflows import WORKFLOWS

FILES = sorted((Path(__file__).parent / "histories").glob("*.json"))


def test_golden_histories_are_found() -> None:
    assert FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_history_replays(path: Path) -> None:
    Replayer(workflows=WORKFLOWS).replay(read_history(path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden_history_with_an_activity_renamed_is_refused(path: Path) -> None:
    history = read_history(path)
    for event in history.events:
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            event.activity_task_scheduled_event_attributes.activity_type.name = "other"
            with pytest.raises(NondeterminismError, match=f"at event {event.event_id} "):
                Replayer(workflows=WORKFLOWS).replay(history)
            return
    pytest.fail("the history has no activity")


def test_replayer_without_the_workflow_says_what_it_has() -> None:
    with pytest.raises(LookupError, match="expected one of"):
        Replayer(workflows=WORKFLOWS[1:]).replay(
            read_history(Path(__file__).parent / "histories" / "one_activity.json")
        )
