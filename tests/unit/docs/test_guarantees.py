"""docs/guarantees.md names its tests; they are there."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_guarantees_name_only_tests_that_exist() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", text))
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"def (test_\w+)\(", file.read_text())
    }

    assert len(named) > 20
    assert named - defined == set()


def test_guarantees_name_only_files_that_exist() -> None:
    text = (ROOT / "docs" / "guarantees.md").read_text()

    for name in re.findall(r"`(tests/\S+\.py)`", text):
        assert (ROOT / name).is_file(), name
