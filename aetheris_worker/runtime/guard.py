"""Keeps workflow code away from what replay cannot repeat: clocks, chance, the system's entropy.

The functions of time, datetime, random, secrets, uuid and os that give such values are replaced,
once in a process. A replacement looks whether workflow code runs on its thread. If not, it does
what the original does. If so, it raises ForbiddenCallError with the place and with what to use
instead. What workflow code sets off unasked stays free: logging, imports, debuggers, the SDK, and
what the garbage collector ends for others.

Three ways around are closed as far as they can be. Names that a program's own modules have imported
(`from time import time`) are replaced in these modules. Methods of datetime and date are replaced
in the types, so that every reference to a type is guarded, and isinstance, pickle and type hints
know no second class. What functions of `uuid` and `secrets` are made of is guarded as well. What C
code asks of the system by itself is not seen.
"""

import contextvars
import datetime as dt
import functools
import gc
import logging
import os
import random
import secrets
import sys
import threading
import time
import uuid
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from ctypes import py_object, pythonapi
from types import FrameType, ModuleType
from typing import Any, Final, cast

from aetheris_worker.runtime import time_machine
from aetheris_worker.runtime.call_site import DEBUGGERS, call_site, is_of_library, module_of
from aetheris_worker.runtime.errors import ForbiddenCallError

_LOGGER: Final = logging.getLogger("aetheris.worker")

_TIME: Final = "use workflow.time() or workflow.now(), which replay repeats"
_SLEEP: Final = "use `await workflow.sleep(...)` or `await asyncio.sleep(...)`, a durable timer"
_CPU_TIME: Final = "measure in an activity"
_RANDOM: Final = "use workflow.random(), whose numbers replay repeats"
_ENTROPY: Final = (
    "make secrets in an activity; for numbers that replay repeats use workflow.random()"
)
_UUID: Final = "use workflow.uuid4(), which replay repeats"

_CALLS: Final[Mapping[ModuleType, Mapping[str, str]]] = {
    time: {
        **dict.fromkeys(("time", "time_ns", "monotonic", "monotonic_ns"), _TIME),
        **dict.fromkeys(("perf_counter", "perf_counter_ns"), _TIME),
        **dict.fromkeys(("clock_gettime", "clock_gettime_ns"), _TIME),
        **dict.fromkeys(("process_time", "process_time_ns"), _CPU_TIME),
        **dict.fromkeys(("thread_time", "thread_time_ns"), _CPU_TIME),
        "sleep": _SLEEP,
    },
    os: dict.fromkeys(("urandom", "getrandom"), _ENTROPY),
    secrets: dict.fromkeys(
        ("choice", "randbelow", "randbits", "token_bytes", "token_hex", "token_urlsafe"), _ENTROPY
    ),
    uuid: dict.fromkeys(("uuid1", "uuid4", "uuid6", "uuid7"), _UUID),
}

# Functions that take the time now where they are given none, and how many arguments that is.
_TIME_BY_DEFAULT: Final = {"localtime": 1, "gmtime": 1, "ctime": 1, "asctime": 1, "strftime": 2}

# Code below one of these is not the workflow's own doing.
_FREE: Final = frozenset(
    {
        *("logging", "structlog", "loguru", "warnings", "importlib"),
        *DEBUGGERS,
        "coverage",
    }
)
_OWN: Final = frozenset({"aetheris_worker", "aetheris_client", "asyncio"})
# Where the walk up the stack may end.
_LOOP: Final = "aetheris_worker.runtime.loop"


class _ThreadState(threading.local):
    is_guarded = False
    is_collecting = False


_STATE: Final = _ThreadState()
_IS_UNRESTRICTED: Final = contextvars.ContextVar("aetheris_unrestricted", default=False)
_install_lock: Final = threading.Lock()
# What was replaced by what, by the identity of the original; filled once.
_replaced: dict[int, tuple[object, object]] = {}
# What puts the originals back under their names, and the replacements again.
_switches: list[Callable[[bool], None]] = []


def enter() -> bool:
    """Workflow code runs on this thread from now on; returns what to give to `leave`."""
    was, _STATE.is_guarded = _STATE.is_guarded, True
    return was


def leave(was: bool) -> None:
    """It has given control back."""
    _STATE.is_guarded = was


@contextmanager
def unrestricted() -> Generator[None]:
    """Free the block, for the task that runs it."""
    token = _IS_UNRESTRICTED.set(True)
    try:
        yield
    finally:
        _IS_UNRESTRICTED.reset(token)


def install() -> None:
    """Put the replacements in place; nothing where they are."""
    if _replaced:
        return
    with _install_lock:
        if not _replaced:
            _install()


def cover_aliases() -> None:
    """Replace what modules of the program itself, not libraries, have imported by name."""
    install()
    # The type is a promise only: anything may stand there.
    for module in cast(list[object], list(sys.modules.values())):
        if not isinstance(module, ModuleType):
            continue
        # Not as others read attributes: that would load a module that loads itself when used.
        names = cast(dict[str, object], object.__getattribute__(module, "__dict__"))
        file = names.get("__file__")
        if not isinstance(file, str) or is_of_library(file):
            continue
        for name, value in list(names.items()):
            original, replacement = _replaced.get(id(value), (None, None))
            if original is value and original is not None:
                names[name] = replacement


class _Guarded:
    """A function in place of another. No function of Python's own kind: that would become a method
    where a class has it as an attribute, as in `clock = time.monotonic`.
    """

    def __init__(self, name: str, original: Callable[..., Any], instead: str) -> None:
        functools.update_wrapper(self, original)
        self._name = name
        self._original = original
        self._instead = instead

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if _STATE.is_guarded:
            _refuse(self._name, self._instead)
        return self._original(*args, **kwargs)

    def __reduce__(self) -> str:
        return self._name.rpartition(".")[2]

    def __repr__(self) -> str:
        return repr(self._original)


class _GuardedWithoutTime(_Guarded):
    """One that takes the time now where it is given none."""

    def __init__(self, name: str, original: Callable[..., Any], argument_count: int) -> None:
        super().__init__(name, original, _TIME)
        self._argument_count = argument_count

    def __call__(self, *args: Any) -> Any:
        if _STATE.is_guarded and (len(args) < self._argument_count or args[-1] is None):
            _refuse(f"{self._name} without a time", self._instead)
        return self._original(*args)


def _install() -> None:
    replaced: dict[int, tuple[object, object]] = {}

    def replace(module: ModuleType, name: str, make: Callable[[str, Any], object]) -> None:
        original = getattr(module, name, None)
        if original is not None:
            replacement = make(f"{module.__name__}.{name}", original)
            _switches.append(
                _switch(functools.partial(setattr, module, name), original, replacement)
            )
            replaced[id(original)] = (original, replacement)

    for module, calls in _CALLS.items():
        for name, instead in calls.items():
            replace(module, name, functools.partial(_make, instead))
    for name, count in _TIME_BY_DEFAULT.items():
        replace(time, name, functools.partial(_make_without_time, count))
    shared = getattr(random, "_inst", None)
    for name, value in list(vars(random).items()):
        if shared is not None and getattr(value, "__self__", None) is shared:
            replace(random, name, functools.partial(_make, _RANDOM))
    _guard_generators()
    for cls, names in ((dt.datetime, ("now", "utcnow")), (dt.date, ("today",))):
        for name in names:
            _guard_class_method(cls, name)
    for switch in _switches:
        switch(True)
    # Around those of others, which may read the clock.
    gc.callbacks.insert(0, _note_collection_start)
    gc.callbacks.append(_note_collection_end)
    time_machine.make_room(_originals_shown)
    # Last: whoever sees it filled may rely on the rest.
    _replaced.update(replaced)


def _switch(
    put: Callable[[object], None], original: object, replacement: object
) -> Callable[[bool], None]:
    return lambda is_guarded: put(replacement if is_guarded else original)


@contextmanager
def _originals_shown() -> Generator[None]:
    """Give all names back what they stood for, for the block."""
    for switch in _switches:
        switch(False)
    try:
        yield
    finally:
        for switch in _switches:
            switch(True)


def _note_collection_start(phase: str, _: Mapping[str, int]) -> None:
    """What ends in a collection may be anybody's: an activity's file, another run's generator."""
    if phase == "start":
        _STATE.is_collecting = True


def _note_collection_end(phase: str, _: Mapping[str, int]) -> None:
    if phase == "stop":
        _STATE.is_collecting = False


def _make(instead: str, name: str, original: Any) -> _Guarded:
    return _Guarded(name, original, instead)


def _make_without_time(argument_count: int, name: str, original: Any) -> _Guarded:
    return _GuardedWithoutTime(name, original, argument_count)


def _guard_generators() -> None:
    """Generators of random numbers that take their seed from the system."""
    seed = random.Random.seed

    @functools.wraps(seed)
    def guarded_seed(self: random.Random, a: Any = None, version: int = 2) -> None:
        if a is None and _STATE.is_guarded:
            _refuse("random.Random without a seed", _RANDOM)
        seed(self, a, version)

    random.Random.seed = guarded_seed
    for name in ("random", "getrandbits", "randbytes"):
        setattr(random.SystemRandom, name, _guarded_method(name))


def _guarded_method(name: str) -> Callable[..., Any]:
    original = getattr(random.SystemRandom, name)

    @functools.wraps(original)
    def guarded(self: random.SystemRandom, *args: Any, **kwargs: Any) -> Any:
        if _STATE.is_guarded:
            _refuse(f"random.SystemRandom().{name}", _ENTROPY)
        return original(self, *args, **kwargs)

    return guarded


def _guard_class_method(cls: type, name: str) -> None:
    """Replace a class method of a type that does not let itself be changed, in its dictionary."""
    original = vars(cls)[name]

    @functools.wraps(getattr(cls, name))
    def guarded(owner: type, *args: Any, **kwargs: Any) -> Any:
        if _STATE.is_guarded:
            _refuse(f"{cls.__name__}.{name}", "use workflow.now(), which replay repeats")
        return original.__get__(None, owner)(*args, **kwargs)

    # A read-only view of it is all that Python gives; the view refers to nothing else.
    (names,) = gc.get_referents(vars(cls))

    def put(method: object) -> None:
        names[name] = method
        # Else the interpreter would go on with the one that it has looked up before.
        pythonapi.PyType_Modified(py_object(cls))

    switch = _switch(put, original, cast(object, classmethod(guarded)))
    switch(True)
    _switches.append(switch)
    if getattr(getattr(cls, name), "__func__", None) is not guarded:
        _LOGGER.warning("%s.%s in workflow code goes unnoticed on this Python", cls.__name__, name)


def _refuse(name: str, instead: str) -> None:
    """Raise, unless it is not the workflow code that calls."""
    if _IS_UNRESTRICTED.get() or _STATE.is_collecting:
        return
    frame: FrameType | None = sys._getframe(2)  # pyright: ignore[reportPrivateUsage]
    if module_of(frame).partition(".")[0] in _OWN:
        return
    while frame is not None and module_of(frame) != _LOOP:
        if module_of(frame).partition(".")[0] in _FREE:
            return
        frame = frame.f_back
    raise ForbiddenCallError(name, call_site(), instead)
