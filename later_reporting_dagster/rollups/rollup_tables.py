"""The rollup tables. Each has a SQL file of the same name, and columns derived from its metrics."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS, DateBasis, Metric
from later_reporting_dagster.lake.campaign_tables import CAMPAIGN_PERFORMANCE_TABLE, CAMPAIGNS_TABLE
from later_reporting_dagster.lake.columns import Column
from later_reporting_dagster.rollups import benchmark_columns, campaign_columns, rollup_columns
from later_reporting_dagster.rollups.periods import Period
from later_reporting_dagster.rollups.rollup_columns import GRAIN


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupTable:
    """A rollup table.

    Attributes:
        name: name of the table, of its asset and of its SQL file.
        grain: columns that identify a row within its period or window.
        date_bases: date bases that it has rows for.
        period: the time that one of its files covers.
        labels: post columns that name the group, such as a creator's handle.
        description: one sentence for the Dagster UI.
        metrics: metrics of the table. Each additive metric has a column with its sum.
    """

    name: str
    grain: Sequence[str]
    date_bases: Sequence[DateBasis]
    period: Period
    labels: Sequence[str] = ()
    description: str
    metrics: Sequence[Metric] = DEFAULT_METRICS

    def with_metrics(self, metrics: Iterable[Metric]) -> "RollupTable":
        """Return the table with sums of these metrics. Metrics of the API reference are always included."""
        wanted = {*DEFAULT_METRICS, *metrics}
        return replace(self, metrics=tuple(metric for metric in METRICS if metric in wanted))

    @property
    def has_costs(self) -> bool:
        """Whether it has spend columns. Costs are lifetime values of a post, so only rows by post date have them."""
        return DateBasis.POST_DATE in self.date_bases

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in stored order."""
        if self.period is Period.POSTS:
            is_by_post = "post_id" in self.grain
            return tuple(
                (benchmark_columns.benchmark_columns if is_by_post else benchmark_columns.age_columns)(self.metrics)
            )
        if self.period is Period.WINDOWS:
            return tuple(
                rollup_columns.window_columns(
                    grain=self.grain,
                    labels=self.labels,
                    measures=self.measures,
                    compared_with_previous=self.compared_with_previous,
                    campaign_labels=self.columns_from_campaigns.get(CAMPAIGNS_TABLE, ()),
                    campaign_results=self.columns_from_campaigns.get(CAMPAIGN_PERFORMANCE_TABLE, ()),
                )
            )
        days = rollup_columns.day_count_columns() if self.period is not Period.DAY else ()
        return (*rollup_columns.post_columns_named(self.grain, "The value in the raw rows"), *days, *self.measures)

    @property
    def measures(self) -> tuple[Column, ...]:
        """Columns that are computed for each group."""
        return _measures(self)

    @property
    def compared_with_previous(self) -> list[Column]:
        """The totals and rates, which all tables have. A window table also has their previous values and changes."""
        return [*rollup_columns.totals(self.metrics, DEFAULT_METRICS), *rollup_columns.rates(self.metrics)]

    @property
    def columns_from_campaigns(self) -> Mapping[str, Sequence[Column]]:
        """By table of campaigns, the columns that are made from it; empty if the rows are not campaigns."""
        if self.period is not Period.WINDOWS or "campaign_id" not in self.grain:
            return {}
        return {
            CAMPAIGNS_TABLE: [*campaign_columns.campaign_labels()],
            CAMPAIGN_PERFORMANCE_TABLE: [*campaign_columns.campaign_results()],
        }

    def columns_from(self, date_basis: DateBasis) -> list[Column]:
        """Return the columns made from posts that can have values in rows of a date basis.

        Costs are null by performance date.
        """
        others = {column.name for columns in self.columns_from_campaigns.values() for column in columns}
        if date_basis is DateBasis.PERFORMANCE_DATE:
            others |= {column.name for column in rollup_columns.costs()}
        return [column for column in self.columns if column.name not in others]


@lru_cache
def _measures(table: RollupTable) -> tuple[Column, ...]:
    measures = table.compared_with_previous
    if table.period is not Period.DAY:
        measures += rollup_columns.comparison()
    if table.period is Period.WINDOWS and "campaign_id" not in table.grain:
        measures.append(rollup_columns.post_campaigns())
    if table.period is Period.WINDOWS and "platform" not in table.grain:
        measures += rollup_columns.platform_mix()
    if table.has_costs:
        measures += rollup_columns.costs()
    return tuple(measures)


_BY = "instance, campaign, platform and content type"
_WINDOWS = (
    "over the last 7, 28, 90 and 365 days and all time, with the previous period and the change. Organic and paid"
    " results side by side, once by performance date and once by post date. Rows by post date also have lower and upper"
    " bounds of the spend"
)


def _calendar_table(
    period: Period, name: str, *, description: str, date_basis: DateBasis = DateBasis.PERFORMANCE_DATE
) -> RollupTable:
    return RollupTable(name=name, grain=GRAIN, date_bases=(date_basis,), period=period, description=description)


def _window_table(name: str, *grain: str, labels: Sequence[str] = (), entities: str, further: str = "") -> RollupTable:
    return RollupTable(
        name=name,
        grain=grain,
        date_bases=(DateBasis.PERFORMANCE_DATE, DateBasis.POST_DATE),
        period=Period.WINDOWS,
        labels=labels,
        description=f"{entities} {_WINDOWS}.{further}",
    )


DAILY = _calendar_table(
    Period.DAY, "organic_paid_daily", description=f"Organic and paid results recorded on the day, by {_BY}."
)
BY_PUBLISH_DAY = _calendar_table(
    Period.DAY,
    "organic_paid_by_publish_day",
    date_basis=DateBasis.POST_DATE,
    description="Organic and paid results to date of the posts published on the day, with lower and upper bounds of the"
    f" spend, by {_BY}.",
)
WEEKLY = _calendar_table(
    Period.WEEK,
    "organic_paid_weekly",
    description=f"Organic and paid results recorded in the ISO week (Monday to Sunday), by {_BY}. Each post counts"
    " once.",
)
MONTHLY = _calendar_table(
    Period.MONTH,
    "organic_paid_monthly",
    description=f"Organic and paid results recorded in the month, by {_BY}. Each post counts once.",
)
BY_CAMPAIGN = _window_table(
    "organic_paid_by_campaign",
    "instance_id",
    "campaign_id",
    entities="Campaigns",
    further=" Rows by performance date also have the spend and return that the API reports for the whole campaign.",
)
BY_CREATOR = _window_table(
    "organic_paid_by_creator",
    "instance_id",
    "creator_id",
    labels=("creator_handle_name", "creator_full_name", "creator_profile_link"),
    entities="Creators",
)
BY_PLATFORM = _window_table(
    "organic_paid_by_platform", "instance_id", "platform", "content_type", entities="Platforms and content types"
)
POST_BENCHMARKS = RollupTable(
    name="post_benchmarks",
    grain=("instance_id", "post_id"),
    date_bases=(DateBasis.PERFORMANCE_DATE, DateBasis.POST_DATE),
    period=Period.POSTS,
    description="Each post of the last 90 days, once: its results to date, and where its organic results stand among"
    " posts of the same platform, content type and age. Shows what to boost and what to stop.",
)
BY_AGE = RollupTable(
    name="organic_paid_by_age",
    grain=("platform", "content_type", "age"),
    date_bases=POST_BENCHMARKS.date_bases,
    period=Period.POSTS,
    description="What posts of the last year had earned at each age, by platform and content type: quartiles of organic"
    " and paid results. Shows how fast a post earns, and which rate is good.",
)

DAY_TABLES: tuple[RollupTable, ...] = (DAILY, BY_PUBLISH_DAY)
WEEK_AND_MONTH_TABLES: tuple[RollupTable, ...] = (WEEKLY, MONTHLY)
WINDOW_TABLES: tuple[RollupTable, ...] = (BY_CAMPAIGN, BY_CREATOR, BY_PLATFORM)
POST_TABLES: tuple[RollupTable, ...] = (POST_BENCHMARKS, BY_AGE)
TABLES: tuple[RollupTable, ...] = (*DAY_TABLES, *WEEK_AND_MONTH_TABLES, *WINDOW_TABLES, *POST_TABLES)
