"""The application of `later-reporting serve`: the routes of the API over a lake."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import unquote_plus

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.parameters import CURSOR, METRICS_MEMBER, PAGED, ApiVersion
from later_reporting_dagster.endpoint.app import create_app
from later_reporting_dagster.endpoint.rate_limit import RateLimit
from later_reporting_dagster.endpoint.tokens import Client, Tokens
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.serve.middleware import AccessLogMiddleware, LoopbackHostsMiddleware
from later_reporting_dagster.serve.openapi_page import HEALTH_PATH, openapi_routes
from later_reporting_dagster.serve.store import LakeStore

# Clients that adapt to the stated limit should not wait.
_NO_LIMIT = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Options of a server of a lake.

    Attributes:
        clients: The clients; empty: anyone on this machine, without authentication.
        api_version: The only API version; None: that which the parameters of a request belong to.
        requests_per_window: Requests of an IP address in any window; None: no limit.
        window_seconds: Length of the window.
        token_lifetime_seconds: Lifetime of a token.
        strict: Whether a query is refused if a file of its days and instances is missing.
        metrics: The metrics that the posts in the lake have.
        memory_gb: Memory limit of DuckDB, in GB.
        snapshot_gb: Size of all temporary files, in GB.
        snapshot_directory: Directory of temporary files; None: that of the system.
    """

    clients: tuple[Client, ...] = ()
    api_version: ApiVersion | None = None
    requests_per_window: int | None = None
    window_seconds: float = 60.0
    token_lifetime_seconds: int = 43_200
    strict: bool = False
    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    memory_gb: float = 1.0
    snapshot_gb: float = 8.0
    snapshot_directory: str | None = None


def lake_app(lake: Lake, options: ServeOptions) -> ASGIApp:
    """Return the routes of the API over a lake as an ASGI application, which never writes to the lake.

    Args:
        lake: The lake. It is not read before the first request.
        options: Options.
    """
    store = LakeStore(
        lake,
        metrics=options.metrics,
        is_strict=options.strict,
        memory_gb=options.memory_gb,
        snapshot_bytes=options.snapshot_gb * 1e9,
        snapshot_directory=options.snapshot_directory,
        now=lambda: datetime.now(UTC),
    )
    tokens = Tokens(options.clients, lifetime_seconds=options.token_lifetime_seconds, are_unique=True)
    app: ASGIApp = create_app(
        store,
        tokens=tokens if options.clients else None,
        rate_limit=RateLimit(
            requests=options.requests_per_window or _NO_LIMIT,
            window_seconds=options.window_seconds,
            is_enforced=options.requests_per_window is not None,
        ),
        api_version=lambda query_string: options.api_version or version_of_parameters(query_string),
        clock=time.time,
        lifespan=lambda _: store.running(),
        more_routes=[Route(HEALTH_PATH, _health), *openapi_routes()],
    )
    if not options.clients:
        app = LoopbackHostsMiddleware(app)
    return AccessLogMiddleware(app)


def version_of_parameters(query_string: str) -> ApiVersion:
    """Return the API version that the parameters of a request belong to; without any, the paged version."""
    # Not `parse_qsl`, which decodes the values too.
    sent = {part.partition("=")[0] for part in query_string.split("&")}
    names = {name if name.isalnum() else unquote_plus(name).removesuffix("[]") for name in sent}
    only_with_cursors = {CURSOR.page_size_parameter, CURSOR.page_parameter, METRICS_MEMBER}
    return PAGED if names.isdisjoint(only_with_cursors) else CURSOR


async def _health(request: Request) -> Response:  # noqa: ARG001
    return Response(msgspec.json.encode({"status": "ok"}), media_type="application/json")
