"""Whose code it is that runs: finds the place in user code that led to a call."""

import os
import sys
import sysconfig
from pathlib import Path
from types import FrameType
from typing import Final

# With what ends a folder's name: a project beside it may be called `aetheris_worker_app`.
_STANDARD_LIBRARY: Final = sysconfig.get_path("stdlib") + os.sep
_WORKER: Final = str(Path(__file__).parent.parent) + os.sep
_INSTALLED: Final = ("site-packages", "dist-packages")
# Where a debugger keeps a program waiting; what it starts threads with is another package.
DEBUGGERS: Final = frozenset({"bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy"})


def call_site() -> str:
    """The innermost frame that is neither the standard library's nor the worker's, as
    `file:line in function`.

    `unknown` if there is none.
    """
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        file = frame.f_code.co_filename
        if is_of_user(file):
            return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return "unknown"


def module_of(frame: FrameType | None) -> str:
    """The name of the module whose code it is; empty where there is none."""
    name = None if frame is None else frame.f_globals.get("__name__")
    return name if isinstance(name, str) else ""


def is_in_debugger(frame: FrameType | None) -> bool:
    """Whether somebody looks at the program just there: a debugger's code is on the stack."""
    while frame is not None:
        if module_of(frame).partition(".")[0] in DEBUGGERS:
            return True
        frame = frame.f_back
    return False


def is_of_user(file: str) -> bool:
    """Whether a source file is neither Python's nor the worker's."""
    return not _is_of_standard_library(file) and not is_of_worker(file)


def is_of_worker(file: str) -> bool:
    """Whether a source file is the worker's own."""
    return file.startswith(_WORKER)


def is_of_library(file: str) -> bool:
    """Whether a source file is part of Python or of an installed package."""
    return _is_of_standard_library(file) or any(name in file for name in _INSTALLED)


def _is_of_standard_library(file: str) -> bool:
    if file.startswith("<frozen "):
        return True
    return file.startswith(_STANDARD_LIBRARY) and not any(name in file for name in _INSTALLED)
