"""Which files a census counts."""

import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SKIPPED_FOLDERS: Final = frozenset(
    {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
)
LARGE_BYTES: Final = 40_000


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file, by its path below the folder, with `/` on every system."""

    path: str
    size: int

    @property
    def is_heavy(self) -> bool:
        """Whether it takes a worker that can `parse`: it is large, or it is a package's front."""
        return self.size > LARGE_BYTES or self.path.endswith("__init__.py")


def standard_library() -> Path:
    """The folder of the running Python's standard library."""
    return Path(sysconfig.get_path("stdlib"))


def find_sources(folder: Path) -> list[SourceFile]:
    """The Python files below a folder, by path; tests and installed packages are left out.

    Raises:
        OSError: There is no such folder.
    """
    return sorted(_walk(folder, ""), key=lambda file: file.path)


def _walk(folder: Path, prefix: str) -> Iterator[SourceFile]:
    for entry in folder.iterdir():
        if entry.is_symlink():
            continue
        path = prefix + entry.name
        if entry.is_dir():
            if entry.name not in SKIPPED_FOLDERS and not entry.name.startswith("."):
                yield from _walk(entry, f"{path}/")
        elif entry.suffix == ".py":
            yield SourceFile(path, entry.stat().st_size)
