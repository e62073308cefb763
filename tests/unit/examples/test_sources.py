from pathlib import Path

import pytest

from examples.census.sources import LARGE_BYTES, SourceFile, find_sources, standard_library


def test_sources_are_python_files_by_path_without_tests(tmp_path: Path) -> None:
    for name in ("b.py", "a/z.py", "a/__init__.py", "a/tests/t.py", ".git/x.py", "a/n.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("x")
    (tmp_path / "link.py").symlink_to(tmp_path / "b.py")
    assert [file.path for file in find_sources(tmp_path)] == ["a/__init__.py", "a/z.py", "b.py"]


def test_sources_of_a_folder_that_is_missing_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        find_sources(tmp_path / "missing")


@pytest.mark.parametrize(
    "file, heavy",
    [
        (SourceFile("a.py", LARGE_BYTES), False),
        (SourceFile("a.py", LARGE_BYTES + 1), True),
        (SourceFile("a/__init__.py", 0), True),
    ],
)
def test_large_files_and_fronts_of_packages_are_heavy(file: SourceFile, heavy: bool) -> None:
    assert file.is_heavy is heavy


def test_standard_library_has_hundreds_of_files() -> None:
    assert len(find_sources(standard_library())) > 300
