"""Random worlds of posts: write them to a lake, roll them up, and compare the rollups with the reference."""

import json
import math
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from typing import Any

import pyarrow as pa

from later_reporting_dagster.contract import CAMPAIGN_METRICS, DEFAULT_METRICS, METRICS, Metric
from later_reporting_dagster.contract.instances import NO_MARKS
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.lake import (
    CAMPAIGN_COLUMNS,
    CAMPAIGNS_TABLE,
    Lake,
    Partition,
    Table,
    post_columns,
    posts_schema,
    schema_of,
)
from later_reporting_dagster.lake.database import LakeDatabase, open_database
from later_reporting_dagster.lake.tables import (
    CAMPAIGN_PERFORMANCE,
    CAMPAIGN_PERIODS,
    CAMPAIGN_PERIODS_TABLE,
    POSTS_NAMES,
    WINDOWS,
)
from later_reporting_dagster.rollups.lake_rollups import campaign_relations
from later_reporting_dagster.rollups.rollup_tables import PERIOD_TABLES, SINGLE_TABLES, TABLES
from later_reporting_dagster.rollups.sql_engine import register_requested_at, register_stored_files
from later_reporting_dagster.rollups.sql_engine import roll_up as roll_up_tables
from tests.rollups import reference
from tests.rollups.conftest import Row, row
from tests.rollups.reference import OVER_TIME, OVER_WINDOWS, UNIT_COSTS, World

NEWEST = date(2024, 3, 6)


@contextmanager
def open_world(
    world: World, *, files: random.Random | None = None, threads: int | None = None, **options: Any
) -> Iterator[LakeDatabase]:
    """Write a world to a lake. Yield a database with what the rollups are made from.

    `files` shuffles the rows and the order in which files are written.
    """
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        for name, table_files in (("post_metrics_daily", world.recorded), ("posts_published", world.published)):
            write(lake, name, table_files, metrics_of(world), rng=files)
        write_campaigns(lake, world, rng=files)
        with open_database(lake, spill_directory=folder, **options) as database:
            if threads:
                database.connection.execute(f"SET threads = {threads}")
            schema = CAMPAIGN_PERIODS.schema
            periods = lake.read_table(CAMPAIGN_PERIODS_TABLE, schema=schema) or schema.empty_table()
            rows = [(row["campaign_id"], row["extra"]) for row in periods.to_pylist()]
            relations, _ = campaign_relations(lake, rows, marks=NO_MARKS, database=database)
            tables = [
                *(Table(name, post_columns(metrics_of(world))) for name in POSTS_NAMES),
                CAMPAIGN_PERFORMANCE.table,
            ]
            register_requested_at(database)
            register_stored_files(database.connection, {table.name: database.add_view(table) for table in tables})
            for name, rows in (relations | {CAMPAIGN_PERIODS_TABLE: periods}).items():
                database.connection.register(name, rows)
            yield database


def write_campaigns(lake: Lake, world: World, *, rng: random.Random | None) -> None:
    """Write the tables of campaigns, if the world has them. `rng` shuffles the files and their rows."""
    if world.campaigns:
        schema = schema_of(CAMPAIGN_COLUMNS)
        lake.write_table(CAMPAIGNS_TABLE, pa.Table.from_pylist(shuffled(world.campaigns, rng), schema))
    schema = CAMPAIGN_PERFORMANCE.table.schema
    written = {
        Partition(day): pa.Table.from_pylist(shuffled(rows, rng), schema) for day, rows in world.performance.items()
    }
    lake.write_all(CAMPAIGN_PERFORMANCE.name, {day: written[day] for day in shuffled([*written], rng)})
    if world.periods:
        schema = CAMPAIGN_PERIODS.schema
        lake.write_table(CAMPAIGN_PERIODS_TABLE, pa.Table.from_pylist(shuffled(world.periods, rng), schema))


def shuffled(items: Sequence[Any], rng: random.Random | None) -> list[Any]:
    """Return the items in another order; in the same order without `rng`."""
    return rng.sample(items, len(items)) if rng else [*items]


def write(lake: Lake, table: str, files: Any, metrics: Sequence[Metric], *, rng: random.Random | None) -> None:
    """Write the files of a raw table. `rng` shuffles the files and their rows."""
    schema = posts_schema(tuple(metrics))
    for key in shuffled([*files], rng):
        rows = pa.Table.from_pylist(shuffled(files[key], rng), schema)
        lake.write(table, Partition(*key), rows, metadata={"fetched_at": reference.requested_at(*key).isoformat()})


def roll_up(database: LakeDatabase, metrics: Sequence[Metric]) -> dict[str, pa.Table]:
    """Return the rows of every rollup table, by name."""
    tables = [table.with_metrics(metrics) for table in SINGLE_TABLES]
    found = roll_up_tables(database.connection, tables)
    for table in (each.with_metrics(metrics) for each in PERIOD_TABLES):
        found |= roll_up_tables(database.connection, [table])
    return found


def rolled_up(world: World, **options: Any) -> dict[str, pa.Table]:
    """Return the rows of every rollup table, by name. `options` are passed to `open_world`."""
    with open_world(world, **options) as database:
        return roll_up(database, metrics_of(world))


def metrics_of(world: World) -> tuple[Metric, ...]:
    """Return the metrics that a world requests; the ones of the API reference are always among them."""
    return tuple(metric for metric in METRICS if metric in DEFAULT_METRICS or metric.column in world.metrics)


# By the name of a table, the function that returns its rows, from the reference.
REFERENCES: Mapping[str, Callable[[World], Iterable[Row]]] = {
    **{name: partial(reference.over_time, table=name) for name in OVER_TIME},
    **{name: partial(reference.over_windows, table=name) for name in OVER_WINDOWS},
    "posts": reference.posts,
    "organic_by_age": reference.by_age,
    "campaign_results": reference.campaign_results,
    "campaigns_monthly": reference.campaigns_monthly,
}


def differences(found: Mapping[str, pa.Table], world: World) -> list[str]:
    """Return one line for each value that differs from the reference. Other tables than rollups are not compared."""
    lines, declared_tables = [], {table.name: table for table in TABLES}
    for name, table in found.items():
        if (declared := declared_tables.get(name)) is None:
            continue
        rows = [*REFERENCES[name](world)]
        wanted = {column.name for column in declared.with_metrics(metrics_of(world)).columns}
        lines += [f"{name}: {len(rows)} rows expected, {table.num_rows} found"] if len(rows) != table.num_rows else []
        for place, (mine, theirs) in enumerate(zip(rows, table.to_pylist(), strict=False)):
            if mine.keys() != theirs.keys():
                lines.append(f"{name}: the columns {sorted(mine.keys() ^ theirs.keys())} are in one only")
            assert wanted <= theirs.keys()
            lines += [
                f"{name}[{place}].{column}: {mine[column]} expected, {theirs[column]} found"
                for column in mine.keys() & theirs.keys()
                if not agree(mine[column], theirs[column], column)
            ]
    return lines


def agree(mine: Any, theirs: Any, column: str) -> bool:
    """Return whether a value equals the reference: counts exactly, decimals to 9 digits."""
    if mine is None or theirs is None or isinstance(mine, str | date | list):
        return bool(mine == theirs)
    if isinstance(theirs, int):
        return bool(mine == theirs)
    # The terms of the same-post rate ratio are rounded to 18 decimals.
    relative = 2e-6 if column.startswith("same_post") else 1e-9
    return math.isclose(float(mine), theirs, rel_tol=relative, abs_tol=1e-9)


@dataclass(frozen=True)
class Shape:
    """Parameters of a random world.

    Attributes:
        maximum_gap: maximum number of days from one stored day to the next.
        largest: maximum of a count.
        nulls: probability that a metric is null.
        missing: probability that a file is missing.
        several: probability that a post is in two campaigns.
        moved: probability, per day, that a post changes its campaign and attributes.
        one_sided: probability that a post has metrics of one channel only.
        contradictory: probability that CPE and CPM are of different costs.
        corrected: probability that the counts of a post on a day are negative, because they correct an earlier day.
        recorded_lags: number of days that post_metrics_daily ends before posts_published; negative: after it.
    """

    days: int = 20
    maximum_gap: int = 1
    posts: int = 12
    instances: tuple[str, ...] = ("a", "007")
    largest: int = 50_000
    nulls: float = 0.2
    missing: float = 0.1
    several: float = 0.3
    moved: float = 0.2
    one_sided: float = 0.2
    contradictory: float = 0.1
    corrected: float = 0
    creators: int = 4
    recorded_lags: int = 0
    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    campaign_tables: bool = True


def world_of(shape: Shape, seed: int) -> World:
    return _WorldBuilder(shape, random.Random(seed)).world()


class _WorldBuilder:
    def __init__(self, shape: Shape, rng: random.Random) -> None:
        self.shape, self.rng = shape, rng
        days, day = [], NEWEST
        for _ in range(shape.days):
            days.append(day)
            day -= timedelta(days=rng.randint(1, shape.maximum_gap))
        self.days = sorted(days)
        self.recorded: dict[tuple[date, str], list[Row]] = {}
        self.published: dict[tuple[date, str], list[Row]] = {}
        self.posts = Counter[str]()

    def world(self) -> World:
        shape = self.shape
        until = len(self.days) - shape.recorded_lags
        for instance_id in shape.instances:
            for number, day in enumerate(self.days):
                if number < until and not self.happens(shape.missing):
                    self.recorded[day, instance_id] = []
                if number < len(self.days) + min(0, shape.recorded_lags) and not self.happens(shape.missing):
                    self.published[day, instance_id] = []
        for _ in range(shape.posts):
            self.add_post()
        world = World(self.recorded, self.published, [metric.column for metric in shape.metrics])
        return self.with_campaigns(world) if shape.campaign_tables else world

    def with_campaigns(self, world: World) -> World:
        """Return the world with tables of campaigns: some of those of the posts, and one that has no posts.

        As in the posts, some campaign ids belong to several instances.
        """
        rng, names = self.rng, ["Spring", "", None, "<b>"]
        ids = [1, 2, 4, *(10 + number for number in range(len(self.shape.instances)))]
        # What the API says with a period, if anything.
        own = {each: rng.choice([None, json.dumps({"instanceId": rng.choice(self.shape.instances)})]) for each in ids}
        began = [
            None,
            *(datetime.combine(NEWEST, time(23), UTC) - timedelta(days=age) for age in (-1, 0, 3, 30, 700, 800)),
        ]
        known = [
            campaign(
                campaign_id=each,
                instance_id=instance_id,
                campaign_name=rng.choice(names),
                status=rng.choice(names),
                start_date=rng.choice(began),
                first_post_date=rng.choice(began),
            )
            for each in ids
            for number, instance_id in enumerate(self.shape.instances)
            if self.happens(0.05 if each >= 10 and each != 10 + number else 0.6)
        ]
        return replace(
            world,
            campaigns=known,
            performance={
                day: [random_performance(rng, each, nulls=self.shape.nulls) for each in ids if not self.happens(0.3)]
                for day in self.days
                if not self.happens(self.shape.missing)
            },
            periods=[
                of_period | random_performance(rng, each, nulls=self.shape.nulls) | {"extra": own[each]}
                for of_period in (
                    *(
                        period(name, last_day=rng.choice([NEWEST, NEWEST - timedelta(days=1)]))
                        for name in (*WINDOWS, "previous_7d")
                    ),
                    *(
                        month(first_day, is_recorded=is_recorded)
                        for first_day in sorted({day.replace(day=1) for day in self.days})
                        for is_recorded in (True, False)
                    ),
                )
                for each in ids
                if not self.happens(0.3)
            ],
        )

    def happens(self, probability: float) -> bool:
        return self.rng.random() < probability

    def add_post(self) -> None:
        rng, shape = self.rng, self.shape
        day = rng.choice(self.days)
        creator = rng.choice([None, *range(1, shape.creators + 1)])
        instance_id = rng.choice(shape.instances)
        self.posts[instance_id] += 1
        identity = {
            "instance_id": instance_id,
            # Posts of other instances have the same ids.
            "post_id": self.posts[instance_id],
            "post_date": datetime.combine(day, time(rng.randint(0, 23)), UTC),
            "creator_id": creator,
            **self.attributes(),
        }
        campaigns = rng.sample(self.campaign_ids(instance_id), 2 if self.happens(shape.several) else 1)
        sides = [rng.choice(["", "paid_"])] if self.happens(shape.one_sided) else ["", "paid_"]
        self.add(self.published, day, identity, campaigns, sides)
        for later in self.days:
            if later < day or self.happens(0.2):
                continue
            if self.happens(shape.moved):
                identity |= self.attributes() | {"creator_id": rng.choice([None, creator, 1])}
                campaigns = [rng.choice(self.campaign_ids(instance_id))]
            self.add(self.recorded, later, identity, campaigns, sides)

    def campaign_ids(self, instance_id: str) -> list[int]:
        """Return the ids of an instance's campaigns: two that all instances have, and one of its own."""
        return [1, 2, 10 + self.shape.instances.index(instance_id)]

    def attributes(self) -> Row:
        rng = self.rng
        return {
            "platform": rng.choice([None, "tiktok", "instagram"]),
            "content_type": rng.choice([None, "", "reel"]),
            "creator_handle_name": rng.choice([None, "x", "y"]),
            "creator_full_name": f"name {rng.randint(1, 99)}",
        }

    def add(self, files: Any, day: date, identity: Row, campaigns: Sequence[int], sides: Sequence[str]) -> None:
        if (day, identity["instance_id"]) in files:
            metrics = self.measured(sides)
            if files is self.recorded and self.happens(self.shape.corrected):
                counts = {metric.column for metric in self.shape.metrics if metric.kind.is_integer}
                metrics = {name: -value if value and name in counts else value for name, value in metrics.items()}
            for campaign_id in campaigns:
                differing = self.measured(sides) if self.happens(0.1) else metrics
                of_row = row(**identity, campaign_id=campaign_id, **differing)
                files[day, identity["instance_id"]].append(of_row)

    def measured(self, sides: Sequence[str]) -> Row:
        values: Row = {}
        for metric in self.shape.metrics:
            side = "paid_" if metric.channel == "paid" else ""
            values[metric.column] = self.value(metric) if side in sides and not self.happens(self.shape.nulls) else None
        for side in sides:
            if not self.happens(self.shape.contradictory):
                self.agree_on_cost(values, side)
        return values

    def value(self, metric: Metric) -> int | float:
        if not metric.kind.is_integer:
            cents = self.rng.randint(-2 if metric.kind is Kind.RATE else 0, 9_999)
            return cents / 100
        if self.happens(0.1):
            return 0
        return self.rng.randint(0, self.rng.choice([3, self.shape.largest]))

    def agree_on_cost(self, values: Row, side: str) -> None:
        """Derive both unit costs from one cost, rounded to two decimals as the API does."""
        cost = self.rng.randint(0, 100_000) / 100
        for unit_cost, measure, per in UNIT_COSTS:
            units = values[f"{side}{measure}"]
            if units and values[f"{side}{unit_cost}"] is not None:
                values[f"{side}{unit_cost}"] = round(cost * per / units, 2)


CAMPAIGN_PERFORMANCE_COLUMNS = tuple(column.name for column in CAMPAIGN_PERFORMANCE.table.columns)


def campaign(**fields: Any) -> Row:
    """Return a row of campaigns. By default, it is campaign 1 of instance a."""
    blank: Row = dict.fromkeys(column.name for column in CAMPAIGN_COLUMNS)
    seen = {"first_seen": NEWEST, "last_seen": NEWEST, "listed_now": True}
    return blank | seen | {"instance_id": "a", "campaign_id": 1, "campaign_name": "Spring", "status": "live"} | fields


def performance(**fields: Any) -> Row:
    """Return a row of campaign_performance_daily. By default, it is of campaign 1, and has no metrics."""
    return dict.fromkeys(CAMPAIGN_PERFORMANCE_COLUMNS) | {"campaign_id": 1} | fields


def period(name: str, *, last_day: date = NEWEST, **fields: Any) -> Row:
    """Return a row of campaign_performance_periods of a window. By default, it is of campaign 1, without metrics."""
    first_day = last_day - timedelta(days=WINDOWS.get(name, 7) - 1)
    days = {"period": name, "first_day": first_day, "last_day": last_day}
    of_row = {"date_basis": "performance_date", "fetched_at": datetime.combine(NEWEST, time(6), UTC)}
    return performance() | of_row | days | fields


def month(first_day: date, *, is_recorded: bool, **fields: Any) -> Row:
    """Return a row of campaign_performance_periods: what was recorded in a month, or the posts published in it."""
    last_day = min(NEWEST, (first_day + timedelta(days=31)).replace(day=1) - timedelta(days=1))
    kind = ("performance_date", "recorded_month") if is_recorded else ("post_date", "published_month")
    of_row = {"date_basis": kind[0], "period": kind[1], "first_day": first_day, "last_day": last_day}
    return period("7d") | of_row | fields


def random_performance(rng: random.Random, campaign_id: int, *, nulls: float) -> Row:
    """Return a row of campaign_performance_daily in which each metric is null with a probability, and often 0."""
    values: Row = {}
    for metric in CAMPAIGN_METRICS:
        value = rng.choice([0, rng.randint(0, 5), rng.randint(0, 2**33)])
        values[metric.column] = value if metric.kind.is_integer else rng.randint(0, 9_999_999) / 100 * min(value, 1)
    return performance(campaign_id=campaign_id, **{n: None if rng.random() < nulls else v for n, v in values.items()})
