"""The HTTP application: routes that others give, and the answer to a request that fits none."""

from collections.abc import Sequence

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route


def build_app(routes: Sequence[Route]) -> Starlette:
    """An application of n >= 1 routes. A wrong path is told the right ones, a wrong method too."""
    app = Starlette(routes=routes, exception_handlers={405: _refuse_method})
    app.router.redirect_slashes = False
    app.router.default = PlainTextResponse(
        f"there are {_list([route.path for route in routes])}\n", status_code=404
    )
    return app


def _refuse_method(_: Request, error: Exception) -> Response:
    allowed: list[str] = []
    if isinstance(error, HTTPException) and error.headers is not None:
        allowed = sorted(error.headers["Allow"].split(", "))
    return PlainTextResponse(
        f"expected {' or '.join(allowed)}\n", status_code=405, headers={"Allow": ", ".join(allowed)}
    )


def _list(paths: Sequence[str]) -> str:
    *first, last = paths
    return f"{', '.join(first)} and {last}" if first else last
