"""Worlds of posts: made at random, written to a lake, rolled up there, and compared with the reference."""

import math
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from fractions import Fraction
from typing import Any

import pyarrow as pa

from later_reporting_dagster.contract import DOCUMENT_METRICS, DateBasis, Metric
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.lake import Lake, LakeDatabase, Partition, Table, open_database, post_columns, posts_schema
from later_reporting_dagster.rollups.reconciliation import check_days, check_windows
from later_reporting_dagster.rollups.rollup_tables import BY_DAY, BY_WINDOW, OVER_DAYS, TABLES
from later_reporting_dagster.rollups.sql_engine import RAW, LandedDays, roll_up_days, roll_up_windows
from tests.rollups.conftest import Row, row
from tests.rollups.reference import UNIT_COSTS, End, World, by_publish_day, by_window, daily, monthly, weekly

NEWEST = date(2024, 3, 6)


@contextmanager
def opened(world: World, *, files: random.Random | None = None, **options: Any) -> Iterator[tuple[LakeDatabase, Any]]:
    """Write a world to a lake and open it: the database with both views, and the days that landed."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(folder)
        landed: dict[DateBasis, dict[str, set[date]]] = {}
        for basis, of_basis in (("performance_date", world.recorded), ("post_date", world.published)):
            write(lake, RAW[DateBasis(basis)], of_basis, world.metrics, chance=files)
            days = landed.setdefault(DateBasis(basis), {})
            for day, instance_id in of_basis:
                days.setdefault(instance_id, set()).add(day)
        with open_database(lake, spill_directory=folder, **options) as database:
            for name in RAW.values():
                database.add_view(Table(name, post_columns(world.metrics)))
            yield database, landed


def write(lake: Lake, table: str, files: Any, metrics: Sequence[Metric], *, chance: random.Random | None) -> None:
    """Write a raw table's files, their rows in any order where there is `chance`."""
    written = {}
    for (day, instance_id), rows in files.items():
        rows = chance.sample(rows, len(rows)) if chance else rows
        written[Partition(day, instance_id)] = pa.Table.from_pylist(rows, posts_schema(tuple(metrics)))
    order = [*written]
    if chance:
        chance.shuffle(order)
    lake.write_all(table, {partition: written[partition] for partition in order})


def roll_up(
    database: LakeDatabase, landed: LandedDays, metrics: Sequence[Metric], *, one_by_one: bool = False
) -> dict[str, pa.Table]:
    """Roll up every table, by name, and reconcile each with the raw rows; windows of the instances one by one."""
    connection, found = database.connection, {}
    for table in (each.of(metrics) for each in (*BY_DAY, *OVER_DAYS)):
        found[table.name] = roll_up_days(connection, table, landed)
        connection.register("rolled_up", found[table.name])
        assert not [day.differences for day in check_days(connection, table).values() if day.differences]
    tables = [table.of(metrics) for table in BY_WINDOW]
    batches = _instances(database, landed) if one_by_one else (None,)
    made = roll_up_windows(connection, tables, landed, batches=batches)
    assert not any(check_windows(connection, made, tables=tables, landed=landed).differences.values())
    return found | dict(made.tables)


def _instances(database: LakeDatabase, landed: LandedDays) -> Iterator[None]:
    for instance_id in sorted({name for of_basis in landed.values() for name in of_basis}):
        for name in RAW.values():
            database.narrow_view(name, [instance_id])
        yield
    for name in RAW.values():
        database.narrow_view(name, None)


def rolled_up(world: World, *, one_by_one: bool = False, **options: Any) -> dict[str, pa.Table]:
    with opened(world, **options) as (database, landed):
        return roll_up(database, landed, world.metrics, one_by_one=one_by_one)


def expected(world: World) -> dict[str, list[Row]]:
    """All tables as the reference computes them, by name."""
    days = {"daily": daily, "by_publish_day": by_publish_day, "weekly": weekly, "monthly": monthly}
    found = {f"organic_paid_{name}": table(world) for name, table in days.items()}
    windows = ("by_campaign", "by_creator", "by_platform")
    return found | {f"organic_paid_{name}": by_window(world, name) for name in windows}


def differences(found: Mapping[str, pa.Table], world: World) -> list[str]:
    """Compare every cell of the tables that were found with the reference: one line a cell that differs."""
    lines = []
    for name, rows in expected(world).items():
        if (table := found.get(name)) is None:
            continue
        wanted = {column.name for column in _columns(name, world)} | ({"first_day"} if "by_" not in name else set())
        lines += [f"{name}: {len(rows)} rows expected, {table.num_rows} found"] if len(rows) != table.num_rows else []
        for place, (mine, theirs) in enumerate(zip(rows, table.to_pylist(), strict=False)):
            if mine.keys() != theirs.keys():
                lines.append(f"{name}: the columns {sorted(mine.keys() ^ theirs.keys())} are in one only")
            assert wanted <= theirs.keys()
            lines += [
                f"{name}[{place}].{column}: {_shown(mine[column])} expected, {theirs[column]} found"
                for column in mine.keys() & theirs.keys()
                if not agree(mine[column], theirs[column], column)
            ]
    return lines


def _columns(name: str, world: World) -> Any:
    (table,) = (table for table in TABLES if table.name == name)
    return table.of(world.metrics).columns


def _shown(value: Any) -> Any:
    return float(value) if isinstance(value, Fraction) else value


def agree(mine: Any, theirs: Any, column: str) -> bool:
    """Whether a cell is what the reference has: counts exactly, decimals to 9 digits, intervals to 0.05 % of them."""
    if mine is None or theirs is None or isinstance(mine, str | date):
        return bool(mine == theirs)
    if isinstance(mine, End):
        log_width = abs(math.log(mine.value / mine.lift))
        return abs(math.log(theirs / mine.value)) <= 5e-4 * log_width + 1e-9 if theirs else mine.value < 1e-300
    if isinstance(theirs, int):
        return bool(mine == theirs)
    # What a post adds to the same-post lift is known to the 18th decimal.
    relative = 2e-6 if column.startswith("same_post") else 1e-9
    return math.isclose(float(mine), theirs, rel_tol=relative, abs_tol=1e-9)


@dataclass(frozen=True)
class Shape:
    """What a random world is like; chances are between 0 and 1."""

    days: int = 20
    apart: int = 1  # days from one that landed to the next, at most
    posts: int = 12
    instances: tuple[str, ...] = ("a", "007")
    largest: int = 50_000
    nulls: float = 0.2
    missing: float = 0.1
    several: float = 0.3
    moved: float = 0.2
    one_sided: float = 0.2
    contradictory: float = 0.1
    creators: int = 4
    recorded_lags: int = 0
    metrics: tuple[Metric, ...] = DOCUMENT_METRICS


def world_of(shape: Shape, seed: int) -> World:
    """Make a world at random: posts in several campaigns, moved, of one channel, with nulls and days missing."""
    return _Made(shape, random.Random(seed)).world()


class _Made:
    def __init__(self, shape: Shape, chance: random.Random) -> None:
        self.shape, self.chance = shape, chance
        days, day = [], NEWEST
        for _ in range(shape.days):
            days.append(day)
            day -= timedelta(days=chance.randint(1, shape.apart))
        self.days = sorted(days)
        self.recorded: dict[tuple[date, str], list[Row]] = {}
        self.published: dict[tuple[date, str], list[Row]] = {}

    def world(self) -> World:
        shape = self.shape
        until = len(self.days) - shape.recorded_lags
        for instance_id in shape.instances:
            for number, day in enumerate(self.days):
                if number < until and not self.is_so(shape.missing):
                    self.recorded[day, instance_id] = []
                if number < len(self.days) + min(0, shape.recorded_lags) and not self.is_so(shape.missing):
                    self.published[day, instance_id] = []
        for post_id in range(shape.posts):
            self.add_post(post_id)
        return World(self.recorded, self.published, shape.metrics)

    def is_so(self, chance: float) -> bool:
        return self.chance.random() < chance

    def add_post(self, post_id: int) -> None:
        chance, shape = self.chance, self.shape
        day = chance.choice(self.days)
        creator = chance.choice([None, *range(1, shape.creators + 1)])
        identity = {
            "instance_id": chance.choice(shape.instances),
            "post_id": post_id + 1,
            "post_date": datetime.combine(day, time(chance.randint(0, 23)), UTC),
            "creator_id": creator,
            **self.traits(),
        }
        campaigns = chance.sample([1, 2, 3], 2 if self.is_so(shape.several) else 1)
        sides = [chance.choice(["", "paid_"])] if self.is_so(shape.one_sided) else ["", "paid_"]
        self.add(self.published, day, identity, campaigns, sides)
        for later in self.days:
            if later < day or self.is_so(0.2):
                continue
            if self.is_so(shape.moved):
                identity |= self.traits() | {"creator_id": chance.choice([None, creator, 1])}
                campaigns = [chance.choice([1, 2, 3])]
            self.add(self.recorded, later, identity, campaigns, sides)

    def traits(self) -> Row:
        chance = self.chance
        return {
            "platform": chance.choice([None, "tiktok", "instagram"]),
            "content_type": chance.choice([None, "", "reel"]),
            "creator_handle_name": chance.choice([None, "x", "y"]),
            "creator_full_name": f"name {chance.randint(1, 99)}",
        }

    def add(self, files: Any, day: date, identity: Row, campaigns: Sequence[int], sides: Sequence[str]) -> None:
        if (day, identity["instance_id"]) in files:
            metrics = self.measured(sides)
            for campaign_id in campaigns:
                differing = self.measured(sides) if self.is_so(0.1) else metrics
                of_row = row(**identity, campaign_id=campaign_id, **differing)
                files[day, identity["instance_id"]].append(of_row)

    def measured(self, sides: Sequence[str]) -> Row:
        values: Row = {}
        for metric in self.shape.metrics:
            side = "paid_" if metric.channel == "paid" else ""
            values[metric.column] = self.value(metric) if side in sides and not self.is_so(self.shape.nulls) else None
        for side in sides:
            if not self.is_so(self.shape.contradictory):
                self.agree_on_cost(values, side)
        return values

    def value(self, metric: Metric) -> int | float:
        if not metric.kind.is_whole:
            cents = self.chance.randint(-2 if metric.kind is Kind.RATE else 0, 9_999)
            return cents / 100
        if self.is_so(0.1):
            return 0
        return self.chance.randint(0, self.chance.choice([3, self.shape.largest]))

    def agree_on_cost(self, values: Row, side: str) -> None:
        """One cost behind both unit costs, each rounded to two decimals, as the API has them."""
        cost = self.chance.randint(0, 100_000) / 100
        for unit_cost, measure, per in UNIT_COSTS:
            units = values[f"{side}{measure}"]
            if units and values[f"{side}{unit_cost}"] is not None:
                values[f"{side}{unit_cost}"] = round(cost * per / units, 2)
