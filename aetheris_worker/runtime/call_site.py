"""Whose code it is that runs: finds the place in user code that led to a call."""

import os
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Final

# With what ends a folder's name: a project beside it may be called `aetheris_worker_app`.
_STANDARD_LIBRARY: Final = sysconfig.get_path("stdlib") + os.sep
_WORKER: Final = str(Path(__file__).parent.parent) + os.sep
_INSTALLED: Final = ("site-packages", "dist-packages")
# Where a debugger keeps a program waiting; what it starts threads with is another package.
DEBUGGERS: Final = frozenset({"bdb", "pdb", "pydevd", "_pydevd_bundle", "debugpy"})


CallSite = tuple[CodeType, int]
"""A line of user code: the function's, and its number."""


def find_call_site() -> CallSite | None:
    """The innermost frame that is neither the standard library's nor the worker's; None if there is
    none. Cheap: every command asks for it.
    """
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        code = frame.f_code
        if is_of_user(code.co_filename):
            return code, frame.f_lineno
        frame = frame.f_back
    return None


def call_site() -> str:
    """The same as text."""
    return describe_site(find_call_site())


def describe_site(site: CallSite | None) -> str:
    """As `file:line in function`; `unknown` for none."""
    if site is None:
        return "unknown"
    code, line = site
    return f"{code.co_filename}:{line} in {code.co_name}"


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


@lru_cache(maxsize=4096)
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
