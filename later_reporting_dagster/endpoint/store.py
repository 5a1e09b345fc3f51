"""The protocol of the data behind a server, which the sandbox's synthetic world and the lake implement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol

from later_reporting_dagster.contract.parameters import ProblemType
from later_reporting_dagster.endpoint.pages import JsonObject, PageRequest
from later_reporting_dagster.endpoint.problem_responses import ProblemError
from later_reporting_dagster.endpoint.query_parameters import CampaignsQuery, PostsQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who sent a request.

    Attributes:
        instance_ids: Instances that it can access; None: all.
        session: Identifies the token, or the address of a client without one: a pagination belongs to one session.
    """

    instance_ids: tuple[str, ...] | None
    session: str


@dataclass(frozen=True, slots=True)
class PageResponse:
    """The body of a page, and headers for it."""

    body: JsonObject
    headers: Mapping[str, str] = field(default_factory=dict)


class PostStore(Protocol):
    """The posts, instances and campaigns that a server serves.

    All methods that return pages raise `ProblemError` 403 if the query names an instance that does not exist or that
    the caller cannot access.
    """

    async def check_route(self, path: str) -> None:
        """Raise the `ProblemError` of a route that the store does not serve, before its query is read."""

    async def instance_ids(self) -> Sequence[str]:
        """Return all instances."""

    def unsupported_metrics(self, query: PostsQuery) -> Sequence[str]:
        """Return the requested metrics that are unknown or not available for the filters of a query."""

    def unsupported_campaign_metrics(self, query: CampaignsQuery) -> Sequence[str]:
        """Return the requested metrics that are unknown or not available for campaigns."""

    async def posts_page(self, query: PostsQuery, page: PageRequest, caller: Caller) -> PageResponse:
        """Return a page of posts."""

    async def campaigns_page(
        self, instance_ids: tuple[str, ...] | None, page: PageRequest, caller: Caller
    ) -> PageResponse:
        """Return a page of the campaigns of some instances; None: all that the caller can access."""

    async def campaign_performance_page(self, query: CampaignsQuery, page: PageRequest, caller: Caller) -> PageResponse:
        """Return a page of the performance of campaigns."""


def instances_in_scope(requested: tuple[str, ...] | None, accessible: Sequence[str]) -> tuple[str, ...]:
    """Return the requested instances, or all that are accessible if `requested` is None.

    Raises:
        ProblemError: 403 `ANL_00403`, if a requested instance is not accessible.
    """
    if forbidden := set(requested or ()) - set(accessible):
        detail = f"these credentials cannot access {', '.join(sorted(forbidden))}"
        raise ProblemError(HTTPStatus.FORBIDDEN, ProblemType.FORBIDDEN, detail)
    return tuple(accessible) if requested is None else requested
