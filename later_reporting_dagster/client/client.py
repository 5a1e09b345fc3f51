"""Client of the Reporting API: stays within the rate limit, renews its token, retries, and returns complete results."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import Self

from later_reporting_dagster.client.auth import AccessToken, ClientCredentials
from later_reporting_dagster.client.errors import (
    ApiVersionChanged,
    InconsistentPages,
    LaterError,
    QueryRejected,
    RetriesExhausted,
    UnexpectedResponse,
)
from later_reporting_dagster.client.pagination import (
    FetchedList,
    Inconsistency,
    PageReader,
    fetch_cursor_pages,
    fetch_numbered_pages,
)
from later_reporting_dagster.client.rate_limiter import RateLimiter
from later_reporting_dagster.client.retries import Request, Response, RetryPolicy, http_date, stated_rate_limit
from later_reporting_dagster.client.transport import ClientEvent, Transport
from later_reporting_dagster.contract.page import ListResult
from later_reporting_dagster.contract.parameters import CURSOR, INSTANCES_PATH, MAX_PAGE_SIZE, PAGED, ApiVersion
from later_reporting_dagster.contract.query import ListQuery, PerformanceQuery, Query, group_by_url_length
from later_reporting_dagster.contract.route import (
    CAMPAIGNS,
    FIRST_PAGE,
    INSTANCES,
    POSTS_PERFORMANCE,
    PageRequest,
    Route,
    version_of_instances,
)

MAX_FETCHES = 2  # of a list whose pages are inconsistent
# Of the page of posts that shows the API version.
PROBED_DAYS = 30


@dataclass(frozen=True, slots=True)
class Probe:
    """What a small response shows about the service: its version, the rate limit that it states, and its clock."""

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
        >>> from later_reporting_dagster.contract.route import POSTS_PERFORMANCE
        >>> from later_reporting_dagster.server.sandbox import World, create_app, running_server
        >>> day = date(2024, 7, 1)
        >>> async def fetch_day(base_url):
        ...     credentials = ClientCredentials("sandbox-client", "sandbox-secret")
        ...     limiter = RateLimiter(requests=100)
        ...     async with LaterClient(base_url=base_url, credentials=credentials, limiter=limiter) as client:
        ...         instance_ids = await client.fetch_instances()
        ...         query = PerformanceQuery(start_date=day, end_date=day, instance_ids=instance_ids)
        ...         return await client.fetch(POSTS_PERFORMANCE, query)
        >>> with running_server(create_app(World(first_day=day, last_day=day, instances=2))) as base_url:
        ...     result = asyncio.run(fetch_day(base_url))
        >>> sorted({post.instance_id for post in result.items})
        ['instance_000', 'instance_001']

    Args:
        base_url: scheme and host of the API; https, except for loopback.
        api_version: None to detect it by the first request.
        verification_rates: for each API version, the share (0 to 1) of lists that are fetched twice, to compare the
            keys of their rows. It notices rows that a service without totals sometimes omits, and rows that move
            between pages while the total stays the same; not a value that differs. One numbered page is not verified.
        personal_data: whether rows keep names, handles, pictures and links of creators, and URLs of posts; if not, they
            are null, and fields that the API reference does not name are left out.
        concurrency: maximum number of requests in flight.
        max_requests: maximum number of requests in all, with those of tokens and retries; None for any number.
        timeout_seconds: maximum time from connecting to the end of a response, not counting waits for the rate limit
            or a token.
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
        verification_rates: Mapping[ApiVersion, float] = MappingProxyType({}),
        personal_data: bool = True,
        concurrency: int = 8,
        max_requests: int | None = None,
        timeout_seconds: float = 30.0,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008 - frozen
        on_event: Callable[[ClientEvent], None] | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = random.random,
    ) -> None:
        if concurrency < 1:
            raise ValueError(f"concurrency must be at least 1, not {concurrency}")
        self.concurrency = concurrency
        self._transport = Transport(
            base_url=base_url,
            credentials=credentials,
            limiter=limiter,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            retry=retry,
            on_event=on_event or (lambda _: None),
            max_requests=max_requests,
            clock=clock,
            sleep=sleep,
            random=random,
        )
        self._random = random
        self._verification_rates = verification_rates
        self._personal_data = personal_data
        self._version = api_version
        self._listing: asyncio.Task[tuple[str, ...]] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._transport.close()

    async def api_version(self) -> ApiVersion:
        """Return the API version of the service; the first call detects it with one request, unless it is set."""
        if self._version is None:
            _, self._version = await self._detect_version(Request(INSTANCES_PATH, "instances", max_attempts=1))
        return self._version

    async def fetch_instances(self) -> tuple[str, ...]:
        """Fetch the ids of all instances that the credentials can read."""
        try:
            listed = await self._fetch_verified(INSTANCES, ListQuery())
            return tuple(item.instance_id for item in listed.items)
        except (QueryRejected, UnexpectedResponse, RetriesExhausted, InconsistentPages) as error:
            if not error.is_of_token:
                error.args = (f"{error} To do without this list, set LATER_INSTANCE_IDS.",)
            raise

    async def accessible(self, instance_ids: tuple[str, ...]) -> tuple[str, ...]:
        """Return the instances that the API lists. A 403 does not say which is forbidden.

        The first call lists the instances, for all calls. If that fails, the next call after the failure lists again.
        """
        if not instance_ids:
            return ()
        listing = self._listing
        if listing is None or (listing.done() and (listing.cancelled() or listing.exception())):
            listing = self._listing = asyncio.create_task(self.fetch_instances())
        listed = {*await listing}
        return tuple(name for name in instance_ids if name in listed)

    async def fetch_campaigns(self, instance_ids: tuple[str, ...] = ()) -> ListResult:
        """Fetch the `Campaign` items of all instances, or of some; instances that are not accessible have none.

        The cursor version has no filter: it lists the campaigns of all instances (docs/api.md, "Campaigns").
        """
        requested = () if (await self.api_version()).uses_cursors else instance_ids
        groups = group_by_url_length(requested)
        try:
            return await self._fetch_parts(CAMPAIGNS, [*map(ListQuery, groups)])
        except QueryRejected as error:
            accessible = await self.accessible(requested) if error.is_forbidden else ()
            if accessible in ((), requested):
                raise
        return await self.fetch_campaigns(accessible)

    async def fetch(
        self, route: Route, query: PerformanceQuery, *, max_rows: int | None = None, max_attempts: int | None = None
    ) -> ListResult:
        """Fetch all rows of a query, and verify that they are complete before returning any.

        Instances that do not fit one URL are requested in parts.

        Args:
            route: such as `POSTS_PERFORMANCE`.
            max_rows: the maximum number of rows of a part that the caller accepts; None for as many as the API can
                return. The paged version shows on the first page that there are more, the cursor version only after so
                many rows.
            max_attempts: of each request; None for those of the retry policy.

        Raises:
            LaterError: as its subclasses in `errors.py` describe; `TooManyRows` and `QueryRejected` ask for other
                queries.
        """
        queries = [replace(query, instance_ids=group) for group in group_by_url_length(query.instance_ids)]
        return await self._fetch_parts(route, queries, max_rows=max_rows, max_attempts=max_attempts)

    async def fetch_page(
        self, route: Route, query: Query, page: PageRequest = FIRST_PAGE, *, page_size: int = MAX_PAGE_SIZE
    ) -> ListResult:
        """Fetch one page of a list with one request. Nothing verifies that its rows and totals agree."""
        with _naming_query(route, query):
            reader = PageReader(self._transport, route, query, await self.api_version(), page_size=page_size)
            return await reader.read_unverified(page)

    @property
    def requests(self) -> int:
        return self._transport.requests

    @property
    def token_seconds(self) -> float | None:
        """For how long the token is valid from now on; None if it does not state it, or there is none yet."""
        return self._transport.token_seconds

    async def _fetch_parts(
        self, route: Route, queries: Sequence[Query], *, max_rows: int | None = None, max_attempts: int | None = None
    ) -> ListResult:
        """Fetch a list in parts, each of other instances."""
        result = ListResult.merged(
            [
                await self._fetch_verified(route, query, max_rows=max_rows, max_attempts=max_attempts)
                for query in queries
            ]
        )
        if repeated := len(result.items) - len({*map(route.key, result.items)}):
            raise InconsistentPages(f"{route.describe(queries[0])}: {repeated} rows are those of other instances, too.")
        return result

    async def _fetch_verified(
        self, route: Route, query: Query, *, max_rows: int | None = None, max_attempts: int | None = None
    ) -> ListResult:
        """Fetch a list; if its pages are inconsistent, fetch all of them again.

        If rows may be missing, the second fetch is in reverse order, if that can be requested, and may show that none
        is.
        """
        with _naming_query(route, query):
            version = await self.api_version()
            new_reader = partial(
                PageReader,
                self._transport,
                route,
                query,
                version,
                personal_data=self._personal_data,
                max_attempts=max_attempts,
            )
            fetch_pages = fetch_cursor_pages if version.uses_cursors else fetch_numbered_pages
            doubtful: FetchedList | None = None
            problem: str | None = None
            for _ in range(MAX_FETCHES):
                if problem is not None:
                    self._transport.on_event(ClientEvent("refetch", problem))
                from_end = doubtful is not None and route.is_sorted
                try:
                    fetched = await fetch_pages(new_reader(from_end=from_end), max_rows=max_rows)
                    if (problem := fetched.problem) is not None:
                        if doubtful is not None and fetched.proves(doubtful, is_sorted=route.is_sorted):
                            return doubtful.result
                        doubtful = fetched
                        continue
                    # One numbered page is a snapshot: no row can move to another page.
                    can_differ = version.uses_cursors or fetched.result.pages > 1
                    if not can_differ or self._random() >= self._verification_rates.get(version, 0.0):
                        return fetched.result
                    again = await fetch_pages(new_reader(), max_rows=max_rows)
                    differences = {*fetched.keys} ^ {*again.keys}
                    if not differences:
                        return fetched.result
                    problem = f"{len(differences)} rows differ in a verification fetch"
                except Inconsistency as error:
                    problem = str(error)
            raise InconsistentPages(
                f"{route.describe(query)}: inconsistent pages in {MAX_FETCHES} fetches: {problem}. None of them was"
                f" used. {route.advice}"
            )

    async def probe(self) -> Probe:
        """Fetch a page of instances to learn the API version, the rate limit and the clock of the service."""
        # Without parameters: both versions accept that (docs/api.md, "Instances").
        headers, version = await self._detect_version(Request(INSTANCES_PATH, "instances"))
        self._version = self._version or version
        limit, window_seconds = stated_rate_limit(headers) or (None, None)
        return Probe(version, limit, window_seconds, http_date(headers.get("date", "")))

    async def _detect_version(self, request: Request) -> tuple[Mapping[str, str], ApiVersion]:
        """Return the headers of a page of instances, and the API version that it shows, or else a page of posts."""
        headers: Mapping[str, str] = {}
        version: ApiVersion | None = None
        # Whatever is wrong with the list of instances, a page of posts shows the version, too, or raises an error.
        with suppress(QueryRejected, RetriesExhausted, UnexpectedResponse):
            headers, version = await self._transport.request(request, parse=_parse_probe)
        return headers, version or await self._version_of_posts()

    async def _version_of_posts(self) -> ApiVersion:
        """Return the API version that a page of posts shows, where the list of instances does not."""
        today = datetime.fromtimestamp(self._transport.clock(), UTC).date()
        query = PerformanceQuery(start_date=today - timedelta(days=PROBED_DAYS), end_date=today)
        try:
            page = await PageReader(self._transport, POSTS_PERFORMANCE, query, PAGED).read_unverified(FIRST_PAGE)
        except ApiVersionChanged:
            return CURSOR
        except QueryRejected as error:
            if error.status not in (400, 422):  # the parameters of one version are invalid in the other
                raise
            return CURSOR
        if page.stated_total is None:
            raise UnexpectedResponse("The responses do not show the API version: set LATER_API_VERSION.")
        return PAGED


@contextmanager
def _naming_query(route: Route, query: Query) -> Iterator[None]:
    """Tell the errors of the client which query they are about."""
    try:
        yield
    except LaterError as error:
        error.query = route.describe(query)
        raise


def _parse_probe(response: Response) -> tuple[Mapping[str, str], ApiVersion | None]:
    return response.headers, version_of_instances(response.body)
