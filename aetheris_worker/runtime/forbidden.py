"""What workflow code may not ask of its event loop: everything that needs the world outside."""

from collections.abc import Callable, Mapping
from typing import Final, NoReturn

from aetheris_worker.runtime.call_site import call_site
from aetheris_worker.runtime.errors import ForbiddenCallError

_NO_IO: Final = "do I/O in an activity"
_NO_THREADS: Final = "run blocking or parallel code in an activity"
_NO_CONTROL: Final = "the loop of a workflow is run by the worker"
FORBIDDEN: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        [
            *("add_reader", "add_writer", "remove_reader", "remove_writer"),
            *("connect_accepted_socket", "connect_read_pipe", "connect_write_pipe"),
            *("create_connection", "create_datagram_endpoint", "create_server"),
            *("create_unix_connection", "create_unix_server", "getaddrinfo", "getnameinfo"),
            *("sendfile", "sock_accept", "sock_connect", "sock_recv", "sock_recv_into"),
            *("sock_recvfrom", "sock_recvfrom_into", "sock_sendall", "sock_sendfile"),
            *("sock_sendto", "start_tls", "subprocess_exec", "subprocess_shell"),
        ],
        _NO_IO,
    ),
    **dict.fromkeys(
        ["call_soon_threadsafe", "run_in_executor", "set_default_executor"], _NO_THREADS
    ),
    **dict.fromkeys(
        [
            *("add_signal_handler", "remove_signal_handler", "close", "stop", "run_forever"),
            *("run_until_complete", "set_debug", "set_exception_handler", "set_task_factory"),
            *("shutdown_asyncgens", "shutdown_default_executor"),
        ],
        _NO_CONTROL,
    ),
}
"""Methods of event loops, and what to do instead."""


def refusal(method: str) -> Callable[..., NoReturn]:
    """A method that raises ForbiddenCallError, naming the place in user code that called it."""
    instead = FORBIDDEN[method]

    def refuse(*_: object, **__: object) -> NoReturn:
        raise ForbiddenCallError(f"loop.{method}", call_site(), instead)

    return refuse
