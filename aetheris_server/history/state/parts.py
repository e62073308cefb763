"""Values by their type: what machines keep of a run that the run itself has no field for."""

from typing import TypeVar, cast

T = TypeVar("T")


class Parts(dict[type, object]):
    """At most one value of each type. A machine that is not used has none, and costs nothing."""

    __slots__ = ()

    def find(self, type_: type[T]) -> T | None:
        """The value; None if there is none."""
        return cast("T | None", self.get(type_))

    def make(self, type_: type[T]) -> T:
        """The value; a new one, made without arguments, if there was none."""
        value = self.get(type_)
        if value is None:
            value = self[type_] = type_()
        return cast("T", value)

    def drop(self, type_: type) -> None:
        """Forget the value, if there is one."""
        self.pop(type_, None)
