"""Ids as Postgres keeps them: 16 bytes for what is 36 characters elsewhere.

An id has one text: lower case, with hyphens. So what is not that text names nothing, and two texts
never name the same row.
"""

import re
from functools import lru_cache

_CANONICAL = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def is_uuid(text: str) -> bool:
    """Whether a text can be the id of anything that is stored."""
    return _CANONICAL.fullmatch(text) is not None


# The ids of a namespace and of a live run come again with each of its records.
@lru_cache(maxsize=16_384)
def uuid_bytes(text: str) -> bytes:
    """The 16 bytes of an id.

    Raises:
        ValueError: It is not an id's text: a program's mistake, for ids from outside are checked
            first.
    """
    value = bytes.fromhex(text.replace("-", ""))
    if len(value) != 16:
        raise ValueError(f"id {text!r}: expected a UUID")
    return value
