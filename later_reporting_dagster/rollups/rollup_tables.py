"""The rollup tables. Each has a SQL file with its query, and beside it a YAML file that documents its columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from enum import StrEnum
from typing import Any

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS, DateBasis, Metric
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.lake.tables import (
    CAMPAIGN_PERIODS_TABLE,
    CAMPAIGNS_TABLE,
    POST_METRICS_DAILY,
    POSTS_PUBLISHED,
    Column,
    Table,
)
from later_reporting_dagster.rollups.templates import CREATOR_LABELS, metric_variables, read_columns, within_limits


class Cadence(StrEnum):
    """The time that one file of a rollup table covers. A week is an ISO week: Monday to Sunday. `ALL`: one file."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class RollupTable:
    """A rollup table.

    Attributes:
        name: also that of its asset.
        query: the name of its SQL and YAML files; several tables may share one.
        facts: the relations that the query reads; see `sql_engine.FACTS`.
        grain: columns that the query groups by, beside the period and the instance.
        key: columns that identify a row; in a table by day, week or month, in its partition.
        labels: columns that name the group, such as a creator's handle, from the relation `label_relation`.
        sources: the names of the tables that it is made from.
        metrics: each additive metric has a column with its sum.
        definition: the version of its definition. Raise it with a change of the SQL that changes results: files of a
            lower version are then computed again.
    """

    name: str
    query: str
    facts: Sequence[str]
    grain: Sequence[str] = ()
    key: Sequence[str]
    labels: Sequence[str] = ()
    label_relation: str = ""
    cadence: Cadence = Cadence.ALL
    sources: Sequence[str] = (POST_METRICS_DAILY.name,)
    description: str
    metrics: Sequence[Metric] = DEFAULT_METRICS
    definition: int = 4

    def with_metrics(self, metrics: Iterable[Metric]) -> "RollupTable":
        """Return the table with sums of these metrics. Metrics of the API reference are always included."""
        wanted = {*DEFAULT_METRICS, *metrics}
        return replace(self, metrics=tuple(metric for metric in METRICS if metric in wanted))

    @property
    def date_basis(self) -> DateBasis:
        """The date that its days are of."""
        return DateBasis.POST_DATE if self.query == "posts" else DateBasis.PERFORMANCE_DATE

    @property
    def variables(self) -> dict[str, Any]:
        """The variables of its SQL and its YAML."""
        # What is summed over campaigns by mistake should at least be no money.
        is_shared = "campaign_id" in self.grain and self.cadence is not Cadence.ALL
        metrics = [metric for metric in self.metrics if not (is_shared and metric.kind is Kind.MONEY)]
        return metric_variables(metrics) | {
            "within_limits": within_limits(self.metrics),
            "cadence": str(self.cadence),
            "grain": self.grain,
            "group": "".join(f"{name}, " for name in self.grain),
            "labels": self.labels,
            "label_relation": self.label_relation,
            "has_all": not {"campaign_id", "creator_id"} & {*self.grain},
            "facts": "campaign_post_periods" if "campaign_id" in self.grain else "post_periods",
        }

    @property
    def columns(self) -> tuple[Column, ...]:
        """All columns, in stored order."""
        return read_columns(f"{self.query}.yml", self.variables)

    @property
    def table(self) -> Table:
        """The table of the lake."""
        return Table(
            self.name, self.columns, is_partitioned=self.cadence is not Cadence.ALL, definition=self.definition
        )


_KIND = ("platform", "content_type")
_WINDOWS = "the last 7, 28, 90, 365 and 730 days, this month and last month"


def _over_time(name: str, cadence: Cadence, description: str, *, by_campaign: bool = False) -> RollupTable:
    grain = ("instance_id", *(("campaign_id",) if by_campaign else ()), *_KIND)
    return RollupTable(
        name=name,
        query="organic_paid_over_time",
        facts=("post_days", "post_periods", *(("campaign_post_periods",) if by_campaign else ())),
        cadence=cadence,
        grain=grain,
        key=("date", *grain),
        definition=5,
        description=description,
    )


def _over_windows(name: str, what: str, grain: Sequence[str], **attributes: Any) -> RollupTable:
    return RollupTable(
        name=name,
        query="organic_paid_windows",
        grain=grain,
        key=("time_window", "scope", "instance_id", *grain),
        description=f"{what}: organic beside paid results recorded over {_WINDOWS}, beside the period before.",
        definition=6,
        **{"facts": ("post_days", "window_periods", "post_periods"), **attributes},
    )


DAILY = _over_time(
    "organic_paid_daily",
    Cadence.DAY,
    "Organic and paid results recorded on the day, by instance, platform and content type. A post counts once, so"
    " counts and money of days can be summed; the column `posts` cannot.",
)
DAILY_BY_CAMPAIGN = _over_time(
    "organic_paid_daily_by_campaign",
    Cadence.DAY,
    "Never sum over campaigns: a post of several campaigns counts in each. Organic and paid results recorded on the"
    " day, by instance, campaign, platform and content type.",
    by_campaign=True,
)
WEEKLY = _over_time(
    "organic_paid_weekly",
    Cadence.WEEK,
    "Organic and paid results recorded in the ISO week (Monday to Sunday), by instance, platform and content type. A"
    " post counts once.",
)
MONTHLY = _over_time(
    "organic_paid_monthly",
    Cadence.MONTH,
    "Organic and paid results recorded in the month, by instance, platform and content type. A post counts once.",
)
BY_CAMPAIGN = _over_windows(
    "organic_paid_by_campaign",
    "Campaigns. Never sum over campaigns: a post of several counts in each",
    ("campaign_id",),
    facts=("post_days", "window_periods", "post_periods", "campaign_post_periods"),
    labels=("campaign_name",),
    label_relation=CAMPAIGNS_TABLE,
    sources=(POST_METRICS_DAILY.name, CAMPAIGNS_TABLE),
)
BY_PLATFORM = _over_windows("organic_paid_by_platform", "Platforms", ("platform",))
BY_CONTENT_TYPE = _over_windows("organic_paid_by_content_type", "Content types", _KIND)
BY_CREATOR = _over_windows(
    "organic_paid_by_creator",
    "Creators",
    ("creator_id",),
    facts=("post_days", "window_periods", "post_periods", "known_posts"),
    labels=CREATOR_LABELS,
    label_relation="creators",
    sources=(POST_METRICS_DAILY.name, POSTS_PUBLISHED.name),
)
OVERALL = _over_windows("organic_paid_overall", "Each instance, and all together", ())
POSTS = RollupTable(
    name="posts",
    query="posts",
    facts=("post_days", "known_posts", "post_ages"),
    key=("instance_id", "post_id"),
    sources=(POST_METRICS_DAILY.name, POSTS_PUBLISHED.name),
    definition=7,
    description="Each post once: its results to date, what it has cost, when it was paid for, and where its organic"
    " results stand among posts of its platform, content type and age.",
)
BY_AGE = RollupTable(
    name="organic_by_age",
    query="organic_by_age",
    facts=("post_days", "known_posts", "post_ages"),
    grain=_KIND,
    key=(*_KIND, "age"),
    sources=(POST_METRICS_DAILY.name, POSTS_PUBLISHED.name),
    definition=5,
    description="What share of its organic result of day 28 a post had at each age, by platform and content type:"
    " quartiles, and the share of all posts together. Shows how fast a post earns, and whether a campaign is ahead of"
    " earlier ones at its age.",
)
_OF_CAMPAIGNS = (CAMPAIGN_PERIODS_TABLE, CAMPAIGNS_TABLE, POST_METRICS_DAILY.name, POSTS_PUBLISHED.name)
CAMPAIGN_RESULTS = RollupTable(
    name="campaign_results",
    query="campaign_results",
    facts=("post_days", "window_periods", "known_posts", "named_campaigns"),
    key=("time_window", "campaign_id"),
    sources=_OF_CAMPAIGNS,
    definition=6,
    description=f"Campaigns: what the API totals for each over exactly {_WINDOWS}: spend, return, links, reach; whether"
    " that is its whole life.",
)
CAMPAIGNS_MONTHLY = RollupTable(
    name="campaigns_monthly",
    query="campaigns_monthly",
    facts=("post_days", "known_posts", "named_campaigns"),
    key=("month", "campaign_id"),
    sources=_OF_CAMPAIGNS,
    definition=6,
    description="Campaigns by month: spend, return, links and reach recorded in it, and number and content cost of the"
    " posts published in it, as the API totals exactly the month. Spend and costs of a campaign add up over months; a"
    " post of several campaigns counts in each of them.",
)

PERIOD_TABLES: tuple[RollupTable, ...] = (DAILY, DAILY_BY_CAMPAIGN, WEEKLY, MONTHLY)
CADENCES: Mapping[str, Cadence] = {table.name: table.cadence for table in PERIOD_TABLES}
WINDOW_TABLES: tuple[RollupTable, ...] = (BY_CAMPAIGN, BY_PLATFORM, BY_CONTENT_TYPE, BY_CREATOR, OVERALL)
POST_TABLES: tuple[RollupTable, ...] = (POSTS, BY_AGE)
CAMPAIGN_TABLES: tuple[RollupTable, ...] = (CAMPAIGN_RESULTS, CAMPAIGNS_MONTHLY)
# Each of these is one file, without partitions.
SINGLE_TABLES: tuple[RollupTable, ...] = (*WINDOW_TABLES, *POST_TABLES, *CAMPAIGN_TABLES)
TABLES: tuple[RollupTable, ...] = (*PERIOD_TABLES, *SINGLE_TABLES)


def days_of(period: Cadence, first_day: date) -> list[date]:
    """Return the days of the day, week or month that begins on `first_day`; none if no such period begins on it."""
    if period is Cadence.DAY:
        return [first_day]
    days = (first_day + timedelta(days=number) for number in range(31))
    return [day for day in days if first_day_of(period, day) == first_day]


def first_day_of(period: Cadence, day: date) -> date:
    """Return the first day of the week or month that contains `day`; for days, `day` itself."""
    if period is Cadence.WEEK:
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if period is Cadence.MONTH else day
