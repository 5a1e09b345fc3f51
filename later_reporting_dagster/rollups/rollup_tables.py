"""The rolled-up tables: each is a SQL file of its name, and a dictionary derived from the metric table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, DateBasis, Metric
from later_reporting_dagster.lake.columns import Column
from later_reporting_dagster.rollups import rollup_columns
from later_reporting_dagster.rollups.periods import Span
from later_reporting_dagster.rollups.rollup_columns import GRAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledUp:
    """A rolled-up table.

    Attributes:
        name: of the table, of its asset, and of its SQL file.
        grain: what its rows are by, in each span or window.
        bases: the date bases that it has rows of.
        span: what one of its files spans.
        labels: columns of posts that name what the grain identifies.
        description: what it is for.
        metrics: those whose sums it has, where they add up.
    """

    name: str
    grain: Sequence[str]
    bases: Sequence[DateBasis]
    span: Span
    labels: Sequence[str] = ()
    description: str
    metrics: Sequence[Metric] = DOCUMENT_METRICS

    def of(self, metrics: Iterable[Metric]) -> "RolledUp":
        """Return the table with the sums of `metrics` beside those of the API reference, which it always has."""
        wanted = {*DOCUMENT_METRICS, *metrics}
        return replace(self, metrics=tuple(metric for metric in METRICS if metric in wanted))

    @property
    def has_costs(self) -> bool:
        """Whether it says what was spent: only metrics to date have a cost."""
        return DateBasis.POST_DATE in self.bases

    @property
    def columns(self) -> tuple[Column, ...]:
        """Its dictionary."""
        if self.span is Span.WINDOWS:
            return tuple(rollup_columns.window_columns(self.grain, self.labels, self.measures, self.compared))
        days = rollup_columns.days_columns() if self.span is not Span.DAY else ()
        return (*rollup_columns.labels_of_posts(self.grain, "As the rows say"), *days, *self.measures)

    @property
    def measures(self) -> tuple[Column, ...]:
        """What it measures of each group."""
        return _measures_of(self)

    @property
    def compared(self) -> list[Column]:
        """The measures that a table of windows has of the previous period too."""
        return [*rollup_columns.totals(self.metrics, DOCUMENT_METRICS), *rollup_columns.rates(self.metrics)]

    def columns_from(self, basis: DateBasis) -> list[Column]:
        """Return the columns that rows of a date basis fill."""
        cost = set() if basis is DateBasis.POST_DATE else {column.name for column in rollup_columns.costs()}
        return [column for column in self.columns if column.name not in cost]


@lru_cache
def _measures_of(table: RolledUp) -> tuple[Column, ...]:
    measures = table.compared
    if table.span is not Span.DAY:
        measures += rollup_columns.comparison()
    if table.span is Span.WINDOWS and "campaign_id" not in table.grain:
        measures.append(rollup_columns.post_campaigns())
    if table.span is Span.WINDOWS and "platform" not in table.grain:
        measures += rollup_columns.platform_mix()
    if table.has_costs:
        measures += rollup_columns.costs()
    return tuple(measures)


_BY = "instance, campaign, platform and content type"
_WINDOWS = (
    "over the last 7, 28, 90 and 365 days and all time, with the previous period beside it and the change: organic"
    " beside paid, by performance date and, with the bounds of what was spent, by post date"
)


def _over(span: Span, name: str, *, description: str, basis: DateBasis = DateBasis.PERFORMANCE_DATE) -> RolledUp:
    return RolledUp(name=name, grain=GRAIN, bases=(basis,), span=span, description=description)


def _by(name: str, *grain: str, labels: Sequence[str] = (), description: str) -> RolledUp:
    bases = (DateBasis.PERFORMANCE_DATE, DateBasis.POST_DATE)
    words = f"{description} {_WINDOWS}."
    return RolledUp(name=name, grain=grain, bases=bases, span=Span.WINDOWS, labels=labels, description=words)


DAILY = _over(Span.DAY, "organic_paid_daily", description=f"What the day earned, organic beside paid, by {_BY}.")
BY_PUBLISH_DAY = _over(
    Span.DAY,
    "organic_paid_by_publish_day",
    basis=DateBasis.POST_DATE,
    description="What the posts published on the day have earned to date, organic beside paid, with the bounds of what"
    f" was spent, by {_BY}.",
)
WEEKLY = _over(
    Span.WEEK,
    "organic_paid_weekly",
    description=f"What the ISO week earned, Monday to Sunday, organic beside paid, by {_BY}. Each post counts once.",
)
MONTHLY = _over(
    Span.MONTH,
    "organic_paid_monthly",
    description=f"What the month earned, organic beside paid, by {_BY}. Each post counts once.",
)
BY_CAMPAIGN = _by("organic_paid_by_campaign", "instance_id", "campaign_id", description="Campaigns")
BY_CREATOR = _by(
    "organic_paid_by_creator",
    "instance_id",
    "creator_id",
    labels=("creator_handle_name", "creator_full_name", "creator_profile_link"),
    description="Creators",
)
BY_PLATFORM = _by(
    "organic_paid_by_platform", "instance_id", "platform", "content_type", description="Platforms and content types"
)

BY_DAY: tuple[RolledUp, ...] = (DAILY, BY_PUBLISH_DAY)
OVER_DAYS: tuple[RolledUp, ...] = (WEEKLY, MONTHLY)
BY_WINDOW: tuple[RolledUp, ...] = (BY_CAMPAIGN, BY_CREATOR, BY_PLATFORM)
TABLES: tuple[RolledUp, ...] = (*BY_DAY, *OVER_DAYS, *BY_WINDOW)
