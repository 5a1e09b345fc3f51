"""What a report is made of: sums by span, instance, campaign and what else a picture asks for. Arrow in, no I/O.

All that is kept adds up, so that a page can narrow it to an instance and a campaign and recompute each rate from sums,
as the rollups do. What is not available stays null.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property

import pyarrow as pa

from later_reporting_dagster.contract import METRICS, platform_of
from later_reporting_dagster.ingest.source import POST_METRICS_DAILY, POSTS_PUBLISHED
from later_reporting_dagster.lake.columns import post_columns
from later_reporting_dagster.lake.schema import schema_of
from later_reporting_dagster.report.periods import MAXIMUM_DAYS, default_period, span_of
from later_reporting_dagster.rollups.columns import COMPARED, OF_CHANNEL, RESULTS
from later_reporting_dagster.rollups.measures import Columns, rate_parts, spend_parts
from later_reporting_dagster.rollups.sums import grouped_sums

METRICS_TABLE, PUBLISHED_TABLE = POST_METRICS_DAILY.asset, POSTS_PUBLISHED.asset

_PROFILE = ("creator_id", "creator_content_type", "creator_full_name", "creator_handle_name", "creator_profile_link")
_READ = {"instance_id", "campaign_id", "platform", "content_type", *_PROFILE, *(metric.column for metric in METRICS)}
# What a report reads of a post: a metric that was not asked for is null.
REPORTED_SCHEMA: pa.Schema = schema_of(column for column in post_columns(METRICS) if column.name in _READ)

# More rows than this are summed before others are added, so that memory does not grow with the days.
_ROWS_AT_ONCE = 500_000

DAILY_KEYS = ("age", "instance_id", "campaign_id")
CONTENT_KEYS = ("span", "instance_id", "campaign_id", "platform", "content_type")
CREATOR_KEYS = ("span", "instance_id", "campaign_id", "creator_id")
PUBLISHED_KEYS = ("span", "instance_id", "campaign_id")
KEYS = frozenset({*DAILY_KEYS, *CONTENT_KEYS, *CREATOR_KEYS, *PUBLISHED_KEYS})


@dataclass(frozen=True, slots=True)
class Profile:
    """A creator on one network: `network` is None where the content type names none that is known."""

    network: str | None
    handle: str | None
    link: str | None


@dataclass(frozen=True, slots=True)
class Creator:
    """A creator as last seen. Names and links are data from the API, and may hold anything."""

    creator_id: int
    name: str | None
    profiles: Sequence[Profile]


@dataclass(frozen=True, slots=True)
class SetAside:
    """Rows of a table in quarantine, of one day and instance where they tell these, for one reason."""

    table: str
    day: date | None
    instance_id: str | None
    reason: str
    rows: int


@dataclass(frozen=True, slots=True)
class Unread:
    """A partition, or a whole day where `instance_id` is None, that lies in the lake and cannot be read."""

    table: str
    day: date
    instance_id: str | None


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """All that a report says, and that it can be narrowed to.

    Attributes:
        as_of: the newest day that has landed; ages count back from it.
        instances: ids of those that are registered or have landed, sorted.
        daily: by `DAILY_KEYS` the impressions recorded on a day.
        by_content: by `CONTENT_KEYS` the counts recorded, and those parts of them that rates are made of.
        by_creator: the same by `CREATOR_KEYS`.
        published: by `PUBLISHED_KEYS` posts published, how many of them report each metric as `reports_{column}`,
            their counts to date, and the bounds of their spend.
        creators: by id; those of `by_creator`.
        landed: table -> instance -> the days that have landed.
        set_aside: what lies in quarantine.
        unread: what cannot be read.
    """

    as_of: date
    instances: Sequence[str]
    daily: pa.Table
    by_content: pa.Table
    by_creator: pa.Table
    published: pa.Table
    creators: Sequence[Creator]
    landed: Mapping[str, Mapping[str, frozenset[date]]]
    set_aside: Sequence[SetAside] = ()
    unread: Sequence[Unread] = ()

    @cached_property
    def first_day(self) -> date:
        """The oldest day that has landed, of those that the report looks at."""
        days = [day for instances in self.landed.values() for days in instances.values() for day in days]
        return min(days, default=self.as_of)

    @property
    def days(self) -> int:
        """How many days there are from the first to the newest."""
        return (self.as_of - self.first_day).days + 1

    @property
    def period(self) -> int:
        """How many days the report opens with."""
        return default_period(self.days)

    @cached_property
    def campaigns(self) -> Sequence[int]:
        """The campaigns that anything was reported of, sorted."""
        tables = (self.daily, self.by_content, self.published)
        return sorted({campaign for table in tables for campaign in table["campaign_id"].unique().to_pylist()})


def days_looked_at(as_of: date, days: Iterable[date]) -> list[date]:
    """Those of `days` that a report as of `as_of` is made from, sorted."""
    return sorted(day for day in set(days) if 0 <= (as_of - day).days < MAXIMUM_DAYS)


class Gathering:
    """Gathers a report's data, a day of a table at a time, in any order.

    Args:
        as_of: the newest day that has landed in either table.
    """

    def __init__(self, as_of: date) -> None:
        self.as_of = as_of
        self._daily = _Sums(DAILY_KEYS, _impressions)
        self._by_content = _Sums(CONTENT_KEYS, _recorded)
        self._by_creator = _Sums(CREATOR_KEYS, _recorded)
        self._published = _Sums(PUBLISHED_KEYS, _published)
        self._seen: dict[tuple[int, str | None], _Sighting] = {}
        self._landed: dict[str, dict[str, set[date]]] = {METRICS_TABLE: {}, PUBLISHED_TABLE: {}}
        self._unread: set[Unread] = set()

    def add(self, table: str, day: date, posts: Mapping[str, pa.Table]) -> None:
        """Adds what has landed of a day: by instance its rows, perhaps none, of `REPORTED_SCHEMA`.

        Raises:
            SumOutOfRange: a sum does not fit its column.
        """
        for instance_id in posts:
            self._landed[table].setdefault(instance_id, set()).add(day)
        rows = pa.concat_tables([REPORTED_SCHEMA.empty_table(), *posts.values()])
        rows = _aged(rows, (self.as_of - day).days)
        if table == PUBLISHED_TABLE:
            self._published.add(rows)
            return
        for sums in (self._daily, self._by_content, self._by_creator):
            sums.add(rows)
        self._see(day, rows)

    def add_unread(self, table: str, day: date, instance_id: str | None) -> None:
        """Adds a partition that cannot be read, or a day none of whose partitions can be found."""
        self._unread.add(Unread(table, day, instance_id))

    def data(self, *, registered: Iterable[str] = (), set_aside: Iterable[SetAside] = ()) -> ReportData:
        """What was gathered.

        Args:
            registered: the instances that are to be there; one that has not landed is missed by name.
            set_aside: what lies in quarantine.

        Raises:
            SumOutOfRange: a sum does not fit its column.
        """
        landed = {
            table: {instance_id: frozenset(days) for instance_id, days in sorted(instances.items())}
            for table, instances in self._landed.items()
        }
        return ReportData(
            as_of=self.as_of,
            instances=sorted({*registered, *(name for instances in landed.values() for name in instances)}),
            daily=self._daily.table(),
            by_content=self._by_content.table(),
            by_creator=self._by_creator.table(),
            published=self._published.table(),
            creators=self._creators(),
            landed=landed,
            set_aside=sorted(set_aside, key=repr),
            unread=sorted(self._unread, key=repr),
        )

    def _see(self, day: date, rows: pa.Table) -> None:
        """Keeps of each creator and content type what the newest day says, whatever the order of days and rows."""
        for row in rows.select(_PROFILE).group_by(list(_PROFILE), use_threads=False).aggregate([]).to_pylist():
            if row["creator_id"] is None:
                continue
            told = tuple(row[name] or "" for name in _PROFILE[2:])
            key = row["creator_id"], row["creator_content_type"]
            self._seen[key] = max(self._seen.get(key, _NEVER_SEEN), (day, told))

    def _creators(self) -> list[Creator]:
        by_creator: dict[int, list[tuple[_Sighting, str | None]]] = {}
        for (creator_id, content_type), sighting in self._seen.items():
            by_creator.setdefault(creator_id, []).append((sighting, platform_of(content_type)))
        creators = []
        for creator_id, sightings in sorted(by_creator.items()):
            sightings.sort(key=lambda seen: (seen[0], seen[1] or ""), reverse=True)
            names = [name for (_, (name, _, _)), _ in sightings if name]
            profiles: dict[str | None, Profile] = {}
            for (_, (_, handle, link)), network in sightings:
                if handle or link:
                    profiles.setdefault(network, Profile(network, handle or None, link or None))
            ordered = sorted(profiles.values(), key=lambda profile: profile.network or "~")
            creators.append(Creator(creator_id, names[0] if names else None, ordered))
        return creators


# A day, and the name, handle and link that were told on it.
_Sighting = tuple[date, tuple[str, ...]]
_NEVER_SEEN: _Sighting = (date.min, ())


def _aged(posts: pa.Table, age: int) -> pa.Table:
    for name, number in (("age", age), ("span", span_of(age))):
        posts = posts.append_column(name, pa.repeat(pa.scalar(number, pa.int64()), posts.num_rows))
    return posts


class _Sums:
    """Sums of `parts` of posts by `keys`, which grow with the groups and not with the posts."""

    def __init__(self, keys: Sequence[str], parts: Callable[[pa.Table], Columns]) -> None:
        self._keys = keys
        self._parts = parts
        self._tables: list[pa.Table] = []
        self._rows = 0
        self.add(_aged(REPORTED_SCHEMA.empty_table(), 0))

    def add(self, posts: pa.Table) -> None:
        """Adds posts, which have the keys too."""
        self._tables.append(pa.table({name: posts[name] for name in self._keys} | self._parts(posts)))
        self._rows += posts.num_rows
        if self._rows > _ROWS_AT_ONCE:
            self._tables = [self.table()]
            self._rows = 0

    def table(self) -> pa.Table:
        """The sums, ordered by the keys, nulls last."""
        rows = pa.concat_tables(self._tables).combine_chunks()
        return grouped_sums(rows, keys=self._keys, counted=()).drop_columns("posts")


def _impressions(posts: pa.Table) -> Columns:
    return {f"{channel}_impressions": posts[OF_CHANNEL[channel]["impressions"]] for channel in COMPARED}


def _recorded(posts: pa.Table) -> Columns:
    """Counts, and the parts of the engagement rates."""
    return _results(posts) | rate_parts(_columns(posts))


def _published(posts: pa.Table) -> Columns:
    """How many report each metric, counts to date, bounds of the spend, and the parts of what a unit cost."""
    parts = _results(posts) | spend_parts(_columns(posts))
    counted = {f"reports_{metric.column}": posts[metric.column] for metric in METRICS}
    counted |= {f"{channel}_spend_posts": parts[f"{channel}_spend_minimum"] for channel in COMPARED}
    counted["published"] = posts["campaign_id"]
    return parts | {name: values.is_valid().cast(pa.int64()) for name, values in counted.items()}


def _results(posts: pa.Table) -> Columns:
    return {f"{channel}_{measure}": posts[OF_CHANNEL[channel][measure]] for channel in COMPARED for measure in RESULTS}


def _columns(posts: pa.Table) -> Columns:
    return dict(zip(posts.column_names, posts.columns, strict=True))
