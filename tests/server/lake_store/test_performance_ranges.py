"""Ranges of days by performance date: compared with a slow reference in exact fractions."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import date, timedelta
from fractions import Fraction
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from later_reporting_dagster.contract import METRICS
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.lake import Lake
from tests.rollups.conftest import row
from tests.rollups.reference import CHANNELS, HALF_A_CENT, UNIT_COSTS, Files, exact, percent, quotient, raw, total
from tests.rollups.worlds import NEWEST, Shape, world_of, write
from tests.server.lake_store.clients import ALL_METRICS, Row, days_query, fetch_rows, row_key, served

DAYS = [NEWEST - timedelta(days=age) for age in range(8, -1, -1)]
# With counts that a float cannot hold, and costs per engagement that contradict those per impression.
SHAPE = Shape(
    days=len(DAYS),
    posts=80,
    instances=("north", "a/b c"),
    largest=2**55 + 3,
    missing=0,
    several=0,
    moved=0,
    contradictory=0.3,
    metrics=METRICS,
    campaign_tables=False,
)
RATES = ("engagement_rate", "paid_engagement_rate", "cpe", "cpm", "paid_cpe", "paid_cpm")


@pytest.fixture(scope="module")
def rows() -> Files:
    """The rows of each file. The attributes of a post change from day to day."""
    random = Random(4)

    def attributes(post_id: int, day: date) -> Row:
        changing = {
            "content_url": f"https://example.com/{post_id}?on={day}",
            "content_image_url": f"https://example.com/{day}.jpg",
            "creator_id": day.day,
            "creator_full_name": f"Zoë on {day}",
            "extra": f'{{"labels":["{day}"]}}',
        }
        return {name: random.choice((None, value)) for name, value in changing.items()}

    content_costs: dict[int, int] = {}

    def unit_costs(post: Row) -> Row:
        """Return what follows from a content cost that seldom changes; of some posts, what the day has anyway."""
        if post["post_id"] % 4 == 0:
            return {}
        if post["post_id"] not in content_costs or random.random() < 0.2:
            content_costs[post["post_id"]] = random.randrange(10**6)
        cost = Fraction(content_costs[post["post_id"]], 100)
        return {
            name: round(float(cost * per / units), 2)
            for name, measure, per in UNIT_COSTS
            if (units := post[measure]) and units > 0 and post[name] is not None
        }

    recorded = sorted(world_of(SHAPE, seed=4).recorded.items())
    return {
        key: [each | attributes(each["post_id"], key[0]) | unit_costs(each) for each in posts]
        for key, posts in recorded
    }


@pytest.fixture(scope="module")
def range_api(rows: Files, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    root = tmp_path_factory.mktemp("daily")
    write(Lake(str(root)), "post_metrics_daily", rows, METRICS, rng=None)
    with served(root) as api:
        yield api


# The reference


def bounds_of(rows: Sequence[Row], channel: str) -> tuple[Fraction, Fraction] | None:
    """Return the bounds of a cost of any size that all rows state; None if it is unknown or they disagree."""
    bounds: list[tuple[Fraction, Fraction]] = []
    for post, (cost, measure, per) in product(rows, UNIT_COSTS):
        unit_cost, units = post[raw(channel, cost)], post[raw(channel, measure)]
        if unit_cost is not None and units and units > 0:
            least, most = max(exact(unit_cost) - HALF_A_CENT, Fraction(0)), exact(unit_cost) + HALF_A_CENT
            bounds.append((least * units / per, most * units / per))
    least, most = max((low for low, _ in bounds), default=None), min((high for _, high in bounds), default=None)
    return None if least is None or most is None or least > most else (least, most)


def content_cost_of(of_post: Sequence[Row]) -> Fraction | None:
    """Return the middle of the bounds that all days share; of those of the newest day if there are none."""
    stated = rows_with_content_cost(of_post)
    return middle(bounds_of(stated, "organic") or bounds_of(stated[-1:], "organic"))


def rows_with_content_cost(of_post: Sequence[Row]) -> list[Row]:
    return [row for row in of_post if bounds_of([row], "organic")]


def middle(bounds: tuple[Fraction, Fraction] | None) -> Fraction | None:
    return bounds and (bounds[0] + bounds[1]) / 2


def scaled(value: Fraction | None, factor: int) -> Fraction | None:
    return None if value is None else value * factor


def expected_metrics(of_post: Sequence[Row]) -> dict[str, Any]:
    """Return the metrics of a post, by column: sums, quotients of sums over the days that report both, and costs."""
    found: dict[str, Any] = {
        each.column: total(row[each.column] for row in of_post) if each.kind.adds_up_over_days else None
        for each in METRICS
    }
    for channel in CHANNELS:
        pairs = [[row[raw(channel, name)] for name in ("engagements", "impressions")] for row in of_post]
        both = [pair for pair in pairs if None not in pair]
        found[raw(channel, "engagement_rate")] = percent(sum(pair[0] for pair in both), sum(pair[1] for pair in both))
    for cost, measure, per in UNIT_COSTS:
        found[cost] = scaled(quotient(content_cost_of(of_post), found[measure]), per)
        pairs = [[middle(bounds_of([row], "paid")), row[f"paid_{measure}"]] for row in of_post]
        both = [pair for pair in pairs if None not in pair]
        found[f"paid_{cost}"] = scaled(quotient(sum(pair[0] for pair in both), sum(pair[1] for pair in both)), per)
    return found


def rows_between(rows: Files, first: date, last: date) -> dict[tuple[str, int, int], list[Row]]:
    """Return the rows of each post in a range of days, oldest first."""
    found = defaultdict(list)
    for (day, _), posts in sorted(rows.items()):
        for each in posts if first <= day <= last else ():
            found[each["instance_id"], each["campaign_id"], each["post_id"]].append(each)
    return dict(found)


def assert_metrics_equal(metrics: Row, expected: dict[str, Any]) -> None:
    for metric in METRICS:
        name = metric.api_name
        if name not in metrics:
            continue
        value, exactly = metrics[name], expected[metric.column]
        if exactly is None or metric.kind is Kind.COUNT:
            assert value == exactly, name
        elif metric.column in RATES:
            # Rounded to two decimals, within the precision of a double.
            assert round(value, 2) == value, name
            assert abs(Fraction(value) - exactly) <= HALF_A_CENT + Fraction(1, 10**9) * (1 + exactly), name
        else:
            assert value == pytest.approx(float(exactly), rel=1e-12, abs=1e-9), name


FILTERS: list[tuple[list[tuple[str, object]], Callable[[Row], bool]]] = [
    ([], lambda row: True),
    ([("campaignIds", 1)], lambda row: row["campaign_id"] == 1),
    (
        [("platform", "instagram,tiktok")],
        lambda row: (row["content_type"] or "").split("_")[0] in ("instagram", "tiktok"),
    ),
    (
        [("instanceIds", "north"), ("campaignIds", 2)],
        lambda row: row["instance_id"] == "north" and row["campaign_id"] == 2,
    ),
]
SORT_PROPERTIES = ("cpe", "engagements", "engagementRate", "paidCpm")


@pytest.mark.parametrize("numbers", [range(40), pytest.param(range(40, 200), marks=pytest.mark.faults)], ids=str)
def test_random_ranges_equal_the_reference(numbers: range, rows: Files, range_api: httpx.Client) -> None:
    unit_costs = shared = 0
    for number in numbers:
        random = Random(number)
        start = random.randrange(-1, len(DAYS) - 1)
        first, last = (DAYS[0] + timedelta(days=each) for each in (start, start + random.choice((*range(1, 9), 300))))
        filters, is_kept = random.choice(FILTERS)
        sort_property, direction = random.choice(SORT_PROPERTIES), random.choice(("ASC", "DESC"))
        sorting = [("sortProperty", sort_property), ("sortDirection", direction)]
        page = [("limit", 30), ("metrics", ALL_METRICS)] if number % 2 else [("pageSize", 30)]
        query = days_query(first, last, ("dateBasis", "performance_date"), *filters, *sorting, *page)
        found = fetch_rows(range_api, query)
        expected = {key: posts for key, posts in rows_between(rows, first, last).items() if is_kept(posts[0])}
        assert sorted(map(row_key, found)) == sorted(expected)
        for post in found:
            key, metrics = row_key(post), post.get("metrics", post)
            assert ("reach" in metrics) == number % 2
            assert_metrics_equal(metrics, expected_metrics(expected[key]))
            assert_attributes_equal(post, expected[key][-1])
            stated = rows_with_content_cost(expected[key])
            if metrics["cpe"] is not None and len(stated) > 1:
                unit_costs += 1
                shared += bounds_of(stated, "organic") is not None
        values = [post.get("metrics", post)[sort_property] for post in found]
        known = [value for value in values if value is not None]
        assert values == sorted(known, reverse=direction == "DESC") + [None] * (len(values) - len(known))
    # Both ways to find the cost are tested.
    assert unit_costs / 4 < shared < 3 * unit_costs / 4


def assert_attributes_equal(found: Row, newest: Row) -> None:
    assert found["contentUrl"] == newest["content_url"]
    assert found["contentImageUrl"] == newest["content_image_url"]
    assert found["creatorId"] == newest["creator_id"]
    profile = found["creatorProfile"]
    assert (profile and profile["fullName"]) == newest["creator_full_name"]
    assert found.get("labels") == (newest["extra"] and [newest["extra"][12:22]])
    assert found["postDate"] == newest["post_date"].isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_values_that_are_all_unknown_or_zero_stay_unknown_or_zero(tmp_path: Path) -> None:
    posts = [
        row(post_id=number, **{metric.column: value for metric in METRICS}) for number, value in enumerate((None, 0))
    ]
    write(Lake(str(tmp_path)), "post_metrics_daily", {(day, "a"): posts for day in DAYS[:3]}, METRICS, rng=None)
    pairs = days_query(DAYS[0], DAYS[2], ("dateBasis", "performance_date"), ("metrics", ALL_METRICS))
    with served(tmp_path) as api:
        unknown, zero = sorted(fetch_rows(api, pairs), key=row_key)
    assert {*unknown["metrics"].values()} == {None}
    assert zero["metrics"] == {each.api_name: 0 if each.kind.adds_up_over_days else None for each in METRICS}
