"""The routes for scrapers and probes: /metrics, /healthz and /readyz.

`/healthz` says that the process answers, `/readyz` that it serves, or what it still waits for.
"""

from collections.abc import Callable

from prometheus_client import REGISTRY, generate_latest
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

Readiness = Callable[[], str | None]
"""None when the process can serve, else what it still waits for."""

_OK = "ok\n"
# The version of the format that every scraper knows; not all know 1.0.0, which adds nothing here.
_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def health_routes(readiness: Readiness) -> list[Route]:
    """The three routes."""

    async def show_readiness(_: Request) -> Response:
        waits_for = readiness()
        if waits_for is None:
            return PlainTextResponse(_OK)
        return PlainTextResponse(f"waiting for {waits_for}\n", status_code=503)

    return [
        Route("/metrics", _show_metrics),
        Route("/healthz", _show_health),
        Route("/readyz", show_readiness),
    ]


async def _show_metrics(_: Request) -> Response:
    return Response(generate_latest(REGISTRY), media_type=_METRICS_TYPE)


async def _show_health(_: Request) -> Response:
    return PlainTextResponse(_OK)
