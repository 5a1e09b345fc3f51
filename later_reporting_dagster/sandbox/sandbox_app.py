"""The sandbox application: the routes of the API over a synthetic world."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from msgspec.structs import replace
from starlette.applications import Starlette

from later_reporting_dagster.contract.metrics import CAMPAIGN_METRICS
from later_reporting_dagster.contract.parameters import (
    CAMPAIGNS_PATH,
    CAMPAIGNS_PERFORMANCE_PATH,
    PAGED,
    ApiVersion,
    ProblemType,
)
from later_reporting_dagster.endpoint.app import create_app as create_server_app
from later_reporting_dagster.endpoint.pages import JsonObject, PageRequest
from later_reporting_dagster.endpoint.problem_responses import ProblemError
from later_reporting_dagster.endpoint.query_parameters import CampaignsQuery, PostsQuery
from later_reporting_dagster.endpoint.rate_limit import RateLimit
from later_reporting_dagster.endpoint.store import Caller, PageResponse, instances_in_scope
from later_reporting_dagster.endpoint.tokens import Client, Tokens
from later_reporting_dagster.sandbox import metric_support
from later_reporting_dagster.sandbox.campaign_pages import CampaignStore
from later_reporting_dagster.sandbox.post_pages import included_content_types
from later_reporting_dagster.sandbox.requested_page import RequestedPage
from later_reporting_dagster.sandbox.served_posts import ServedPosts
from later_reporting_dagster.sandbox.synthetic_world import World

_REFUSALS: Mapping[int, tuple[ProblemType, str]] = {
    403: (ProblemType.FORBIDDEN, "these credentials cannot access campaigns"),
    404: (ProblemType.NOT_FOUND, "Not Found"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """Options of the sandbox that do not depend on its data.

    Attributes:
        client_id: The only valid client id.
        client_secret: Its secret.
        instance_scope: Instances that the credentials can access; None: all of the world.
        latency_seconds: Delay of each admitted request.
        requests_per_window: Requests of an IP address in any window; default: docs/api.md, "Rate limit".
        window_seconds: Length of the sliding window; default: docs/api.md, "Rate limit".
        token_lifetime_seconds: From a token's `iat` to its `exp`; default: docs/api.md, "Authentication".
        api_version: API version of the list routes.
        refused_campaign_metrics: Metrics that the campaign performance route does not offer.
        campaigns_status: Status of the response to all requests for campaigns and their performance: 403 or 404; None:
            serve them.

    Raises:
        ValueError: `campaigns_status` is another status, or a refused metric is unknown.
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
    campaigns_status: int | None = None

    def __post_init__(self) -> None:
        if self.campaigns_status not in (None, *_REFUSALS):
            raise ValueError(f"campaigns_status must be 403 or 404, not {self.campaigns_status}")
        known = {metric.api_name for metric in CAMPAIGN_METRICS}
        if unknown := [name for name in self.refused_campaign_metrics if name not in known]:
            raise ValueError(f"unknown campaign metric: {', '.join(unknown)}")

    @property
    def rate_limit(self) -> RateLimit:
        """The limit of each IP address."""
        return RateLimit(self.requests_per_window, self.window_seconds)


def create_app(
    world: World,
    *,
    options: SandboxOptions | None = None,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    posts: ServedPosts | None = None,
    page_response: Callable[[RequestedPage], JsonObject] = RequestedPage.body,
    api_version: Callable[[], ApiVersion] | None = None,
) -> Starlette:
    """Return the sandbox as an ASGI application.

    Args:
        world: All instances and posts.
        options: Options of the sandbox; None: the documented limits.
        clock: Return seconds since the epoch, for tokens and the rate limit.
        sleep: Wait for the latency.
        posts: The posts to serve; None: all posts of the world.
        page_response: Return the body of a page of posts, of campaigns or of their performance.
        api_version: Return the API version of a request when it arrives; None: that of the options.

    Raises:
        ValueError: `instance_scope` has an instance that the world does not have.
    """
    options = options or SandboxOptions()
    client = Client(options.client_id, options.client_secret, _instance_scope(world, options))
    posts = posts or ServedPosts(world)
    store = _SyntheticStore(
        world=world,
        options=options,
        posts=posts,
        campaigns=CampaignStore(world, posts, refused_metrics=options.refused_campaign_metrics),
        page_response=page_response,
    )
    return create_server_app(
        store,
        tokens=Tokens([client], lifetime_seconds=options.token_lifetime_seconds, are_unique=False),
        rate_limit=options.rate_limit,
        api_version=lambda _: api_version() if api_version else options.api_version,
        clock=clock,
        delay=partial(sleep, options.latency_seconds) if options.latency_seconds else None,
    )


def _instance_scope(world: World, options: SandboxOptions) -> tuple[str, ...]:
    """Return the instances that the credentials can access; raise `ValueError` if the world does not have one."""
    scope = world.instance_ids if options.instance_scope is None else options.instance_scope
    if unknown := set(scope) - set(world.instance_ids):
        raise ValueError(f"instance_scope has instances that this world does not have: {', '.join(sorted(unknown))}")
    return scope


@dataclass(frozen=True, slots=True, kw_only=True)
class _SyntheticStore:
    """The `PostStore` of the sandbox.

    Attributes:
        world: All instances and posts.
        options: Options of the sandbox.
        posts: The posts to serve.
        campaigns: The campaigns to serve.
        page_response: Return the body of a page.
    """

    world: World
    options: SandboxOptions
    posts: ServedPosts
    campaigns: CampaignStore
    page_response: Callable[[RequestedPage], JsonObject]

    async def check_route(self, path: str) -> None:
        """Raise the error of the options, if the campaign routes are refused."""
        if path in (CAMPAIGNS_PATH, CAMPAIGNS_PERFORMANCE_PATH) and self.options.campaigns_status is not None:
            problem_type, detail = _REFUSALS[self.options.campaigns_status]
            raise ProblemError(HTTPStatus(self.options.campaigns_status), problem_type, detail)

    async def instance_ids(self) -> Sequence[str]:
        return self.world.instance_ids

    def unsupported_metrics(self, query: PostsQuery) -> Sequence[str]:
        return metric_support.unsupported_metrics(query.metrics or (), included_content_types(query))

    def unsupported_campaign_metrics(self, query: CampaignsQuery) -> Sequence[str]:
        """Return the refused metrics; all others are supported: a campaign may have posts of any content type."""
        supported = {metric.api_name for metric in CAMPAIGN_METRICS} - {*self.options.refused_campaign_metrics}
        return [name for name in query.metrics or () if name not in supported]

    async def posts_page(self, query: PostsQuery, page: PageRequest, caller: Caller) -> PageResponse:
        query = self._in_scope(query, caller)
        render = partial(self.posts.page, query)
        return self._respond(RequestedPage(page=page, render=render, posts_query=query))

    async def campaigns_page(
        self, instance_ids: tuple[str, ...] | None, page: PageRequest, caller: Caller
    ) -> PageResponse:
        render = partial(self.campaigns.page, instances_in_scope(instance_ids, caller.instance_ids or ()))
        return self._respond(RequestedPage(page=page, render=render))

    async def campaign_performance_page(self, query: CampaignsQuery, page: PageRequest, caller: Caller) -> PageResponse:
        query = replace(query, posts=self._in_scope(query.posts, caller))
        render = partial(self.campaigns.performance_page, query)
        return self._respond(RequestedPage(page=page, render=render))

    def _in_scope(self, query: PostsQuery, caller: Caller) -> PostsQuery:
        """Return a query that names its instances."""
        return replace(query, instance_ids=instances_in_scope(query.instance_ids, caller.instance_ids or ()))

    def _respond(self, requested: RequestedPage) -> PageResponse:
        return PageResponse(self.page_response(requested))
