"""What the process answers over HTTP: a Starlette application on uvicorn, in its event loop.

`serve_http` owns the port and the connections, `build_app` what holds for every path. Whoever has
something to show gives its routes, as `health_routes` does for scrapers and probes.
"""

from aetheris_server.web.app import build_app
from aetheris_server.web.health import Readiness, health_routes
from aetheris_server.web.server import HttpEndpoint, serve_http

__all__ = ["HttpEndpoint", "Readiness", "build_app", "health_routes", "serve_http"]
