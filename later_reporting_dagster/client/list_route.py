"""Lists that are fetched as a whole, in both API versions: instances, campaigns and the performance of campaigns."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from later_reporting_dagster.client.responses import RequestContext, describe_instances
from later_reporting_dagster.contract import (
    CAMPAIGNS_PATH,
    CAMPAIGNS_PERFORMANCE_PATH,
    INSTANCES_PATH,
    MAX_PAGE_SIZE,
    ApiVersion,
    BadRow,
    CampaignPerformanceQuery,
    ListPage,
    campaign_from_json,
    campaign_performance_from_json,
    instances_page_from_body,
    list_page_from_body,
)

FEWER_INSTANCES_ADVICE = "List the instances to fetch (LATER_INSTANCE_IDS)."


@dataclass(frozen=True, slots=True, kw_only=True)
class ListRoute:
    """A list, and how its pages are requested and parsed.

    Attributes:
        path: the route.
        description: what is fetched, for messages.
        parse_page: parses the body of a page.
        parameters: returns the pairs of the query string, without those of the page.
        key: returns the identity of a row.
        instance_ids: the instances that the query names.
        metric_names: the API names of the metrics that the query requests; empty if the route has no metrics.
    """

    path: str
    description: str
    parse_page: Callable[[bytes, ApiVersion], ListPage]
    parameters: Callable[[ApiVersion], list[tuple[str, str]]] = lambda _: []
    key: Callable[[Any], Hashable] = lambda row: row
    instance_ids: tuple[str, ...] = ()
    metric_names: tuple[str, ...] = ()

    @property
    def has_progress(self) -> bool:
        """Whether a run fetches many of these lists, so that their pages are its progress, and some are verified."""
        return bool(self.metric_names)

    def context(self, page: object = "") -> RequestContext:
        """Return the context of a request for a page."""
        return RequestContext(f"{self.description}, {page}" if page else self.description, self.instance_ids)

    def page_parameters(self, api_version: ApiVersion, page: int | str | None) -> list[tuple[str, str]]:
        """Return all pairs of the query string for a page.

        Args:
            api_version: the API version.
            page: the number or the cursor of the page; None for the first page of the cursor version.
        """
        pairs = [*self.parameters(api_version), (api_version.page_size_parameter, str(MAX_PAGE_SIZE))]
        return pairs if page is None else [*pairs, (api_version.page_parameter, str(page))]

    def row_keys(self, pages: Sequence[ListPage]) -> list[Hashable]:
        """Return the identity of each row: the key of an item, the raw JSON of a bad row."""
        keys: list[Hashable] = [self.key(item) for page in pages for item in page.items]
        return keys + [row.raw for page in pages for row in page.bad_rows]


@dataclass(frozen=True, slots=True)
class ListResult:
    """The complete and verified rows of a list, in the order of the API.

    Attributes:
        items: the valid rows.
        bad_rows: the malformed rows.
    """

    items: Sequence[Any]
    bad_rows: Sequence[BadRow] = ()

    @classmethod
    def of_pages(cls, pages: Sequence[ListPage]) -> "ListResult":
        """Return the rows of all pages."""
        return cls([item for page in pages for item in page.items], [row for page in pages for row in page.bad_rows])


INSTANCES = ListRoute(path=INSTANCES_PATH, description="instances", parse_page=instances_page_from_body)


def campaigns_route(instance_ids: tuple[str, ...]) -> ListRoute:
    """Return the list of the campaigns of some instances; of all if there are none.

    The cursor version has no filter: it lists the campaigns of all instances (docs/api.md, "Campaigns").
    """

    def parameters(api_version: ApiVersion) -> list[tuple[str, str]]:
        return [] if api_version.uses_cursors else [("instanceIds", instance_id) for instance_id in instance_ids]

    return ListRoute(
        path=CAMPAIGNS_PATH,
        description=f"campaigns of instances {describe_instances(instance_ids)}",
        parse_page=partial(list_page_from_body, parse_row=campaign_from_json, rows="campaigns"),
        parameters=parameters,
        key=lambda campaign: campaign.key,
        instance_ids=instance_ids,
    )


def campaign_performance_route(query: CampaignPerformanceQuery) -> ListRoute:
    """Return the list of the campaigns of a query with their performance."""

    def parse_page(body: bytes, api_version: ApiVersion) -> ListPage:
        parse_row = partial(campaign_performance_from_json, metrics=query.metrics, nested=api_version.nests_metrics)
        return list_page_from_body(body, api_version, parse_row=parse_row, rows="campaigns")

    return ListRoute(
        path=CAMPAIGNS_PERFORMANCE_PATH,
        description=(
            f"campaign performance of {query.start_date} to {query.end_date} by {query.date_basis.value},"
            f" instances {describe_instances(query.instance_ids)}"
        ),
        parse_page=parse_page,
        parameters=query.parameters,
        key=lambda campaign: campaign.key,
        instance_ids=query.instance_ids,
        metric_names=tuple(metric.api_name for metric in query.metrics),
    )
