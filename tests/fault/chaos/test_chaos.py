"""A short run of `make chaos`, from a fixed seed."""

import sys
from pathlib import Path

import pytest

from tests.fault.chaos.runner import Plan, run_chaos

_PLAN = Plan(
    seed=957,
    seconds=7.0,
    concurrency=12,
    shard_count=4,
    cache=20,
    longest=1.5,
    pause=0.5,
    idle_seconds=2.0,
)


@pytest.mark.slow
async def test_acknowledged_runs_end_as_they_must_whatever_fails(open_tmp_path: Path) -> None:
    book = await run_chaos(open_tmp_path, _PLAN, _say)
    assert book.faults == []
    assert book.done.total() > 10


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
