import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Literal
from uuid import UUID

import pytest

from aetheris_client.errors import PayloadDecodeError
from aetheris_client.typed_json.decoding import decode

_WAIT = 10.0


class _Colour(Enum):
    RED = "red"


class _Pause(Mapping[str, object]):
    """Whoever comes first waits for a second one."""

    def __init__(self) -> None:
        self.begun, self.followed = threading.Event(), threading.Event()

    def __getitem__(self, key: str) -> object:
        raise KeyError(key)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[str]:
        if self.begun.is_set():
            self.followed.set()
        self.begun.set()
        assert self.followed.wait(_WAIT)
        return iter(())


def test_enum_that_two_threads_look_at_first_is_read_by_both() -> None:
    pause = _Pause()

    class Kind(Enum):
        FIRST = (1, 2)
        PAUSE = pause
        LAST = (3, 4)

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(decode, [1, 2], Kind)
        assert pause.begun.wait(_WAIT)
        last = threads.submit(decode, [3, 4], Kind)
        threads.submit(last.exception, _WAIT).add_done_callback(lambda _: pause.followed.set())
        assert [first.result(), last.result()] == [Kind.FIRST, Kind.LAST]


@pytest.mark.parametrize("hint", [Literal["a", "b"], datetime, Decimal, UUID, _Colour])
def test_error_for_a_long_value_is_short(hint: object) -> None:
    with pytest.raises(PayloadDecodeError) as raised:
        decode("x" * 100_000, hint)
    assert len(str(raised.value)) < 1_200


@pytest.mark.parametrize("char", ["x", "\x1b"])
def test_error_at_a_long_key_is_short(char: str) -> None:
    with pytest.raises(PayloadDecodeError) as raised:
        decode({char * 100_000: "x"}, dict[str, int])
    assert len(str(raised.value)) < 300
