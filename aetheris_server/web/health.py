"""The routes for scrapers and probes: /metrics, /healthz and /readyz.

`/healthz` says that the process answers, `/readyz` that it serves, or what it still waits for.
Whoever answers for several processes says in more lines how each of them is.
"""

from collections.abc import Awaitable, Callable

from prometheus_client import REGISTRY, generate_latest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

Readiness = Callable[[], str | None]
"""None when the process can serve, else what it still waits for."""

ShowMetrics = Callable[[], Awaitable[bytes]]
"""All metrics as Prometheus' text."""

_OK = "ok\n"
# The version of the format that every scraper knows; not all know 1.0.0, which adds nothing here.
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def show_own_metrics() -> bytes:
    """The metrics of this process."""
    return generate_latest(REGISTRY)


def health_routes(
    readiness: Readiness,
    show_metrics: ShowMetrics = show_own_metrics,
    describe: Callable[[], str] = lambda: "",
) -> list[Route]:
    """The three routes.

    Args:
        readiness: What /readyz asks.
        show_metrics: What /metrics shows.
        describe: What /readyz says besides: whole lines, may be none.
    """

    async def answer_metrics(_: Request) -> Response:
        return Response(await show_metrics(), media_type=_METRICS_TYPE)

    async def show_readiness(_: Request) -> Response:
        waits_for = readiness()
        if waits_for is None:
            return PlainTextResponse(_OK + describe())
        return PlainTextResponse(f"waiting for {waits_for}\n{describe()}", status_code=503)

    return [
        Route("/metrics", answer_metrics),
        Route("/healthz", _show_health),
        Route("/readyz", show_readiness),
    ]


async def _show_health(_: Request) -> Response:
    return PlainTextResponse(_OK)
