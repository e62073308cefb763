"""Finds the place in user code that led to the current call."""

import asyncio
import sys
from pathlib import Path
from types import FrameType
from typing import Final

_ASYNCIO: Final = str(Path(asyncio.__file__).parent)
_RUNTIME: Final = str(Path(__file__).parent)


def call_site() -> str:
    """The innermost frame that is neither asyncio's nor the runtime's, as `file:line in function`.

    `unknown` if there is none.
    """
    frame: FrameType | None = sys._getframe(1)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_ASYNCIO, _RUNTIME)):
            return f"{file}:{frame.f_lineno} in {frame.f_code.co_name}"
        frame = frame.f_back
    return "unknown"
