"""How long a timer, a timeout or an interval may be.

The server takes a hundred years at most. What is longer is refused here, where the code asks for
it, with the name and the value.
"""

import math
from datetime import timedelta
from typing import Final

from aetheris_client.options import wrong_kind

MAX_DURATION: Final = timedelta(days=36_525)
_MAX_SECONDS: Final = MAX_DURATION.total_seconds()


def check_delay(seconds: float) -> None:
    """The delay of a timer: any number up to the maximum, or infinity: a timer that never fires.

    Raises:
        ValueError: It is none.
    """
    if seconds <= _MAX_SECONDS or seconds == math.inf:
        return
    raise ValueError(f"timer: {seconds} s, expected at most {_MAX_SECONDS:.0f} s ({_IN_WORDS})")


def check_timeout(name: str, value: object) -> None:
    """More than zero and up to the maximum, or absent.

    Raises:
        TypeError: It is no timedelta; the message says what to write.
        ValueError: It is out of range; the message begins with the name.
    """
    if value is None:
        return
    if not isinstance(value, timedelta):
        raise wrong_kind("activity", name, value)
    if value <= timedelta(0):
        raise ValueError(f"{name}: {value}, expected more than zero")
    if value > MAX_DURATION:
        raise ValueError(f"{name}: {value}, expected at most {MAX_DURATION} ({_IN_WORDS})")


_IN_WORDS: Final = "a hundred years"
