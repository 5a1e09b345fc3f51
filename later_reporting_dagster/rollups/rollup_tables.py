"""The rollup tables. Each has a SQL file of the same name, and columns derived from its metrics."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS, DateBasis, Metric
from later_reporting_dagster.lake.tables import CAMPAIGN_PERIODS_TABLE, CAMPAIGNS_TABLE, RAW_TABLES, Column, Table
from later_reporting_dagster.rollups import benchmark_columns, rollup_columns
from later_reporting_dagster.rollups.rollup_columns import GRAIN

# Date basis -> its raw table.
RAW_TABLE_NAMES = {table.date_basis: table.name for table in RAW_TABLES}


class Cadence(StrEnum):
    """The time that one file of a rollup table covers. A week is an ISO week: Monday to Sunday.

    `WINDOWS` and `POSTS` have one file: of rolling windows, and of the posts of the last year.
    """

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    WINDOWS = "windows"
    POSTS = "posts"


class Measures(StrEnum):
    """What a table measures."""

    COMPARISON = "comparison"  # organic beside paid results, by performance date
    COSTS = "costs"  # spend and unit costs, by post date
    CAMPAIGNS = "campaigns"  # what the API totals for campaigns over whole windows, by performance date


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupTable:
    """A rollup table.

    Attributes:
        name: also that of its asset and of its SQL file.
        grain: columns that identify a row within its period or window.
        cadence: the time that one of its files covers.
        labels: columns that name the group, such as a creator's handle.
        is_overall: whether each window also has a row of all instances, whose `instance_id` is null.
        metrics: each additive metric has a column with its sum.
        definition: the version of its definition. Raise it with a change of the SQL that changes results: files of a
            lower version are then computed again.
    """

    name: str
    grain: Sequence[str]
    measures: Measures = Measures.COMPARISON
    cadence: Cadence = Cadence.WINDOWS
    labels: Sequence[str] = ()
    is_overall: bool = False
    description: str
    metrics: Sequence[Metric] = DEFAULT_METRICS
    definition: int = 2

    def with_metrics(self, metrics: Iterable[Metric]) -> "RollupTable":
        """Return the table with sums of these metrics. Metrics of the API reference are always included."""
        wanted = {*DEFAULT_METRICS, *metrics}
        return replace(self, metrics=tuple(metric for metric in METRICS if metric in wanted))

    @property
    def date_basis(self) -> DateBasis:
        """The date that its days are of."""
        return DateBasis.POST_DATE if self.measures is Measures.COSTS else DateBasis.PERFORMANCE_DATE

    @property
    def raw_table(self) -> str:
        """The table of posts that it is made from, and whose days its windows consist of."""
        return RAW_TABLE_NAMES[self.date_basis]

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in stored order."""
        if self.cadence is Cadence.POSTS:
            is_by_post = "post_id" in self.grain
            columns = benchmark_columns.benchmark_columns if is_by_post else benchmark_columns.age_columns
            return tuple(columns(self.metrics))
        return (*self._keys(), *self._measured())

    @property
    def table(self) -> Table:
        """The table of the lake; tables over windows and posts are one file."""
        return Table(self.name, self.columns, is_partitioned=self.cadence not in (Cadence.WINDOWS, Cadence.POSTS))

    @property
    def sources(self) -> Sequence[str]:
        """The names of the tables that it is made from."""
        if self.cadence is Cadence.POSTS or "creator_id" in self.grain:
            return [*RAW_TABLE_NAMES.values()]
        if self.measures is Measures.CAMPAIGNS:
            return [CAMPAIGN_PERIODS_TABLE, CAMPAIGNS_TABLE]
        return [self.raw_table, *([CAMPAIGNS_TABLE] if self.labels else [])]

    def _keys(self) -> Iterator[Column]:
        """Yield the columns that identify a row, and the days that it is computed from."""
        is_window, is_of_campaigns = self.cadence is Cadence.WINDOWS, self.measures is Measures.CAMPAIGNS
        if is_window:
            yield from rollup_columns.campaign_window() if is_of_campaigns else rollup_columns.window()
        for column in rollup_columns.post_columns_named(
            self.grain, "The value in the post's row of the latest day" if is_window else "The value in the raw rows"
        ):
            computed = self._computation_of_instance if column.name == "instance_id" else ""
            yield replace(column, nullable=True, computation=computed) if computed else column
        if self.labels:
            is_creator = "creator_id" in self.grain
            yield from (rollup_columns.creator_labels if is_creator else rollup_columns.campaign_labels)(self.labels)
        if self.cadence is not Cadence.DAY and not is_of_campaigns:
            yield from rollup_columns.day_counts(of_all_instances=self.is_overall)

    @property
    def _computation_of_instance(self) -> str:
        """How `instance_id` is computed, if it is null in some rows."""
        if self.measures is Measures.CAMPAIGNS:
            return (
                "The instance whose rows of campaigns have the id; null if these are of several, or if there are none"
            )
        return "Null for all instances together" if self.is_overall else ""

    def _measured(self) -> Iterable[Column]:
        if self.measures is Measures.CAMPAIGNS:
            return rollup_columns.campaign_results()
        if self.measures is Measures.COSTS:
            return rollup_columns.costs()
        columns = rollup_columns.comparison(self.metrics, of_one_creator="creator_id" in self.grain)
        if self.cadence is not Cadence.WINDOWS:
            return columns
        no_file = "null if no day of the window has a file"
        current = (
            replace(column, nullable=True, computation=f"{column.computation}; {no_file}")
            if column.unit == "posts"
            else column
            for column in columns
        )
        return (*current, *rollup_columns.previous())


_BY = "instance, campaign, platform and content type"
_WINDOWS = "over the last 7, 28, 90 and 365 days and all time"
_COMPARED = f"organic beside paid results recorded {_WINDOWS}, with the previous period"
_COSTS = f"spend, cost per engagement and per 1,000 impressions of the posts published {_WINDOWS}"

DAILY = RollupTable(
    name="organic_paid_daily",
    grain=GRAIN,
    cadence=Cadence.DAY,
    description=f"Organic and paid results recorded on the day, by {_BY}.",
)
BY_PUBLISH_DAY = RollupTable(
    name="organic_paid_by_publish_day",
    grain=GRAIN,
    measures=Measures.COSTS,
    cadence=Cadence.DAY,
    description=f"Spend and unit costs of the posts published on the day, to date, by {_BY}.",
)
WEEKLY = RollupTable(
    name="organic_paid_weekly",
    grain=GRAIN,
    cadence=Cadence.WEEK,
    description=f"Organic and paid results recorded in the ISO week (Monday to Sunday), by {_BY}. Each post counts"
    " once.",
)
MONTHLY = RollupTable(
    name="organic_paid_monthly",
    grain=GRAIN,
    cadence=Cadence.MONTH,
    description=f"Organic and paid results recorded in the month, by {_BY}. Each post counts once.",
)
BY_CAMPAIGN = RollupTable(
    name="organic_paid_by_campaign",
    grain=("instance_id", "campaign_id"),
    labels=("campaign_name",),
    description=f"Campaigns: {_COMPARED}.",
)
BY_PLATFORM = RollupTable(
    name="organic_paid_by_platform", grain=("instance_id", "platform"), description=f"Platforms: {_COMPARED}."
)
BY_CONTENT_TYPE = RollupTable(
    name="organic_paid_by_content_type",
    grain=("instance_id", "platform", "content_type"),
    description=f"Content types: {_COMPARED}.",
)
BY_CREATOR = RollupTable(
    name="organic_paid_by_creator",
    grain=("instance_id", "creator_id"),
    labels=("creator_handle_name", "creator_full_name", "creator_profile_link"),
    description=f"Creators: {_COMPARED}.",
)
OVERALL = RollupTable(
    name="organic_paid_overall",
    grain=("instance_id",),
    is_overall=True,
    description=f"Each instance, and all together: {_COMPARED}.",
)
COSTS_BY_CAMPAIGN = RollupTable(
    name="costs_by_campaign",
    grain=("instance_id", "campaign_id"),
    labels=("campaign_name",),
    measures=Measures.COSTS,
    description=f"Campaigns: {_COSTS}.",
)
COSTS_OVERALL = RollupTable(
    name="costs_overall",
    grain=("instance_id",),
    measures=Measures.COSTS,
    is_overall=True,
    description=f"Each instance, and all together: {_COSTS}.",
)
CAMPAIGN_RESULTS = RollupTable(
    name="campaign_results",
    grain=("instance_id", "campaign_id"),
    labels=("campaign_name", "campaign_status"),
    measures=Measures.CAMPAIGNS,
    description="Campaigns: spend, return, links, reach, posts and creators as the API totals them for exactly the last"
    " 7, 28, 90, 365 and 730 days.",
    definition=3,
)
POST_BENCHMARKS = RollupTable(
    name="post_benchmarks",
    grain=("instance_id", "post_id"),
    cadence=Cadence.POSTS,
    description="Each post of the last 90 days, once: its results to date, and where its organic results stand among"
    " posts of the same platform, content type and age. Shows what to boost and what to stop.",
)
BY_AGE = RollupTable(
    name="organic_paid_by_age",
    grain=("platform", "content_type", "age"),
    cadence=Cadence.POSTS,
    description="What posts of the last year had earned at each age, by platform and content type: quartiles of organic"
    " and paid results. Shows how fast a post earns, and which rate is good.",
)

PERIOD_TABLES: tuple[RollupTable, ...] = (DAILY, BY_PUBLISH_DAY, WEEKLY, MONTHLY)
CADENCES = {table.name: table.cadence for table in PERIOD_TABLES}
WINDOW_TABLES: tuple[RollupTable, ...] = (
    BY_CAMPAIGN,
    BY_PLATFORM,
    BY_CONTENT_TYPE,
    BY_CREATOR,
    OVERALL,
    COSTS_BY_CAMPAIGN,
    COSTS_OVERALL,
    CAMPAIGN_RESULTS,
)
POST_TABLES: tuple[RollupTable, ...] = (POST_BENCHMARKS, BY_AGE)
# Each of these is one file, without partitions.
SINGLE_TABLES: tuple[RollupTable, ...] = (*WINDOW_TABLES, *POST_TABLES)
TABLES: tuple[RollupTable, ...] = (*PERIOD_TABLES, *SINGLE_TABLES)


def days_of(period: Cadence, first_day: date) -> list[date]:
    """Return the days of the day, week or month that begins on `first_day`; raise `ValueError` if none does."""
    if first_day_of(period, first_day) != first_day:
        raise ValueError(f"no {period} begins on {first_day}")
    days = (first_day + timedelta(days=number) for number in range(31))
    return [day for day in days if first_day_of(period, day) == first_day]


def first_day_of(period: Cadence, day: date) -> date:
    """Return the first day of the week or month that contains `day`; for days, `day` itself."""
    if period is Cadence.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period is Cadence.MONTH else day
