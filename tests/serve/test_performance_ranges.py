"""Ranges of days by performance date: compared with a slow reference in exact fractions."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pyarrow as pa
import pytest

from later_reporting_dagster.contract import METRICS
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.lake import Lake, Partition, posts_schema
from tests.serve.clients import ALL_METRICS, Row, authenticated, days_query, fetch_rows, row_key, serving

FIRST_DAY = date(2024, 2, 26)
DAYS = [FIRST_DAY + timedelta(days=offset) for offset in range(9)]
INSTANCE_IDS = ("north", "a/b c")
CENT, HALF_A_CENT = Fraction(1, 100), Fraction(1, 200)
COSTS = (("cpe", "engagements", 1), ("cpm", "impressions", 1000))
NAMES = {metric.column: metric.api_name for metric in METRICS}
RATES = ("engagement_rate", "paid_engagement_rate", "cpe", "cpm", "paid_cpe", "paid_cpm")


# A lake with random rows


def metrics_of_channel(random: Random, prefix: str) -> Row:
    """Return the metrics that costs and rates are computed from: known, unknown, zero and contradictory ones."""
    engagements = random.choice((None, 0, 1, random.randrange(500), random.randrange(10**6), 2**54 + 1))
    impressions = random.choice((None, 0, random.randrange(5000), random.randrange(10**8), 2**55 + 3))
    cost = random.choice((0, random.randrange(10**6) / 100, random.randrange(10**4)))
    cpe = round(cost / engagements, 2) if engagements else random.choice((None, 0.25))
    cpm = round(1000 * cost / impressions, 2) if impressions else random.choice((None, 4.0))
    kind = random.randrange(6)
    return {
        f"{prefix}engagements": engagements,
        f"{prefix}impressions": impressions,
        f"{prefix}engagement_rate": random.choice((None, 7.31)),
        f"{prefix}cpe": None if kind in (0, 1) else cpe,
        # In some rows it contradicts the cost per engagement.
        f"{prefix}cpm": None if kind in (0, 2) else cpm + 3 if kind == 3 and cpm is not None else cpm,
    }


def stored_row(random: Random, post: Row, day: date) -> Row:
    """Return the row of a post on a day: its attributes change from day to day."""
    row: Row = {metric.column: None for metric in METRICS}
    for metric in METRICS:
        if metric.kind.is_integer:
            row[metric.column] = random.choice((None, 0, random.randrange(100), 2**53 + random.randrange(99)))
        else:
            row[metric.column] = random.choice((None, 0.0, random.randrange(10**7) / 100))
    channels = metrics_of_channel(random, "") | metrics_of_channel(random, "paid_")
    profile = random.choice((None, f"Zoë on {day}"))
    return {
        **post,
        **row,
        **channels,
        "content_url": random.choice((None, f"https://example.com/{post['post_id']}?on={day}")),
        "content_image_url": random.choice((None, f"https://example.com/{day}.jpg")),
        "creator_id": random.choice((None, day.day)),
        "creator_full_name": profile,
        "extra": random.choice((None, f'{{"labels":["{day}"]}}')),
    }


def random_rows() -> dict[Partition, list[Row]]:
    random = Random(4)
    found: dict[Partition, list[Row]] = {Partition(day, name): [] for day in DAYS for name in INSTANCE_IDS}
    for name in INSTANCE_IDS:
        for number in range(40):
            kind = random.choice(("instagram_reel", "tiktok", "threads_post"))
            post = {
                "instance_id": name,
                "campaign_id": random.choice((7, 8)),
                "post_id": 2**53 + number,
                "content_type": kind,
                "platform": {"instagram_reel": "instagram", "tiktok": "tiktok"}.get(kind),
                "post_date": datetime(2024, 2, 1, 10, 20, 30, 456_000, tzinfo=UTC) + timedelta(hours=number),
            }
            for day in random.sample(DAYS, random.randrange(1, 8)):
                found[Partition(day, name)].append(stored_row(random, post, day))
    return found


@pytest.fixture(scope="module")
def rows() -> dict[Partition, list[Row]]:
    """The stored rows of each partition."""
    return random_rows()


@pytest.fixture(scope="module")
def range_api(rows: dict[Partition, list[Row]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a lake that has these rows."""
    root = tmp_path_factory.mktemp("daily")
    write_rows(root, rows)
    with serving(root) as base_url, authenticated(base_url) as api:
        yield api


def write_rows(root: Path, rows: dict[Partition, list[Row]]) -> None:
    schema = posts_schema(METRICS)
    tables = {partition: pa.Table.from_pylist(of_partition, schema) for partition, of_partition in rows.items()}
    Lake(str(root)).write_all("post_metrics_daily", tables)


# The reference


def total(values: Iterable[Any]) -> Any:
    known = [Fraction(repr(value)) if isinstance(value, float) else value for value in values if value is not None]
    return sum(known) if known else None


def cost_of(row: Row, prefix: str) -> Fraction | None:
    """Return the middle of the bounds of the cost of a row; None if it is unknown or its unit costs contradict."""
    bounds: list[tuple[Fraction, Fraction]] = []
    for cost, measure, per in COSTS:
        unit_cost, units = row[f"{prefix}{cost}"], row[f"{prefix}{measure}"]
        if unit_cost is not None and units:
            each = Fraction(repr(unit_cost))
            least, most = max(each - HALF_A_CENT, Fraction(0)), each + HALF_A_CENT
            bounds.append((least * units / per, most * units / per))
    if not bounds:
        return None
    least, most = max(low for low, _ in bounds), min(high for _, high in bounds)
    return None if least > most else (least + most) / 2


def expected_rates(of_post: Sequence[Row]) -> dict[str, Fraction | None]:
    rates: dict[str, Fraction | None] = {}
    for prefix in ("", "paid_"):
        pairs = [(row[f"{prefix}engagements"], row[f"{prefix}impressions"]) for row in of_post]
        both = [pair for pair in pairs if None not in pair]
        impressions = sum(pair[1] for pair in both)
        engagements = sum(pair[0] for pair in both)
        rates[f"{prefix}engagement_rate"] = Fraction(100 * engagements, impressions) if impressions else None
        for cost, measure, per in COSTS:
            known = [
                (spent, row[f"{prefix}{measure}"])
                for row in of_post
                if (spent := cost_of(row, prefix)) is not None and row[f"{prefix}{measure}"] is not None
            ]
            units = sum(pair[1] for pair in known)
            spent = sum((pair[0] for pair in known), Fraction(0))
            rates[f"{prefix}{cost}"] = per * spent / units if units else None
    return rates


def expected_metrics(of_post: Sequence[Row]) -> dict[str, Any]:
    sums = {
        metric.column: total(row[metric.column] for row in of_post) for metric in METRICS if metric.kind.is_additive
    }
    others = {metric.column: None for metric in METRICS if not metric.kind.is_additive}
    return others | sums | expected_rates(of_post)


def rows_between(rows: dict[Partition, list[Row]], first: date, last: date) -> dict[tuple[str, int, int], list[Row]]:
    """Return the rows of each post in a range of days, oldest first."""
    found = defaultdict(list)
    for partition in sorted(rows):
        if first <= partition.day <= last:
            for row in rows[partition]:
                found[row["instance_id"], row["campaign_id"], row["post_id"]].append(row)
    return dict(found)


def assert_rounded(value: float | None, exact: Fraction | None, *, name: str) -> None:
    """Assert that a value is an exact one rounded to two decimals, within the precision of a double."""
    assert (value is None) == (exact is None), (name, value, exact)
    if value is not None and exact is not None:
        assert round(value, 2) == value, (name, value)
        assert abs(Fraction(value) - exact) <= HALF_A_CENT + Fraction(1, 10**9) * (1 + exact), (name, value, exact)


def assert_metrics_equal(metrics: Row, expected: dict[str, Any]) -> None:
    for metric in METRICS:
        name = metric.api_name
        if name not in metrics:
            continue
        value, exact = metrics[name], expected[metric.column]
        if metric.column in RATES:
            assert_rounded(value, exact, name=name)
        elif exact is None or metric.kind is Kind.COUNT:
            assert value == exact, name
        else:
            assert value == pytest.approx(float(exact), rel=1e-12, abs=1e-9), name


RANGES = [(0, 8), (3, 4), (-3, 2), (4, 300)]


@pytest.mark.parametrize(("start", "end"), RANGES)
@pytest.mark.parametrize("by_cursor", [False, True], ids=["paged", "cursor"])
def test_range_equals_the_reference(
    start: int, end: int, by_cursor: bool, rows: dict[Partition, list[Row]], range_api: httpx.Client
) -> None:
    first, last = FIRST_DAY + timedelta(days=start), FIRST_DAY + timedelta(days=end)
    page: list[tuple[str, object]] = [("limit", 30), ("metrics", ALL_METRICS)] if by_cursor else [("pageSize", 30)]
    found = fetch_rows(range_api, days_query(first, last, ("dateBasis", "performance_date"), *page))
    expected = rows_between(rows, first, last)
    assert sorted(map(row_key, found)) == sorted(expected)
    for row in found:
        of_post = expected[row_key(row)]
        metrics = row.get("metrics", row)
        assert ("reach" in metrics) == by_cursor
        assert_metrics_equal(metrics, expected_metrics(of_post))
        assert_attributes_equal(row, of_post[-1])


def assert_attributes_equal(row: Row, newest: Row) -> None:
    assert row["contentUrl"] == newest["content_url"]
    assert row["contentImageUrl"] == newest["content_image_url"]
    assert row["creatorId"] == newest["creator_id"]
    profile = row["creatorProfile"]
    assert (profile and profile["fullName"]) == newest["creator_full_name"]
    assert row.get("labels") == (newest["extra"] and [newest["extra"][12:22]])
    assert row["postDate"] == newest["post_date"].isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize(
    ("sort_property", "direction"), [("engagements", "DESC"), ("engagementRate", "ASC"), ("paidCpm", "ASC")]
)
def test_range_is_sorted_by_its_sums_with_nulls_last(
    sort_property: str, direction: str, range_api: httpx.Client
) -> None:
    sorting = [("sortProperty", sort_property), ("sortDirection", direction), ("pageSize", 20)]
    found = fetch_rows(range_api, days_query(DAYS[0], DAYS[-1], ("dateBasis", "performance_date"), *sorting))
    values = [row[sort_property] for row in found]
    known = [value for value in values if value is not None]
    assert values == sorted(known, reverse=direction == "DESC") + [None] * (len(values) - len(known))
    assert len(set(known)) > 10


@pytest.mark.parametrize(
    ("filters", "keep"),
    [
        (
            [("instanceIds", "north"), ("campaignIds", 7)],
            lambda row: row["instance_id"] == "north" and row["campaign_id"] == 7,
        ),
        ([("platform", "instagram,tiktok")], lambda row: row["platform"] is not None),
    ],
    ids=["instance and campaign", "platforms"],
)
def test_range_can_be_filtered(
    filters: list[tuple[str, object]], keep: Any, rows: dict[Partition, list[Row]], range_api: httpx.Client
) -> None:
    pairs = days_query(DAYS[0], DAYS[-1], ("dateBasis", "performance_date"), *filters, ("pageSize", 100))
    found = {row_key(row): row for row in fetch_rows(range_api, pairs)}
    expected = {key: of for key, of in rows_between(rows, DAYS[0], DAYS[-1]).items() if keep(of[0])}
    assert found.keys() == expected.keys()
    for key, of_post in expected.items():
        assert_metrics_equal(found[key], expected_metrics(of_post))


def test_values_that_are_all_unknown_or_zero_stay_unknown_or_zero(tmp_path: Path) -> None:
    random = Random(1)
    post = {
        "instance_id": "north", "campaign_id": 7, "content_type": "tiktok", "platform": "tiktok",
        "post_date": datetime(2024, 2, 1, tzinfo=UTC),
    }  # fmt: skip
    partitions: dict[Partition, list[Row]] = {}
    for day in DAYS[:3]:
        unknown, zero = (stored_row(random, {**post, "post_id": number}, day) for number in (1, 2))
        unknown |= {metric.column: None for metric in METRICS}
        zero |= {metric.column: 0 for metric in METRICS}
        partitions[Partition(day, "north")] = [unknown, zero]
    write_rows(tmp_path, partitions)
    pairs = days_query(DAYS[0], DAYS[2], ("dateBasis", "performance_date"), ("metrics", ALL_METRICS))
    with serving(tmp_path) as base_url, authenticated(base_url) as api:
        unknown, zero = sorted(fetch_rows(api, pairs), key=row_key)
    assert {*unknown["metrics"].values()} == {None}
    sums = {metric.api_name for metric in METRICS if metric.kind.is_additive}
    assert zero["metrics"] == {name: 0 if name in sums else None for name in NAMES.values()}
