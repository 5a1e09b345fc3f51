"""The family of rolled-up tables, each a sentence of one grammar: by what, over what, and measured how."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, DateBasis, Metric
from later_reporting_dagster.lake.columns import Column
from later_reporting_dagster.rollups.columns import (
    GRAIN,
    Block,
    channel_columns,
    columns_of_posts,
    lift_columns,
    posts_columns,
    rate_columns,
    spend_columns,
    sum_columns,
    window_columns,
)
from later_reporting_dagster.rollups.spans import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledUp:
    """A rolled-up table.

    Attributes:
        name: of the table, and of its asset.
        grain: what its rows are by, in each span or window.
        bases: the date bases that it has rows of: by performance date, by post date, or by both.
        span: what one of its files spans.
        blocks: what it measures of each group.
        labels: columns of posts that name what the grain identifies.
        description: what it is for.
        metrics: those whose sums it has, where they add up.
    """

    name: str
    grain: Sequence[str]
    bases: Sequence[DateBasis]
    span: Span
    blocks: Sequence[Block]
    labels: Sequence[str] = ()
    description: str
    metrics: Sequence[Metric] = DOCUMENT_METRICS

    def of(self, metrics: Iterable[Metric]) -> "RolledUp":
        """The table with the sums of `metrics` beside those of the document's, which it always has."""
        wanted = {*DOCUMENT_METRICS, *metrics}
        return replace(self, metrics=tuple(metric for metric in METRICS if metric in wanted))

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its dictionary."""
        return _columns_of(self)

    def columns_from(self, basis: DateBasis) -> list[Column]:
        """The columns that rows of a date basis fill: nothing says how a cost falls on a day's performance."""
        if basis is DateBasis.POST_DATE:
            return list(self.columns)
        spend = {name for column in spend_columns() for name in (column.name, f"previous_{column.name}")}
        return [column for column in self.columns if column.name not in spend]


@lru_cache
def _columns_of(table: RolledUp) -> tuple[Column, ...]:
    sums = partial(sum_columns, table.metrics)
    blocks = [sums if block is sum_columns else block for block in table.blocks]
    if table.span is Span.WINDOWS:
        return window_columns(table.grain, table.labels, blocks)
    return (*columns_of_posts(table.grain), *(column for block in blocks for column in block()))


_RESULTS: Sequence[Block] = (posts_columns, sum_columns, rate_columns)
_PERIOD: Sequence[Block] = (*_RESULTS, lift_columns, channel_columns)
_BY = "instance, campaign, platform and content type"
_CREATOR_LABELS = ("creator_handle_name", "creator_full_name", "creator_profile_link")
_WINDOWS = (
    "over the last 7, 28, 90 and 365 days and all time, with the previous period beside it and the change: organic"
    " beside paid, by performance date and, with the bounds of what was spent, by post date"
)


def _over(span: Span, name: str, *, blocks: Sequence[Block], description: str) -> RolledUp:
    bases = (DateBasis.PERFORMANCE_DATE,)
    return RolledUp(name=name, grain=GRAIN, bases=bases, span=span, blocks=blocks, description=description)


def _by(name: str, *grain: str, labels: Sequence[str] = (), description: str) -> RolledUp:
    return RolledUp(
        name=name,
        grain=grain,
        bases=(DateBasis.PERFORMANCE_DATE, DateBasis.POST_DATE),
        span=Span.WINDOWS,
        blocks=(*_PERIOD, spend_columns),
        labels=labels,
        description=f"{description} {_WINDOWS}.",
    )


DAILY = _over(
    Span.DAY, "organic_paid_daily", blocks=_RESULTS, description=f"What the day earned, organic beside paid, by {_BY}."
)
BY_PUBLISH_DAY = RolledUp(
    name="organic_paid_by_publish_day",
    grain=GRAIN,
    bases=(DateBasis.POST_DATE,),
    span=Span.DAY,
    blocks=(*_RESULTS, spend_columns),
    description=(
        "What the posts published on the day have earned to date, organic beside paid, with the bounds of what was"
        f" spent, by {_BY}."
    ),
)
WEEKLY = _over(
    Span.WEEK,
    "organic_paid_weekly",
    blocks=_PERIOD,
    description=f"What the ISO week earned, Monday to Sunday, organic beside paid, by {_BY}. Each post counts once.",
)
MONTHLY = _over(
    Span.MONTH,
    "organic_paid_monthly",
    blocks=_PERIOD,
    description=f"What the month earned, organic beside paid, by {_BY}. Each post counts once.",
)
BY_CAMPAIGN = _by("organic_paid_by_campaign", "instance_id", "campaign_id", description="Campaigns")
BY_CREATOR = _by("organic_paid_by_creator", "instance_id", "creator_id", labels=_CREATOR_LABELS, description="Creators")
BY_PLATFORM = _by(
    "organic_paid_by_platform", "instance_id", "platform", "content_type", description="Platforms and content types"
)

BY_DAY: tuple[RolledUp, ...] = (DAILY, BY_PUBLISH_DAY)
OVER_DAYS: tuple[RolledUp, ...] = (WEEKLY, MONTHLY)
BY_WINDOW: tuple[RolledUp, ...] = (BY_CAMPAIGN, BY_CREATOR, BY_PLATFORM)
TABLES: tuple[RolledUp, ...] = (*BY_DAY, *OVER_DAYS, *BY_WINDOW)
