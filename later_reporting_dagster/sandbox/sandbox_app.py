"""The sandbox application: the routes of the API over a synthetic world."""

import asyncio
import atexit
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import date
from functools import cache, partial

from starlette.applications import Starlette
from starlette.responses import Response

from later_reporting_dagster.contract.metrics import CAMPAIGN_METRICS
from later_reporting_dagster.contract.parameters import PAGED, ApiVersion
from later_reporting_dagster.endpoint.app import Caller, RateLimit
from later_reporting_dagster.endpoint.app import create_app as create_server_app
from later_reporting_dagster.endpoint.http_server import running_server
from later_reporting_dagster.endpoint.query_parameters import CampaignsQuery, PostsQuery
from later_reporting_dagster.endpoint.responses import PageRequest, json_response, unsupported_metrics
from later_reporting_dagster.endpoint.tokens import Client, Tokens
from later_reporting_dagster.sandbox.campaigns import CampaignStore
from later_reporting_dagster.sandbox.cursor_metrics import find_unsupported_metrics
from later_reporting_dagster.sandbox.served_posts import ServedPosts, included_content_types
from later_reporting_dagster.sandbox.synthetic_world import World, two_years_before


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """Options of the sandbox that do not depend on its data; the default limits are those of docs/api.md.

    Attributes:
        instance_scope: Instances that the credentials can access; None: all of the world.
        latency_seconds: Delay of each admitted request.
        refused_campaign_metrics: Metrics that the campaign performance route does not offer.
    """

    client_id: str = "sandbox-client"
    client_secret: str = "sandbox-secret"  # noqa: S105 - valid in the sandbox only
    instance_scope: tuple[str, ...] | None = None
    latency_seconds: float = 0.0
    requests_per_window: int = 120
    window_seconds: float = 60.0
    token_lifetime_seconds: int = 43_200
    api_version: ApiVersion = PAGED
    refused_campaign_metrics: tuple[str, ...] = ()


def create_app(
    world: World,
    *,
    options: SandboxOptions | None = None,
    clock: Callable[[], float] = time.time,
    posts: ServedPosts | None = None,
    api_version: Callable[[], ApiVersion] | None = None,
) -> Starlette:
    """Return the sandbox as an ASGI application.

    Args:
        clock: Return seconds since the epoch, for tokens and the rate limit.
        posts: The posts to serve; None: all posts of the world.
        api_version: Return the API version of a request when it arrives; None: that of the options.
    """
    options = options or SandboxOptions()
    scope = world.instance_ids if options.instance_scope is None else options.instance_scope
    client = Client(options.client_id, options.client_secret, scope)
    posts = posts or ServedPosts(world)
    store = _SyntheticStore(
        world=world,
        options=options,
        posts=posts,
        campaigns=CampaignStore(world, posts, refused_metrics=options.refused_campaign_metrics),
    )
    return create_server_app(
        store,
        tokens=Tokens([client], lifetime_seconds=options.token_lifetime_seconds),
        rate_limit=RateLimit(options.requests_per_window, options.window_seconds),
        api_version=lambda _: api_version() if api_version else options.api_version,
        clock=clock,
        delay=partial(asyncio.sleep, options.latency_seconds) if options.latency_seconds else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _SyntheticStore:
    world: World
    options: SandboxOptions
    posts: ServedPosts
    campaigns: CampaignStore

    async def instance_ids(self) -> Sequence[str]:
        return self.world.instance_ids

    async def posts_page(self, query: PostsQuery, page: PageRequest, caller: Caller) -> Response:
        if names := find_unsupported_metrics(query.metrics or (), included_content_types(query)):
            raise unsupported_metrics(names)
        return json_response(self.posts.page(query, page))

    async def campaigns_page(self, instance_ids: tuple[str, ...] | None, page: PageRequest, caller: Caller) -> Response:
        return json_response(self.campaigns.page(instance_ids or (), page))

    async def campaign_performance_page(self, query: CampaignsQuery, page: PageRequest, caller: Caller) -> Response:
        """Return a page; a metric is supported unless it is refused: a campaign may have posts of any content type."""
        supported = {metric.api_name for metric in CAMPAIGN_METRICS} - {*self.options.refused_campaign_metrics}
        if names := [name for name in query.metrics or () if name not in supported]:
            raise unsupported_metrics(names)
        return json_response(self.campaigns.performance_page(query, page))


@cache
def demo_sandbox(last_day: date, api_version: ApiVersion) -> str:
    """Return the URL of the sandbox of the demo mode, which replaces the API and accepts the default credentials.

    There is one per process, last day and API version. Each returns the same posts for the days that it covers.
    """
    # A rate limit would only slow the demo down.
    options = SandboxOptions(requests_per_window=1_000_000, api_version=api_version)
    world = World(first_day=two_years_before(last_day), last_day=last_day, seed=0, instances=4, posts_per_day=8)
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(running_server(create_app(world, options=options)))
