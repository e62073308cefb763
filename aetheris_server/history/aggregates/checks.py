"""What the store would refuse, said before anything is asked of it.

A refusal there would take along all that is written, or looked up, beside it.
"""

from aetheris_server.errors import InvalidArgumentError
from aetheris_server.storage.uuids import is_uuid

# What fits an entry of an index beside the ids; the frontend's own bound is lower by default.
_MAX_NAME_BYTES = 2_000


def check_key(namespace_id: str, name: str, field: str = "name") -> None:
    """Check that there can be aggregates of a name, which came in `field`.

    Raises:
        InvalidArgumentError: There cannot.
    """
    if not is_uuid(namespace_id):
        raise InvalidArgumentError("namespace_id", "expected a UUID")
    check_text(field, name)
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise InvalidArgumentError(field, f"expected at most {_MAX_NAME_BYTES} bytes")


def check_text(field: str, text: str) -> None:
    """Check that a column can have a text.

    Raises:
        InvalidArgumentError: It cannot.
    """
    if "\0" in text:
        raise InvalidArgumentError(field, "expected text without NUL characters")
