"""The contract over HTTP: one client that paces itself, renews its token, tries again, and hands out whole answers."""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType, TracebackType
from typing import Self

import httpx

from later_reporting_dagster.client.answers import Answer, Question, describe, rate_limit_in, server_time_in
from later_reporting_dagster.client.auth import AccessToken, ClientCredentials
from later_reporting_dagster.client.cursors import Asked, CursorPages
from later_reporting_dagster.client.events import ClientEvent, RevisionChanged
from later_reporting_dagster.client.exchange import Exchange, Tally
from later_reporting_dagster.client.limiter import RateLimiter
from later_reporting_dagster.client.lists import Lists, first_instances_in
from later_reporting_dagster.client.memory import RevisionMemory
from later_reporting_dagster.client.numbered import NumberedPages
from later_reporting_dagster.client.retry import RetryPolicy
from later_reporting_dagster.client.trail import Reach
from later_reporting_dagster.client.walk import Walk
from later_reporting_dagster.contract import CURSOR, INSTANCES_PATH, PAGED, PostPerformanceQuery, Revision

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probe:
    """What one small answer tells of the service: its revision, its rate limit, and its clock in UTC.

    None where it says nothing.
    """

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
        limiter: turns for every single request, retries and token requests included.
        revision: the revision of the API that the service speaks; None to ask it, and to notice when that changes.
        memory: what is known of it, so that it is not asked each time.
        second_looks: by revision the share, 0 to 1, of finished walks that are walked once more to see whether the same
            rows come; by number, of those of several pages. It is the only thing that tells rows which a service
            without totals leaves out now and then, or which slip to another page while as many arrive as vanish. Each
            doubles a walk's requests. A revision that it does not name has none.
        concurrency: requests in flight at once.
        timeout_seconds: for connecting, for each silence of the service, and for a whole body.
        retry: how often and how long.
        on_event: told of pages, waits and retries as they happen.
        transport: in place of the network.
        clock: seconds since the epoch, for tokens and `Retry-After`.
        sleep: waits for seconds between retries.
        random: 0 to 1, to spread retries.

    Raises:
        ValueError: the base URL cannot be one, or would send the token in the clear; or no request may be in flight.
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
        self._lists = Lists(
            self._exchange,
            revision=revision,
            memory=memory or RevisionMemory(),
            tell=tell,
        )
        self._numbered = NumberedPages(
            self._lists, tell=tell, looks_twice=lambda: random() < second_looks.get(PAGED, 0.0)
        )
        self._cursors = CursorPages(
            self._lists, tell=tell, looks_twice=lambda: random() < second_looks.get(CURSOR, 0.0)
        )

    async def __aenter__(self) -> Self:
        await self._exchange.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._exchange.__aexit__(kind, error, traceback)

    async def revision(self) -> Revision:
        """The revision that the service speaks, asked for with one request where that is not known yet.

        Raises:
            LaterError: as `walk`.
        """
        return await self._lists.revision()

    async def instances(self) -> tuple[str, ...]:
        """The ids of all instances that the credentials reach, in the order of the service [D].

        Raises:
            LaterError: as `walk`.
        """
        first = await self._lists.all_of_first_instances()
        if first is not None:
            return first
        return await self._lists.in_revision(
            "instances", paged=self._numbered.instances, by_cursor=self._cursors.instances
        )

    async def walk(
        self, query: PostPerformanceQuery, *, most_posts: int | None = None, reach: Reach | None = None
    ) -> Walk:
        """The whole answer to a query, verified before anyone sees a row of it.

        Args:
            query: what to ask. Its page, page size, cursor and sorting do not matter: a walk has its own.
            most_posts: how many posts the caller wants at once; all that can be reached when None. It is held against
                totals, where there are any.
            reach: until which day the answer is wanted, asked as the walk goes on, where there are no totals. What is
                cut off stays unanswered, and the query of the walk is without it.

        Raises:
            TooManyPosts: it holds more than that, or than the service counts to; only its first page was fetched.
            WalkInconsistent: the pages did not add up, and did not when walked again.
            InstanceForbidden: the credentials do not reach one of its instances.
            MetricsRefused: not all of its metrics can be asked for with its filters.
            QueryRefused: the service does not accept it.
            CredentialsRejected: nothing will be answered.
            ContractBroken: the answer is none of the document's.
            Retriable: it failed for longer than the retry policy covers.
        """
        asked = Asked(query)
        return await self._lists.in_revision(
            describe(query),
            paged=lambda: self._numbered.walk(asked.query, tally=asked.tally, most_posts=most_posts),
            by_cursor=lambda: self._cursors.walk(asked, reach=reach),
        )

    async def probe(self) -> Probe:
        """Asks for some instances, to see whether the service answers, its revision, its rate limit, and its clock.

        Raises:
            LaterError: as `walk`.
        """

        def read(answer: Answer) -> Probe:
            limit, window_seconds = rate_limit_in(answer.headers) or (None, None)
            return Probe(
                revision=first_instances_in(answer).revision,
                limit=limit,
                window_seconds=window_seconds,
                server_time=server_time_in(answer.headers),
            )

        probe = await self._exchange.get(INSTANCES_PATH, question=Question("instances"), read=read, tally=Tally())
        self._lists.note(probe.revision)
        return probe


def _warn_of_change(event: ClientEvent) -> None:
    """What a client says that nobody listens to; waits and retries are in the log anyway."""
    if isinstance(event, RevisionChanged):
        logger.warning("%s", event)
