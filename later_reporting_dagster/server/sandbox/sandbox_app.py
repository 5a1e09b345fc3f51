"""The sandbox application: the routes of the API over a synthetic world."""

import atexit
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

from starlette.applications import Starlette
from starlette.responses import Response

from later_reporting_dagster.contract.parameters import PAGED, ApiVersion
from later_reporting_dagster.server.app import Caller, Page, api_app
from later_reporting_dagster.server.http_server import running_server
from later_reporting_dagster.server.routes import (
    ACCOUNT,
    CAMPAIGN_PERFORMANCE,
    CAMPAIGNS,
    INSTANCES,
    OVER_TIME,
    POSTS,
    ApiRoute,
    JsonObject,
    PageQuery,
    instances_page,
    json_response,
)
from later_reporting_dagster.server.sandbox.campaigns import campaigns_page
from later_reporting_dagster.server.sandbox.served_posts import posts_page
from later_reporting_dagster.server.sandbox.synthetic_world import World, two_years_before
from later_reporting_dagster.server.sandbox.totals import account_totals, buckets_page, performance_page
from later_reporting_dagster.server.tokens import Client, Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """Options of the sandbox that do not depend on its data; the default limits are those of docs/api.md."""

    client_id: str = "sandbox-client"
    client_secret: str = "sandbox-secret"  # noqa: S105 - valid in the sandbox only
    instance_scope: tuple[str, ...] | None = None  # that the credentials can access; None: all of the world
    requests_per_window: int = 120
    window_seconds: float = 60.0
    api_version: ApiVersion = PAGED


def create_app(
    world: World, *, options: SandboxOptions | None = None, clock: Callable[[], float] = time.time
) -> Starlette:
    """Return the sandbox as an ASGI application. The clock returns seconds since the epoch."""
    options = options or SandboxOptions()
    scope = world.instance_ids if options.instance_scope is None else options.instance_scope
    return api_app(
        {route: _page(world, body_of) for route, body_of in _BODIES.items()},
        tokens=Tokens([Client(options.client_id, options.client_secret, scope)]),
        rate_limit=(options.requests_per_window, options.window_seconds),
        api_version=options.api_version,
        clock=clock,
    )


# The routes, and the functions that return the bodies of their responses. The world's client names its instances.
_BODIES: Mapping[ApiRoute, Callable[[World, Any, PageQuery], JsonObject]] = {
    POSTS: posts_page,
    INSTANCES: lambda _, query, page: instances_page(query.instance_ids, page),
    CAMPAIGNS: campaigns_page,
    CAMPAIGN_PERFORMANCE: performance_page,
    ACCOUNT: account_totals,
    OVER_TIME: buckets_page,
}


def _page(world: World, body_of: Callable[[World, Any, PageQuery], JsonObject]) -> Page:
    async def respond(query: Any, page: PageQuery, _caller: Caller) -> Response:
        return json_response(body_of(world, query, page))

    return respond


@cache
def demo_sandbox(last_day: date, api_version: ApiVersion) -> str:
    """Return the URL of the sandbox of the demo mode, which replaces the API and accepts the default credentials.

    There is one per process, last day and API version. Each returns the same posts for the days that it covers.
    """
    # A rate limit would only slow the demo down.
    options = SandboxOptions(requests_per_window=1_000_000, api_version=api_version)
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running_server(create_app(demo_world(last_day), options=options)))


def demo_world(last_day: date) -> World:
    return World(
        first_day=two_years_before(last_day),
        last_day=last_day,
        seed=0,
        instances=4,
        posts_per_day=5,
        has_campaigns_of_known_cost=True,
    )
