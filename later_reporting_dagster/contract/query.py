"""What a list is requested of, and its parameters, which the API validates."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from urllib.parse import quote

from later_reporting_dagster.contract.metrics import DEFAULT_METRICS, Metric
from later_reporting_dagster.contract.parameters import ContentType, DateBasis, Platform, platform_of

# Servers and proxies commonly limit the request line to 8 KiB; the other parameters need room too.
MAX_INSTANCE_CHARACTERS = 6_000
SHOWN_INSTANCES = 5


@dataclass(frozen=True, slots=True)
class ListQuery:
    """Of which instances to list what has no days and no metrics; of all, if none is named."""

    instance_ids: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    is_of_days: bool = False

    def __str__(self) -> str:
        return f"of instances {describe_instances(self.instance_ids)}" if self.instance_ids else ""

    def filter_parameters(self) -> list[tuple[str, str]]:
        return instance_parameters(self.instance_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class PerformanceQuery:
    """Which posts or campaigns, and which of their metrics, to return (docs/api.md, "Posts performance", "Campaigns").

    Days are UTC days, both inclusive. An empty filter selects all; `platforms` and `content_types` exclude each other,
    and `campaign_ids` are at most 50. `metrics` are requested in the cursor version only: the paged version returns all
    metrics that it has.
    """

    start_date: date
    end_date: date
    instance_ids: tuple[str, ...] = ()
    campaign_ids: tuple[int, ...] = ()
    platforms: tuple[Platform, ...] = ()
    content_types: tuple[ContentType, ...] = ()
    date_basis: DateBasis = DateBasis.POST_DATE
    metrics: tuple[Metric, ...] = DEFAULT_METRICS

    def __str__(self) -> str:
        days = f"{self.start_date} to {self.end_date} by {self.date_basis.value}"
        return f"of {days}, instances {describe_instances(self.instance_ids)}"

    @property
    def is_of_days(self) -> bool:
        """Whether metrics are those that were recorded on the days, or else those to date."""
        return self.date_basis is DateBasis.PERFORMANCE_DATE

    def selects(self, content_type: str | None) -> bool | None:
        """Return whether the filters select posts of a content type; None if that is unknown.

        A content type whose first word is not a platform may belong to any platform.
        """
        if self.content_types:
            return None if content_type is None else content_type in self.content_types
        if self.platforms:
            platform = platform_of(content_type)
            return None if platform is None else platform in self.platforms
        return True

    def rows_outside(self, rows: Iterable[Any], *, days: int = 0) -> list[Any]:
        """Return the posts and bad rows that are more than so many days outside of the range, by post date.

        Campaigns have no date.
        """
        if self.is_of_days:
            return []
        first = datetime.combine(self.start_date, time.min, UTC) - timedelta(days=days)
        last = datetime.combine(self.end_date, time.max, UTC) + timedelta(days=days)
        dates = ((row, getattr(row, "post_date", None)) for row in rows)
        return [row for row, instant in dates if instant is not None and not first <= instant <= last]

    def filter_parameters(self) -> list[tuple[str, str]]:
        """Return the pairs of the query string that select rows. Arrays are sent as repeated keys."""
        pairs = [("startDate", self.start_date.isoformat()), ("endDate", self.end_date.isoformat())]
        pairs += instance_parameters(self.instance_ids)
        pairs += [("campaignIds", str(campaign_id)) for campaign_id in self.campaign_ids]
        pairs += [("platform", platform.value) for platform in self.platforms]
        pairs += [("contentType", content_type.value) for content_type in self.content_types]
        pairs.append(("dateBasis", self.date_basis.value))
        return pairs


Query = PerformanceQuery | ListQuery


def describe_instances(instance_ids: tuple[str, ...]) -> str:
    shown = ", ".join(map(repr, instance_ids[:SHOWN_INSTANCES])) or "all"
    more = len(instance_ids) - SHOWN_INSTANCES
    return f"{shown} and {more} more" if more > 0 else shown


def instance_parameters(instance_ids: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the pairs of a query string that select instances.

    A single id with a comma is sent twice, because the API reads a single `p=a,b` as two values.
    """
    is_single_with_comma = len(instance_ids) == 1 and "," in instance_ids[0]
    return [("instanceIds", instance_id) for instance_id in instance_ids * (2 if is_single_with_comma else 1)]


def group_by_url_length(instance_ids: Iterable[str]) -> list[tuple[str, ...]]:
    """Return groups of instances whose part of the URL is at most `MAX_INSTANCE_CHARACTERS` long, in their order.

    Without instances, there is one empty group, because a query without instances selects all.
    """
    groups: list[tuple[str, ...]] = [()]
    characters = 0
    for instance_id in instance_ids:
        cost = len("&instanceIds=") + len(quote(instance_id, safe=""))
        characters += cost
        if groups[-1] and characters > MAX_INSTANCE_CHARACTERS:
            groups.append(())
            characters = cost
        groups[-1] += (instance_id,)
    return groups
