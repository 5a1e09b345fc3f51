"""A client of the Reporting API: paces itself, renews its token, retries, and returns whole, verified answers."""

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
from later_reporting_dagster.client.client_events import ClientEvent, RevisionChanged
from later_reporting_dagster.client.cursor_paginator import Asked, CursorPages
from later_reporting_dagster.client.cursor_state import Reach
from later_reporting_dagster.client.page_number_paginator import NumberedPages
from later_reporting_dagster.client.pagination import Walk
from later_reporting_dagster.client.rate_limiter import RateLimiter
from later_reporting_dagster.client.responses import Answer, Question, describe, rate_limit_in, server_time_in
from later_reporting_dagster.client.retry_policy import RetryPolicy
from later_reporting_dagster.client.transport import Exchange
from later_reporting_dagster.client.version_cache import RevisionMemory
from later_reporting_dagster.client.version_detection import Lists, revision_in
from later_reporting_dagster.contract import CURSOR, INSTANCES_PATH, PAGED, PostPerformanceQuery, Revision

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """What one small response tells of the service; None where it says nothing. The time is in UTC."""

    revision: Revision
    limit: int | None
    window_seconds: float | None
    server_time: datetime | None


class LaterClient:
    """Speaks to the Reporting API; an asynchronous context manager, for one event loop.

    Several walks may run at once: they share the connections, the token, the limiter and `concurrency`.

    Args:
        base_url: scheme and host of the service; https, unless it is loopback.
        credentials: client credentials, or a ready token.
        limiter: paces every request, retries and token requests included.
        revision: the API version that the service speaks; None to detect it, and to notice when it changes.
        memory: caches the detected version, so that it is not asked each time.
        second_looks: by version the share, 0 to 1, of finished walks that are fetched once more to compare their rows;
            with totals, of those of several pages. Only this detects rows that a service without totals leaves out now
            and then, or that slip to another page while as many arrive as vanish. Each doubles a walk's requests.
            Default: none.
        concurrency: requests in flight at once.
        timeout_seconds: from connecting to the end of a response. Waiting for a turn or a token does not count.
        retry: how often and how long.
        on_event: called for pages, waits and retries as they happen.
        transport: in place of the network.
        clock: seconds since the epoch, for tokens and `Retry-After`.
        sleep: waits for seconds between retries.
        random: 0 to 1, to spread retries.

    Raises:
        ValueError: the base URL is none, or would send the token in the clear; or `concurrency` is below 1.
    """

    def __init__(
        self,
        *,
        base_url: str,
        credentials: ClientCredentials | AccessToken,
        limiter: RateLimiter,
        revision: Revision | None = PAGED,
        memory: RevisionMemory | None = None,
        second_looks: Mapping[Revision, float] = MappingProxyType({}),
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
            raise ValueError(f"concurrency is at least 1, not {concurrency}")
        self.concurrency = concurrency
        tell = on_event or _warn_of_change
        self._exchange = Exchange(
            base_url=base_url,
            credentials=credentials,
            limiter=limiter,
            concurrency=concurrency,
            timeout_seconds=timeout_seconds,
            retry=retry,
            tell=tell,
            transport=transport,
            clock=clock,
            sleep=sleep,
            random=random,
        )
        self._lists = Lists(self._exchange, revision=revision, memory=memory or RevisionMemory(), tell=tell)
        self._numbered = NumberedPages(
            self._lists, tell=tell, looks_twice=lambda: random() < second_looks.get(PAGED, 0.0)
        )
        self._cursors = CursorPages(
            self._lists, tell=tell, looks_twice=lambda: random() < second_looks.get(CURSOR, 0.0)
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exchange.close()

    async def revision(self) -> Revision:
        """Return the API version that the service speaks, asked for with one request where it is not known yet.

        Raises:
            LaterError: as `walk`.
        """
        return await self._lists.revision()

    async def instances(self) -> tuple[str, ...]:
        """List the ids of all instances that the credentials reach, in the order of the service [D].

        Raises:
            LaterError: as `walk`.
        """
        return await self._lists.in_revision(
            "instances", paged=self._numbered.instances, by_cursor=self._cursors.instances, guess=PAGED
        )

    async def walk(
        self, query: PostPerformanceQuery, *, most_posts: int | None = None, reach: Reach | None = None
    ) -> Walk:
        """Fetch the whole answer to a query, verified before a row of it is returned.

        Args:
            query: its page, page size, cursor and sorting are ignored: a walk has its own.
            most_posts: how many posts the caller wants at once, checked against totals where there are any; None: all
                that can be reached.
            reach: where there are no totals, called after each page for the last day still wanted. The query of the
                returned walk ends on that day.

        Raises:
            TooManyPosts: it holds more than that, or than the service counts to; only its first page was fetched.
            WalkInconsistent: the pages did not add up, and did not when fetched again.
            InstanceForbidden: the credentials do not reach one of its instances.
            MetricsRefused: not all of its metrics can be asked for with its filters.
            QueryRefused: the service does not accept it.
            CredentialsRejected: nothing will be answered.
            ContractBroken: the response is none that the API reference lists.
            Retriable: it failed for longer than the retry policy covers.
        """
        asked = Asked(query)
        return await self._lists.in_revision(
            describe(query),
            paged=lambda: self._numbered.walk(asked.query, most_posts=most_posts),
            by_cursor=lambda: self._cursors.walk(asked, reach=reach),
        )

    async def probe(self) -> Probe:
        """Fetch some instances, to see whether the service answers, its version, its rate limit, and its clock.

        Raises:
            LaterError: as `walk`.
        """

        def read(answer: Answer) -> Probe:
            limit, window_seconds = rate_limit_in(answer.headers) or (None, None)
            return Probe(
                revision=revision_in(answer),
                limit=limit,
                window_seconds=window_seconds,
                server_time=server_time_in(answer.headers),
            )

        probe = await self._exchange.get(INSTANCES_PATH, question=Question("instances"), read=read)
        self._lists.note(probe.revision)
        return probe


def _warn_of_change(event: ClientEvent) -> None:
    """Log a change of the API version when nobody listens; waits and retries are in the log anyway."""
    if isinstance(event, RevisionChanged):
        logger.warning("%s", event)
