"""A release of somebody else's package breaks neither an installation nor a fresh clone."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OWN_NAME = PROJECT["project"]["name"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
REQUIREMENTS = sorted(
    {
        *PROJECT["build-system"]["requires"],
        *PROJECT["project"]["dependencies"],
        *(line for lines in EXTRAS.values() for line in lines if not line.startswith(OWN_NAME)),
    }
)
LOCK = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
]


def _is_bounded(versions: SpecifierSet) -> bool:
    return any(each.operator in ("<", "==") for each in versions)


def test_bound_is_told_from_none() -> None:
    assert len(REQUIREMENTS) > 30
    assert _is_bounded(SpecifierSet(">=1,<2"))
    assert not _is_bounded(SpecifierSet(">=1"))


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_requirement_has_an_upper_bound_and_its_pin_is_within_it(line: str) -> None:
    requirement = Requirement(line)
    pins = dict(pin.split("==") for pin in LOCK)
    by_name = {canonicalize_name(name): version for name, version in pins.items()}

    assert _is_bounded(requirement.specifier)
    assert by_name[canonicalize_name(requirement.name)] in requirement.specifier


def test_lock_has_names_and_versions_alone() -> None:
    """No address, no path, no option: where packages come from is everybody's own affair."""
    assert [line for line in LOCK if not re.fullmatch(r"[\w.-]+==[\w.+!]+", line)] == []
