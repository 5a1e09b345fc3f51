"""Client of the Reporting API: stays within the rate limit, renews its token, retries, and returns complete results."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Self

import httpx

from later_reporting_dagster.client.auth import AccessToken, ClientCredentials
from later_reporting_dagster.client.client_events import ApiVersionChanged, ClientEvent
from later_reporting_dagster.client.cursor_paginator import CursorPaginator, QueryInProgress
from later_reporting_dagster.client.cursor_state import EndDateCallback
from later_reporting_dagster.client.list_route import (
    INSTANCES,
    ListResult,
    ListRoute,
    campaign_performance_route,
    campaigns_route,
)
from later_reporting_dagster.client.page_number_paginator import PageNumberPaginator
from later_reporting_dagster.client.pagination import QueryResult
from later_reporting_dagster.client.rate_limiter import RateLimiter
from later_reporting_dagster.client.responses import (
    RequestContext,
    Response,
    describe_query,
    server_time,
    stated_rate_limit,
)
from later_reporting_dagster.client.retry_policy import RetryPolicy
from later_reporting_dagster.client.transport import Transport
from later_reporting_dagster.client.version_cache import VersionCache
from later_reporting_dagster.client.versioned_transport import VersionedTransport, version_of_response
from later_reporting_dagster.contract import (
    CURSOR,
    INSTANCES_PATH,
    PAGED,
    ApiVersion,
    CampaignPerformanceQuery,
    PostPerformanceQuery,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """What a small response shows about the service.

    Attributes:
        api_version: the API version of the response.
        limit: requests per window of the stated rate limit; None if none is stated.
        window_seconds: window of the stated rate limit; None if none is stated.
        server_time: the server's clock in UTC; None if the response has no `Date`.
    """

    api_version: ApiVersion
    limit: int | None
    window_seconds: float | None
    server_time: datetime | None


class LaterClient:
    """Asynchronous client of the Reporting API, and a context manager, for one event loop.

    Concurrent queries share the connections, the token, the rate limiter and `concurrency`.

    Example:
        Fetch the posts of a day from a local sandbox with synthetic data:

        >>> import asyncio
        >>> from datetime import date
        >>> from later_reporting_dagster.client import ClientCredentials, RateLimiter
        >>> from later_reporting_dagster.sandbox import World, create_app, running_server
        >>> day = date(2024, 7, 1)
        >>> async def fetch_day(base_url):
        ...     credentials = ClientCredentials("sandbox-client", "sandbox-secret")
        ...     limiter = RateLimiter(requests=100)
        ...     async with LaterClient(base_url=base_url, credentials=credentials, limiter=limiter) as client:
        ...         instance_ids = await client.fetch_instances()
        ...         query = PostPerformanceQuery(start_date=day, end_date=day, instance_ids=instance_ids)
        ...         return await client.fetch_posts(query)
        >>> with running_server(create_app(World(first_day=day, last_day=day, instances=2))) as base_url:
        ...     result = asyncio.run(fetch_day(base_url))
        >>> result.query.instance_ids
        ('instance_000', 'instance_001')
        >>> len(result.posts) == result.total_items
        True
        >>> {post.post_date.date() for post in result.posts} == {day}
        True

    Args:
        base_url: scheme and host of the API; https, except for loopback.
        credentials: client credentials, or an access token, which cannot be renewed.
        limiter: the rate limit for all requests, including retries and token requests.
        api_version: the API version of the service; None to detect it and its changes.
        version_cache: stores the detected version, which saves the detection request of later clients.
        verification_rates: for each API version, the share (0 to 1) of queries to verify by fetching all pages a second
            time and comparing the row keys. In the paged version, queries with one page are never verified. Without
            verification, two faults go unnoticed: rows that a service without totals sometimes omits, and rows that
            move between pages while the total stays the same. Even with verification, a metric value that differs
            between the two fetches goes unnoticed, because only row keys are compared. Default: no query is verified.
        concurrency: maximum number of requests in flight.
        timeout_seconds: maximum time from connecting to the end of a response, not counting waits for the rate limit
            or a token.
        retry: when failed requests are retried.
        on_event: called for each `ClientEvent` when it happens.
        transport: replaces the network, for tests.
        clock: returns seconds since the epoch, for tokens and `Retry-After`.
        sleep: waits for a number of seconds between retries.
        random: returns a number from 0 to 1, for the jitter of retries and the choice of queries to verify.

    Raises:
        ValueError: the base URL is invalid or would send the token unencrypted, or `concurrency` is below 1.
    """

    def __init__(
        self,
        *,
        base_url: str,
        credentials: ClientCredentials | AccessToken,
        limiter: RateLimiter,
        api_version: ApiVersion | None = PAGED,
        version_cache: VersionCache | None = None,
        verification_rates: Mapping[ApiVersion, float] = MappingProxyType({}),
        concurrency: int = 8,
        timeout_seconds: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        on_event: Callable[[ClientEvent], None] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self.concurrency = concurrency
        on_event = on_event or _log_version_change
        self._transport = Transport(
            base_url=base_url,
            credentials=credentials,
            limiter=limiter,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            retry=retry,
            on_event=on_event,
            http_transport=transport,
            clock=clock,
            sleep=sleep,
            random=random,
        )
        self._versioned_transport = VersionedTransport(
            self._transport, api_version=api_version, cache=version_cache or VersionCache(), on_event=on_event
        )
        self._page_numbers = PageNumberPaginator(
            self._versioned_transport,
            on_event=on_event,
            should_verify=lambda: random() < verification_rates.get(PAGED, 0.0),
        )
        self._cursors = CursorPaginator(
            self._versioned_transport,
            on_event=on_event,
            should_verify=lambda: random() < verification_rates.get(CURSOR, 0.0),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    async def api_version(self) -> ApiVersion:
        """Return the API version of the service; detect it with one request if it is unknown.

        Raises:
            LaterError: as `fetch_posts`.
        """
        return await self._versioned_transport.api_version()

    async def fetch_instances(self) -> tuple[str, ...]:
        """Fetch the ids of all instances that the credentials can read (docs/api.md, "Instances").

        Returns:
            The ids, in the order of the API.

        Raises:
            LaterError: as `fetch_posts`.
        """
        return tuple((await self._fetch_list(INSTANCES)).items)

    async def fetch_campaigns(self, instance_ids: tuple[str, ...] = ()) -> ListResult:
        """Fetch the campaigns of some instances, without metrics (docs/api.md, "Campaigns").

        Args:
            instance_ids: the instances; empty for all that the credentials can read. The cursor version has no filter:
                it returns the campaigns of all instances.

        Returns:
            `Campaign` items.

        Raises:
            LaterError: as `fetch_posts`.
        """
        return await self._fetch_list(campaigns_route(instance_ids))

    async def fetch_campaign_performance(self, query: CampaignPerformanceQuery) -> ListResult:
        """Fetch the performance of all campaigns of a query (docs/api.md, "Campaigns").

        Returns:
            `CampaignPerformance` items.

        Raises:
            MetricsRejected: the API does not offer all of the metrics.
            LaterError: as `fetch_posts`.
        """
        return await self._fetch_list(campaign_performance_route(query))

    async def fetch_posts(
        self,
        query: PostPerformanceQuery,
        *,
        max_posts: int | None = None,
        end_date_callback: EndDateCallback | None = None,
    ) -> QueryResult:
        """Fetch all posts of a query, and verify that they are complete before returning any.

        Args:
            query: its page, page size, cursor and sorting are ignored.
            max_posts: paged version only. The maximum number of posts that the caller accepts; None for as many as the
                API can return.
            end_date_callback: cursor version only. Called after each page except the last, starting with the first page
                that has a post; returns the last day still to fetch. The day from its last call becomes
                `QueryResult.query.end_date`.

        Raises:
            TooManyPosts: there are more posts than `max_posts` or than the API can return.
            InconsistentPages: the pages were inconsistent, and again after a refetch.
            InstanceForbidden: the credentials cannot read at least one of the instances.
            MetricsRejected: the API does not offer all of the metrics for the query's platforms and content types.
            QueryRejected: the API rejects the query.
            CredentialsRejected: the API rejects the credentials.
            UnexpectedResponse: the response is not one that the API reference lists.
            RetriesExhausted: the request failed temporarily in every attempt.
        """
        progress = QueryInProgress(query)
        return await self._versioned_transport.call_for_version(
            describe_query(query),
            paged=lambda: self._page_numbers.fetch_posts(progress.query, max_posts=max_posts),
            cursor=lambda: self._cursors.fetch_posts(progress, end_date_callback=end_date_callback),
        )

    async def _fetch_list(self, route: ListRoute) -> ListResult:
        return await self._versioned_transport.call_for_version(
            route.description,
            paged=lambda: self._page_numbers.fetch_list(route),
            cursor=lambda: self._cursors.fetch_list(route),
            guess=PAGED,
        )

    async def probe(self) -> Probe:
        """Fetch a page of instances to learn the API version, the rate limit and the clock of the service.

        Raises:
            LaterError: as `fetch_posts`.
        """
        probe = await self._transport.get(INSTANCES_PATH, context=RequestContext("instances"), parse=_parse_probe)
        self._versioned_transport.observe(probe.api_version)
        return probe


def _parse_probe(response: Response) -> Probe:
    limit, window_seconds = stated_rate_limit(response.headers) or (None, None)
    return Probe(
        api_version=version_of_response(response),
        limit=limit,
        window_seconds=window_seconds,
        server_time=server_time(response.headers),
    )


def _log_version_change(event: ClientEvent) -> None:
    """Log a change of the API version if the client has no `on_event`. Other events are logged where they happen."""
    if isinstance(event, ApiVersionChanged):
        logger.warning("%s", event)
