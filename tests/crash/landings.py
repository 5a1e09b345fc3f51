"""A sandbox whose posts are restated, and a process that lands them by the library."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from later_reporting_dagster.client import ClientCredentials, LaterClient, RateLimiter, RetryPolicy
from later_reporting_dagster.contract import DateBasis
from later_reporting_dagster.ingest.ingest import ingest
from later_reporting_dagster.ingest.partition_writer import Failed, Outcome
from later_reporting_dagster.ingest.raw_tables import Source
from later_reporting_dagster.lake import Lake, Partition
from later_reporting_dagster.sandbox import World, create_app, running_sandbox
from tests.conftest import INSTANCE_IDS, UNHURRIED, Service, Truth

PUBLISHED = Source("posts_published", DateBasis.POST_DATE)
DAILY = Source("post_metrics_daily", DateBasis.PERFORMANCE_DATE)
SOURCES = (PUBLISHED, DAILY)
DAYS = [date(2024, 3, number) for number in range(1, 4)]
BOX = [Partition(day, instance_id) for day in DAYS for instance_id in INSTANCE_IDS]
VERSIONS = 3

Rows = list[dict[str, Any]]
# What each partition of each source holds, as JSON has it.
Answers = Mapping[tuple[str, Partition], Rows]


class RestatedService:
    """A sandbox on a real port whose posts are restated: the same posts, with other metrics in each version."""

    def __init__(self, service: Service) -> None:
        self.base_url = service.base_url
        self._service = service
        self.answers: list[Answers] = []
        for version in range(VERSIONS):
            self.restate(version)
            self.answers.append(self._read())
        self.restate(0)

    def restate(self, version: int) -> None:
        """From now on the service answers as of this version; there are `VERSIONS`, one after the other."""

        def restated(_request: Request, body: Any) -> Any:
            for post in body.get("data", []):
                if post["impressions"] is not None:
                    post["impressions"] += version % VERSIONS
            return body

        self._service.edited = restated

    def when_asked_for(self, source: Source, act: Callable[[], object]) -> None:
        """At the first request for posts of this source, before it is answered, `act` is called once."""

        def instead(request: Request) -> None:
            if f"dateBasis={source.date_basis}" in request.url.query:
                self._service.instead = lambda request: None
                act()

        self._service.instead = instead

    def stall(self, day: date | None) -> None:
        """From now on a request for posts of this day gets no response, and its connection stays open."""
        self._service.instead = lambda request: UNANSWERED if day and str(day) in request.url.query else None

    def _read(self) -> Answers:
        """Asks for everything, by code that the project does not share."""
        with httpx.Client(base_url=self.base_url) as client:
            truth = Truth(client)
            return {
                (source.asset, each): truth.partition(source.date_basis.value, each.day, each.instance_id or "")
                for source in SOURCES
                for each in BOX
            }


class _Unanswered(Response):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass


UNANSWERED = _Unanswered()


@contextmanager
def restated_service() -> Iterator[RestatedService]:
    """Serves while the block runs."""
    world = World(
        first_day=date(2024, 2, 10),
        last_day=date(2024, 3, 5),
        seed=25,
        instances=1,
        posts_per_day=12,
        further_instances=INSTANCE_IDS[1:],
    )
    service = Service(app=create_app(world, options=UNHURRIED))
    with running_sandbox(service) as service.base_url:
        yield RestatedService(service)


@dataclass(slots=True)
class Landing:
    """What came of an ingest: the partitions that landed, those of them whose files changed, and what failed."""

    good: list[Partition] = field(default_factory=list)
    changed: list[Partition] = field(default_factory=list)
    failed: list[Failed] = field(default_factory=list)

    def note(self, outcome: Outcome) -> None:
        """Takes one outcome."""
        if isinstance(outcome, Failed):
            self.failed.append(outcome)
            return
        self.good.append(outcome.partition)
        if outcome.written.changed:
            self.changed.append(outcome.partition)


def landed(root: Path, *sources: Source, base_url: str) -> Landing:
    """Lands the box of each source by the library, one after the other."""
    landing = Landing()

    async def run() -> None:
        async with LaterClient(
            base_url=base_url,
            credentials=ClientCredentials(client_id=UNHURRIED.client_id, client_secret=UNHURRIED.client_secret),
            limiter=RateLimiter(requests=1_000_000),
            retry=RetryPolicy(attempts=2),
        ) as client:
            for source in sources:
                await ingest(BOX, source=source, client=client, lake=Lake(str(root)), deliver=landing.note)

    asyncio.run(run())
    return landing


def land(root: str, *, base_url: str) -> None:
    """Lands the box of both sources by the library; fails when any of it does."""
    assert landed(Path(root), *SOURCES, base_url=base_url).failed == []
