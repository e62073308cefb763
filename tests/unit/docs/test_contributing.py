"""docs/contributing.md names files, tests, commands and code; they are there."""

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docs" / "contributing.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = re.findall(r"^([a-z0-9-]+):.*## ", MAKEFILE, re.MULTILINE)
MARKERS = re.findall(r'^    "(\w+): ', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
IN_CODE = set(re.findall(r"`([^`\n]+)`", TEXT))
# Stands for any name.
EXAMPLES = {"EVENT_TYPE_X_Y", "x_y_event_attributes", "decide_*", "append_*"}
_PATH = re.compile(r"[\w./-]*(/[\w.-]+|\.(py|proto|md|txt|toml))")
PATHS = {word for word in IN_CODE if _PATH.fullmatch(word)}
NAMES = {word for word in IN_CODE if re.fullmatch(r"\w*(_|[a-z][A-Z])\w*", word)} - EXAMPLES


@cache
def _files() -> list[Path]:
    folders = ("aetheris_server", "aetheris_worker", "aetheris_client", "proto/aetheris", "tests")
    return [
        *ROOT.glob("*.*"),
        *(path for folder in folders for path in (ROOT / folder).rglob("*.*")),
    ]


@cache
def _words_of_the_code() -> set[str]:
    return {
        word
        for file in _files()
        if file.suffix in {".py", ".proto", ".toml"} and file != Path(__file__)
        for word in re.findall(r"\w+", file.read_text())
    }


def test_guide_names_as_much_as_this_looks_for() -> None:
    assert len(PATHS) > 40
    assert len(NAMES) > 50
    assert len(TARGETS) > 15


@pytest.mark.parametrize("path", sorted(PATHS))
def test_guide_names_only_files_that_exist(path: str) -> None:
    """A name without a folder is beside a file that is named with its own."""
    if "/" in path:
        assert (ROOT / path).exists()
    else:
        assert path in {file.name for file in _files()}


@pytest.mark.parametrize("name", sorted(NAMES))
def test_guide_names_only_what_the_code_has(name: str) -> None:
    assert name in _words_of_the_code()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"`make ([\w-]+)", TEXT))))
def test_guide_names_only_commands_that_exist(target: str) -> None:
    assert target in TARGETS


@pytest.mark.parametrize("target", [each for each in TARGETS if each.startswith("test")])
def test_every_way_to_run_the_tests_is_in_the_guide(target: str) -> None:
    assert f"`make {target}`" in TEXT


def test_every_target_is_listed_by_help_and_is_no_file() -> None:
    defined = set(re.findall(r"^([a-z0-9-]+):(?!=)", MAKEFILE, re.MULTILINE))
    [phony] = re.findall(r"^\.PHONY: (.*)$", MAKEFILE.replace("\\\n", " "), re.MULTILINE)

    assert defined == set(phony.split()) == set(TARGETS)


def test_guide_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize("folder", sorted(each.name for each in (ROOT / "tests").iterdir()))
def test_guide_has_every_folder_of_tests(folder: str) -> None:
    if (ROOT / "tests" / folder).is_dir() and not folder.startswith("_"):
        assert f"| `tests/{folder}` |" in TEXT


@pytest.mark.parametrize("marker", MARKERS)
def test_guide_has_every_marker(marker: str) -> None:
    assert f"`{marker}`" in TEXT or f"`make {marker}`" in TEXT
