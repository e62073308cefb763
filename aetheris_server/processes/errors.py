"""How several processes end other than by being told to.

ProcessesError
├── StartFailedError   one cannot serve, and no start of it ever will: what it said
└── CutOffError        some did not end in time, or not by themselves
"""


class ProcessesError(Exception):
    """The processes cannot go on. The message is for the operator.

    Attributes:
        exit_code: That the supervisor ends with.
    """

    def __init__(self, message: str, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StartFailedError(ProcessesError):
    """A process ended by itself before it had ever served."""


class CutOffError(ProcessesError):
    """Processes that were told to end did not, or failed to. `numbers` are theirs."""

    def __init__(self, numbers: list[int]) -> None:
        named = ", ".join(map(str, numbers))
        super().__init__(f"the processes did not all end well when they were told to: {named}")
        self.numbers = numbers
