"""How many items of a list go on one page."""

from aetheris_server.config import LimitSettings

__all__ = ["page_size"]

_DEFAULT_SIZE = 100


def page_size(asked: int, limits: LimitSettings) -> int:
    """As asked, which has been checked; where 0 was asked for, the default within the limit."""
    return asked or min(_DEFAULT_SIZE, limits.page_max_size)
