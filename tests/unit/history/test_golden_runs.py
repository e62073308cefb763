"""Logs and snapshots that earlier versions wrote are still read as they were meant.

A file has runs by name; a run has its records in order, each with the hash chain's link and the
snapshot made behind it. `tests/support/golden_runs.py` writes one. Files are only ever added.
"""

import base64
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from aetheris.server.v1 import state_pb2
from aetheris_server.history.aggregates.records import decode_record
from aetheris_server.history.state.apply import apply
from aetheris_server.history.state.machines.lifecycle.start import new_state
from aetheris_server.history.state.registry import RUN_MACHINES, fact_name
from aetheris_server.history.state.run import RunState
from aetheris_server.history.state.snapshot import from_snapshot, to_snapshot
from tests.support.golden_runs import LIVES
from tests.support.runs import KEY

_RUNS: dict[str, list[dict[str, str]]] = {
    f"{path.stem}-{name}": rows
    for path in sorted((Path(__file__).parent / "golden").glob("*.json"))
    for name, rows in json.loads(path.read_text()).items()
}


def _fields(state: RunState) -> dict[str, Any]:
    return {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}


def test_golden_runs_are_found() -> None:
    assert len(_RUNS) >= 6


@pytest.mark.parametrize("name", _RUNS)
def test_golden_log_and_snapshots_fold_to_the_same_state(name: str) -> None:
    rows = [
        (base64.b64decode(row["record"]), row["hash"], base64.b64decode(row["snapshot"]))
        for row in _RUNS[name]
    ]
    state = new_state(KEY, decode_record(KEY.run_id, 1, rows[0][0]))
    for run_seq, (stored, hash_, snapshot) in enumerate(rows, start=1):
        apply(state, decode_record(KEY.run_id, run_seq, stored), stored)
        assert state.hash.hex() == hash_
        loaded = from_snapshot(KEY, run_seq, state.hash, snapshot)
        assert _fields(loaded) == _fields(state)
        written = state_pb2.RunSnapshot.FromString(to_snapshot(state))
        assert written == state_pb2.RunSnapshot.FromString(snapshot)


def test_lives_for_golden_files_have_every_event_and_fact() -> None:
    records = [record for make in LIVES.values() for record in make().records]
    events = {event.event_type for record in records for event in record.events}
    facts = {fact_name(fact) for record in records for fact in record.facts}
    assert events == RUN_MACHINES.events.keys()
    assert facts == RUN_MACHINES.facts.keys() | {"event_buffered", "buffer_flushed"}
