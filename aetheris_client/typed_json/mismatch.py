"""What a decoder is, and the error of one whose value does not fit.

On success a decoder keeps no track of where it is; an error collects its path on the way out.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

# Makes the value that a hint asks for of parsed JSON; raises MismatchError.
Decoder: TypeAlias = Callable[[object], object]
# Finds the decoder of a hint, for those who need one for each of its parts: decoding.decoder_for.
DecoderFor: TypeAlias = Callable[[object], Decoder]


# A reason may quote a value, and a step be a key, which have no bound.
_MAX_REASON: Final = 1_000
_MAX_STEP: Final = 100


class MismatchError(Exception):
    """A value is not what a hint says; callers on the way out add where they are."""

    def __init__(self, wanted: object, reason: str) -> None:
        super().__init__(reason)
        self.wanted = wanted
        self.reason = _cut(reason, _MAX_REASON)
        self.path: list[str] = []

    def within(self, step: str) -> "MismatchError":
        self.path.append(step)
        return self

    def full_path(self) -> str:
        """From the whole value to the part that is wrong."""
        return "$" + "".join(reversed(self.path))


def wrong(wanted: object, value: object) -> MismatchError:
    """The error for a value of the wrong kind."""
    return MismatchError(wanted, f"found {kind_of(value)}")


def unreadable(wanted: object, error: Exception) -> MismatchError:
    """The error for what a constructor or parser raised, which may be anything; a mismatch that one
    met inside goes on as it is.
    """
    return error if isinstance(error, MismatchError) else MismatchError(wanted, str(error))


def kind_of(value: object) -> str:
    """What a JSON value is, in JSON's words."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "a number"
        case float():
            # Not "a number": where an int is wanted, that would be what was asked for.
            return "a number with a fraction or an exponent"
        case str():
            return "a string"
        case list():
            return "an array"
        case dict():
            return "an object"
        case _:
            return "bytes"


def decode_part(decoder: Decoder, value: object, step: str) -> object:
    """One part of a value, reached by a step of the path."""
    try:
        return decoder(value)
    except MismatchError as error:
        raise error.within(step) from error.__cause__


def key_step(key: object) -> str:
    """The part of a path that leads to the value of a key."""
    is_plain = isinstance(key, str) and key.isprintable()
    return _cut(f".{key}", _MAX_STEP) if is_plain else f"[{_cut(repr(key), _MAX_STEP)}]"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"
