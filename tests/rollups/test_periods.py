"""Weeks, months and windows: every number against the slow reference, and what a post on many days must not do."""

import random
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from later_reporting_dagster.contract import DOCUMENT_METRICS, DateBasis
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.lake import schema_of
from later_reporting_dagster.rollups.periods import Landed, numbered, organic_paid, organic_paid_by, rows_schema
from later_reporting_dagster.rollups.reconciliation import totals_that_differ, window_totals_that_differ
from later_reporting_dagster.rollups.sums import SumOutOfRange
from later_reporting_dagster.rollups.tables import BY_CAMPAIGN, BY_CREATOR, BY_WINDOW, WEEKLY, RolledUp
from tests.rollups.conftest import COUNTS, MONEY, Row, row
from tests.rollups.reference import POST_KEY, close_to, groups_of, key_of, labels, over_days, windows

# All windows of all tables are computed in each example.
a_few = settings(max_examples=30)

NAMES = {column.name for column in BY_CAMPAIGN.columns}
CHANGING = {name for name in NAMES if f"{name}_change" in NAMES}

OVER_DAYS_SCHEMA = schema_of(WEEKLY.columns)

PERFORMANCE, POST = DateBasis.PERFORMANCE_DATE, DateBasis.POST_DATE
LAST = date(2024, 3, 31)
AGES = st.integers(0, 16) | st.integers(0, 400)  # days before the last one; windows end at 7, 14, 28, 56, …

# A post has one creator and one content type; now and then it is told otherwise on another day.
IDENTITIES = st.fixed_dictionaries(
    {
        "instance_id": st.sampled_from(["a", "007"]),
        "campaign_id": st.integers(1, 2),
        "post_id": st.integers(1, 3),
        "creator_id": st.none() | st.integers(1, 2),
        "platform": st.sampled_from([None, "tiktok"]),
        "content_type": st.sampled_from([None, "", "tiktok"]),
        "creator_handle_name": st.sampled_from([None, "ada", "<b>&"]),
        "creator_full_name": st.sampled_from([None, "Ada"]),
    }
)
METRIC_VALUES = st.fixed_dictionaries(
    {metric.column: COUNTS if metric.kind is Kind.COUNT else MONEY for metric in DOCUMENT_METRICS}
)
ROWS = st.lists(
    st.tuples(IDENTITIES, METRIC_VALUES, AGES).map(
        lambda drawn: row(
            **drawn[0],
            **drawn[1],
            date=LAST - timedelta(days=drawn[2]),
            post_date=datetime(2023, 1, 1 + drawn[0]["post_id"], tzinfo=UTC),
        )
    ),
    max_size=12,
    unique_by=lambda row: (row["instance_id"], row["campaign_id"], row["post_id"], row["date"]),
)


def table_of(rows: Sequence[Row], *, dated: bool = True) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=rows_schema(*BY_WINDOW, dated=dated))


def landed_of(rows: Sequence[Row], days: dict[str, set[date]] | None = None) -> Landed:
    """Rows and, unless told otherwise, the days that they are of and no others."""
    there: dict[str, set[date]] = {"a": set(), "007": set()}
    for each in rows:
        there[each["instance_id"]].add(each["date"])
    return Landed(table_of(sorted(rows, key=lambda each: each["date"])), days or there)


def assert_same(table: pa.Table, expected: list[Row], names: Sequence[str]) -> None:
    found = table.select(list(names)).to_pylist()
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one == {name: close_to(other[name]) for name in names}


def published_once(rows: Sequence[Row]) -> list[Row]:
    """The rows as posts by the day on which they were published, of which there is one."""
    return [of_post[0] for of_post in groups_of(rows, POST_KEY).values()]


@given(ROWS)
def test_weeks_and_months_are_what_the_plain_reference_says(rows: list[Row]) -> None:
    table = organic_paid(table_of(rows, dated=False).select(rows_schema(WEEKLY).names), WEEKLY)
    assert table.schema.equals(OVER_DAYS_SCHEMA, check_metadata=True)
    table.validate(full=True)
    assert_same(table, over_days(rows), table.column_names)
    assert totals_that_differ(table_of(rows), table, once=[*POST_KEY, "platform", "content_type"]) == []


@a_few
@given(ROWS, ROWS, st.sets(AGES, max_size=3))
def test_windows_are_what_the_plain_reference_says(recorded: list[Row], posts: list[Row], quiet: set[int]) -> None:
    landed = {PERFORMANCE: landed_of(recorded), POST: landed_of(published_once(posts))}
    for found in landed.values():
        found.days["a"] |= {LAST - timedelta(days=age) for age in quiet}  # days without posts are there, too
    by_hand = {
        str(PERFORMANCE): (recorded, landed[PERFORMANCE].days),
        str(POST): (published_once(posts), landed[POST].days),
    }
    tables = organic_paid_by(landed)
    for table in BY_WINDOW:
        found = tables[table.name]
        assert [(field.name, field.nullable) for field in found.schema] == [
            (column.name, column.nullable) for column in table.columns
        ]
        found.validate(full=True)
        names = [name for name in found.column_names if name not in table.labels]
        assert_same(found, windows(by_hand, table.grain, CHANGING), names)
    assert window_totals_that_differ(landed, tables, tables=BY_WINDOW) == {table.name: [] for table in BY_WINDOW}


@pytest.mark.parametrize("seed", range(3))
def test_intervals_and_all_else_of_some_hundred_posts_are_what_the_plain_reference_says(seed: int) -> None:
    chance = random.Random(seed)
    posts = [_drawn_post(chance, number) for number in range(400)]
    recorded = [
        {**post, **_drawn_metrics(chance, post), "date": LAST - timedelta(days=age)}
        for post in posts
        for age in chance.sample(range(40), 3)
    ]
    published = [{**post, **_drawn_metrics(chance, post), "date": post["post_date"].date()} for post in posts]
    days = {instance_id: {LAST - timedelta(days=age) for age in range(40)} for instance_id in ("a", "007")}
    landed = {PERFORMANCE: landed_of(recorded, days), POST: landed_of(published, days)}
    tables = organic_paid_by(landed)
    by_hand = {str(PERFORMANCE): (recorded, days), str(POST): (published, days)}
    verdicts = set()
    for table in BY_WINDOW:
        found = tables[table.name]
        expected = windows(by_hand, table.grain, CHANGING)
        assert_same(found, expected, [name for name in found.column_names if name not in table.labels])
        verdicts |= set(found["paid_lift_verdict"].to_pylist())
        for label in table.labels:
            groups = groups_of([*recorded, *published], table.grain)
            said = {key: labels(group, label) for key, group in groups.items()}
            assert found[label].to_pylist() == [said[key_of(each, table.grain)] for each in found.to_pylist()]
    assert {None, "undecided"} < verdicts
    over = organic_paid(table_of(recorded), WEEKLY)
    assert_same(over, over_days(recorded), over.column_names)


def _drawn_post(chance: random.Random, number: int) -> Row:
    creator = chance.choice([11, 12, 13])
    kind = chance.choice(["tiktok", "instagram_reel"])
    return row(
        instance_id=chance.choice(["a", "007"]),
        campaign_id=chance.choice([1, 2]),
        post_id=number,
        creator_id=creator,
        platform=kind.split("_")[0],
        content_type=kind,
        creator_handle_name=chance.choice([None, f"handle_{creator}", f"new_handle_{creator}"]),
        creator_full_name=f"Creator {creator}",
        creator_profile_link=None,
        post_date=datetime(2024, 3, 1, tzinfo=UTC) + timedelta(minutes=chance.randint(0, 30 * 1440)),
    )


def _drawn_metrics(chance: random.Random, post: Row) -> Row:
    rates = {"": 0.03, "paid_": 0.03 if post["campaign_id"] == 1 else 0.05}
    found: Row = {metric.column: None for metric in DOCUMENT_METRICS}
    for channel, rate in rates.items():
        if chance.random() < 0.8:
            impressions = int(chance.lognormvariate(7, 0.5))
            found[f"{channel}impressions"] = impressions
            found[f"{channel}engagements"] = int(impressions * rate * chance.lognormvariate(0, 0.3))
            found[f"{channel}cpm"] = round(chance.uniform(1, 30), 2)
    return found


@a_few
@given(ROWS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_bit(rows: list[Row], chance: random.Random) -> None:
    shuffled = list(rows)
    chance.shuffle(shuffled)
    assert organic_paid(table_of(shuffled), WEEKLY).equals(organic_paid(table_of(rows), WEEKLY))
    days = landed_of(rows).days
    one, other = (
        organic_paid_by({PERFORMANCE: Landed(table_of(each), days)}, tables=[BY_CREATOR]) for each in (rows, shuffled)
    )
    assert one[BY_CREATOR.name].equals(other[BY_CREATOR.name])


def test_nothing_landed_is_a_table_of_the_schema_with_no_rows() -> None:
    nothing = Landed(table_of([]), {})
    for table in BY_WINDOW:
        found = organic_paid_by({PERFORMANCE: nothing, POST: nothing}, tables=[table])[table.name]
        assert found.num_rows == 0
        assert found.column_names == [column.name for column in table.columns]
    assert organic_paid(table_of([]), WEEKLY).equals(OVER_DAYS_SCHEMA.empty_table())


def on(day: date, **fields: Any) -> Row:
    return row(date=day, **fields)


def test_a_post_on_many_days_is_one_post() -> None:
    (group,) = organic_paid(
        table_of([on(LAST, impressions=5), on(LAST, impressions=None, paid_impressions=0)]), WEEKLY
    ).to_pylist()
    assert (group["posts"], group["organic_impressions_posts"], group["paid_impressions_posts"]) == (1, 1, 1)
    assert (group["organic_only_posts"], group["paid_only_posts"], group["both_channels_posts"]) == (0, 0, 1)


def windows_by_name(rows: Sequence[Row], days: set[date], table: RolledUp = BY_CAMPAIGN) -> dict[str, Row]:
    landed = {PERFORMANCE: landed_of(rows, {"a": days, "007": set()})}
    return {group["window"]: group for group in organic_paid_by(landed)[table.name].to_pylist()}


def test_a_change_is_told_where_both_periods_have_the_same_days() -> None:
    days = {LAST - timedelta(days=age) for age in range(14)}
    rows = [on(LAST, impressions=120), on(LAST - timedelta(days=7), impressions=80)]
    found = windows_by_name(rows, days)["7d"]
    assert (found["days"], found["previous_days"]) == (7, 7)
    assert (found["organic_impressions"], found["previous_organic_impressions"]) == (120, 80)
    assert found["organic_impressions_change"] == 50.0
    found = windows_by_name(rows, days - {LAST - timedelta(days=13)})["7d"]
    assert (found["days"], found["previous_days"], found["organic_impressions_change"]) == (7, 6, None)


def test_a_group_that_is_no_more_is_told_beside_what_it_was() -> None:
    days = {LAST - timedelta(days=age) for age in range(14)}
    found = windows_by_name([on(LAST - timedelta(days=7), impressions=5)], days)["7d"]
    assert (found["posts"], found["previous_posts"], found["posts_change"]) == (0, 1, -100.0)
    assert (found["organic_impressions"], found["organic_impressions_change"]) == (None, None)


def test_a_creator_is_named_as_the_newest_post_that_tells_a_name() -> None:
    def named(day: int, handle: str | None, **fields: Any) -> Row:
        published = datetime(2024, 3, day, tzinfo=UTC)
        fields = {"creator_id": 1, "post_id": day, **fields}
        return on(published.date(), creator_handle_name=handle, post_date=published, **fields)

    rows = [named(1, "old"), named(3, None), named(2, "new"), named(9, "somebody", creator_id=None)]
    table = organic_paid_by({PERFORMANCE: landed_of(rows)})[BY_CREATOR.name]
    assert {(group["creator_id"], group["creator_handle_name"]) for group in table.to_pylist()} == {
        (1, "new"),
        (None, None),
    }


def test_a_count_too_large_for_its_column_is_refused_by_name() -> None:
    rows = [on(LAST, paid_engagements=2**62), on(LAST - timedelta(days=1), paid_engagements=2**62)]
    with pytest.raises(SumOutOfRange, match="paid_engagements does not fit int64"):
        organic_paid(table_of(rows), WEEKLY)
    with pytest.raises(SumOutOfRange, match="paid_engagements does not fit int64"):
        organic_paid_by({PERFORMANCE: landed_of(rows)})


def altered(table: pa.Table, name: str, value: object) -> pa.Table:
    field = table.schema.field(name)
    values = [value, *table[name].to_pylist()[1:]]
    return table.set_column(table.schema.get_field_index(name), field, pa.array(values, field.type))


@pytest.mark.parametrize(
    ("name", "in_the_posts"),
    [
        ("posts", "1"),
        ("organic_impressions", "5"),
        ("organic_impressions_posts", "1"),
        ("previous_organic_impressions", "not available"),
    ],
)
def test_each_total_of_a_window_that_differs_is_told_in_a_sentence(name: str, in_the_posts: str) -> None:
    landed = {PERFORMANCE: landed_of([on(LAST, impressions=5)])}
    tables = organic_paid_by(landed, tables=[BY_CAMPAIGN])
    tampered = {BY_CAMPAIGN.name: altered(tables[BY_CAMPAIGN.name], name, 9)}
    sentence = f"7d by performance_date: {name} is {in_the_posts} in the posts and 9 in the rollup"
    assert window_totals_that_differ(landed, tampered, tables=[BY_CAMPAIGN]) == {BY_CAMPAIGN.name: [sentence]}


def test_a_window_that_is_missing_is_told() -> None:
    landed = {PERFORMANCE: landed_of([on(LAST, impressions=5)])}
    table = organic_paid_by(landed, tables=[BY_CAMPAIGN])[BY_CAMPAIGN.name]
    for left, missing in ((table.slice(1), {"7d"}), (table.slice(0, 0), {"7d", "28d", "90d", "365d", "all"})):
        (found,) = window_totals_that_differ(landed, {BY_CAMPAIGN.name: left}, tables=[BY_CAMPAIGN]).values()
        assert {sentence.split()[0] for sentence in found} == missing


def test_distinct_rows_are_numbered_in_order_even_where_their_codes_would_not_fit() -> None:
    chance = random.Random(1)
    values = {f"c{number}": [chance.choice([None, *range(2**12)]) for _ in range(2**12)] for number in range(6)}
    columns = {name: pa.chunked_array([pa.array(column, pa.int64())]) for name, column in values.items()}
    distinct, number = numbered(columns)
    assert distinct.take(pa.array(number)).equals(pa.table(columns))
    rows = distinct.to_pylist()
    assert [key_of(each, list(columns)) for each in rows] == sorted({key_of(each, list(columns)) for each in rows})
