"""The synthetic world: a pure function of its seed, with consistent numbers."""

from dataclasses import fields, replace
from datetime import date

import numpy as np
import pytest

from later_reporting_dagster.contract import METRICS, DateBasis
from later_reporting_dagster.sandbox import World, metric_support
from later_reporting_dagster.sandbox.post_pages import matching_rows
from later_reporting_dagster.sandbox.synthetic_world import CONTENT_TYPES, NOT_AVAILABLE, Posts, channel_rates
from later_reporting_dagster.server.query_parameters import parse_posts_query

WORLD = World(first_day=date(2024, 1, 1), last_day=date(2024, 6, 30))
DAYS = range(WORLD.first_day.toordinal(), WORLD.last_day.toordinal() + 1)
SUMMED = ("impressions", "engagements", "estimatedValueGenerated", "paidImpressions", "paidEngagements")


def column_values(posts: Posts, rows: object = slice(None)) -> dict[str, list[object]]:
    return {field.name: getattr(posts, field.name)[..., rows].tolist() for field in fields(posts)}


def posts_of_days(world: World, first: date, last: date) -> dict[str, list[object]]:
    days = world.posts.day
    return column_values(world.posts, np.flatnonzero((days >= first.toordinal()) & (days <= last.toordinal())))


def metrics_to_date(world: World) -> dict[str, np.ndarray]:
    return world.metrics(np.arange(len(world.posts)), since=1, until=world.last_day.toordinal())


def test_world_depends_only_on_its_seed() -> None:
    assert (
        column_values(replace(WORLD).posts) == column_values(WORLD.posts) != column_values(replace(WORLD, seed=1).posts)
    )


def test_posts_of_a_day_do_not_depend_on_the_range_of_the_world() -> None:
    week = date(2024, 3, 4), date(2024, 3, 10)
    later = World(first_day=date(2023, 11, 3), last_day=date(2025, 11, 3))
    assert later.first_day < WORLD.first_day
    assert posts_of_days(later, *week) == posts_of_days(WORLD, *week)
    assert posts_of_days(World(first_day=week[0], last_day=week[1]), *week) == posts_of_days(WORLD, *week)


def test_metrics_of_a_day_do_not_depend_on_the_range_of_the_world() -> None:
    query, _ = parse_posts_query("startDate=2024-06-10&endDate=2024-06-10&dateBasis=performance_date")
    day = date(2024, 6, 10)
    recorded = []
    for world in (replace(WORLD, last_day=day), WORLD):
        rows = matching_rows(world, query)
        metrics = world.metrics(rows, since=day.toordinal(), until=day.toordinal())
        recorded.append({name: values.tolist() for name, values in metrics.items()})
    assert recorded[0] == recorded[1]


def test_extra_instances_do_not_change_the_others() -> None:
    larger = replace(WORLD, extra_instance_ids=("instance_abc", "a,b/ü"))
    assert larger.instance_ids[-2:] == ("instance_abc", "a,b/ü")
    assert column_values(larger.posts, slice(0, len(WORLD.posts))) == column_values(WORLD.posts)
    assert set(larger.posts.instance.tolist()) == set(range(10))


@pytest.mark.parametrize(
    "invalid",
    [
        {"last_day": date(2023, 12, 31)},
        {"instances": 0},
        {"instances": -1},
        {"posts_per_day": -1},
        {"posts_per_day": 500_001},
        {"extra_instance_ids": ("instance_000",)},
    ],
)
def test_invalid_world_is_rejected(invalid: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="world|posts_per_day"):
        replace(WORLD, **invalid)  # type: ignore[arg-type]


def test_row_key_needs_instance_campaign_and_post() -> None:
    posts = WORLD.posts
    keys = list(zip(posts.instance.tolist(), posts.campaign_id.tolist(), posts.post_id.tolist(), strict=True))
    assert len(set(keys)) == len(keys)
    assert len({(instance, post) for instance, _, post in keys}) < len(keys)
    assert len({post for _, _, post in keys}) < len({(instance, post) for instance, _, post in keys})


def test_campaign_belongs_to_one_instance() -> None:
    posts = WORLD.posts
    pairs = set(zip(posts.instance.tolist(), posts.campaign_id.tolist(), strict=True))
    assert len(pairs) == len({campaign for _, campaign in pairs}) == 8 * 12
    assert {campaign for instance, campaign in pairs if instance == 0} >= {49_761, 49_802}


def test_post_in_two_campaigns_has_the_same_values() -> None:
    posts = WORLD.posts
    repeats = 1 + np.flatnonzero((np.diff(posts.post_id) == 0) & (np.diff(posts.instance) == 0))
    assert 0.01 < len(repeats) / len(posts) < 0.05
    for name in ("creator_id", "content_type", "published_ms", "lifetime_days"):
        assert (getattr(posts, name)[repeats] == getattr(posts, name)[repeats - 1]).all()
    assert (posts.totals[:, repeats] == posts.totals[:, repeats - 1]).all()
    assert (posts.campaign_id[repeats] != posts.campaign_id[repeats - 1]).all()


def test_publication_times_span_the_whole_utc_day() -> None:
    midnight = (WORLD.posts.day - date(1970, 1, 1).toordinal()) * 86_400_000
    time_of_day = WORLD.posts.published_ms - midnight
    assert time_of_day.min() == 0
    assert time_of_day.max() == 86_399_999
    assert len(np.unique(time_of_day)) > 0.9 * len(time_of_day)


def test_daily_performance_adds_up_to_metrics_to_date() -> None:
    everything = np.arange(len(WORLD.posts))
    sums = {name: np.zeros(len(everything), dtype=np.int64) for name in SUMMED}
    listed = np.zeros(len(everything), dtype=np.int64)
    for day in DAYS:
        today = date.fromordinal(day)
        query, _ = parse_posts_query(f"startDate={today}&endDate={today}&dateBasis=performance_date")
        rows = matching_rows(WORLD, query)
        listed[rows] += 1
        metrics = WORLD.metrics(rows, since=day, until=day)
        for name in SUMMED:
            assert (metrics[name] >= NOT_AVAILABLE).all()
            sums[name][rows] += metrics[name]
    totals = metrics_to_date(WORLD)
    for name in SUMMED:
        available = totals[name] != NOT_AVAILABLE
        assert (sums[name][available] == totals[name][available]).all()
        assert (sums[name][~available] == NOT_AVAILABLE * listed[~available]).all()
    days_with_metrics = np.minimum(WORLD.posts.lifetime_days, DAYS[-1] + 1 - WORLD.posts.day)
    assert (listed == days_with_metrics).all()


def test_metrics_accrue_until_the_end_of_the_lifetime() -> None:
    old = np.flatnonzero((WORLD.posts.lifetime_days == 28) & (WORLD.posts.day == WORLD.first_day.toordinal()))
    day = WORLD.first_day.toordinal()
    daily = [WORLD.metrics(old, since=day + age, until=day + age)["impressions"] for age in range(28)]
    seen = np.array(daily)[:, WORLD.posts.totals[0][old] > 1000]
    assert (seen[0] > seen[3]).all()
    assert (seen[3] > 0).all()
    assert not WORLD.metrics(old, since=day + 28, until=day + 40)["impressions"].clip(0).any()


def test_channel_rates_round_half_up_and_are_null_without_a_denominator() -> None:
    values = channel_rates(
        engagements=np.array([1, 0, 5, NOT_AVAILABLE, 3]),
        impressions=np.array([20_000, 0, NOT_AVAILABLE, 10, 8]),
        cost=np.array([NOT_AVAILABLE, 100, 1, 0, 5]),
    )
    null = NOT_AVAILABLE
    assert values["engagementRate"].tolist() == [1, null, null, null, 3750]
    assert values["cpe"].tolist() == [null, null, 0, null, 2]
    assert values["cpm"].tolist() == [null, null, null, 0, 625]


@pytest.mark.parametrize("basis", list(DateBasis))
@pytest.mark.parametrize("prefix", ["", "paid"])
def test_rates_are_consistent_with_counts(basis: DateBasis, prefix: str) -> None:
    def named(name: str) -> np.ndarray:
        return values[f"{prefix}{name[0].upper()}{name[1:]}" if prefix else name]

    everything = np.arange(len(WORLD.posts))
    since = 1 if basis is DateBasis.POST_DATE else DAYS[60]
    values = WORLD.metrics(everything, since=since, until=DAYS[-1])
    engagements, impressions = named("engagements"), named("impressions")
    rate, cpe, cpm = named("engagementRate"), named("cpe"), named("cpm")

    rated = (engagements >= 0) & (impressions > 0)
    assert ((rate >= 0) == rated).all()
    assert (np.abs(rate / 100 - 100 * engagements / np.maximum(impressions, 1))[rated] <= 0.005 + 1e-9).all()

    both = (cpe >= 0) & (cpm >= 0)
    assert both.mean() > 0.2
    # Each rounded rate gives an interval for the cost; the intervals must overlap.
    by_engagements, by_impressions = cpe[both] / 100 * engagements[both], cpm[both] / 100 * impressions[both] / 1000
    slack = 0.005 * engagements[both] + 0.005 * impressions[both] / 1000 + 1e-6
    assert (np.abs(by_engagements - by_impressions) <= slack).all()


# Metrics of the cursor version


def cursor_only_metrics(world: World, rows: np.ndarray, since: int, until: int) -> dict[str, np.ndarray]:
    return world.cursor_only_metrics(rows, since=since, until=until)


def test_world_has_every_metric_of_the_contract() -> None:
    rows = np.arange(len(WORLD.posts))
    names = metrics_to_date(WORLD).keys() | cursor_only_metrics(WORLD, rows, 1, WORLD.last_day.toordinal()).keys()
    assert names == {metric.api_name for metric in METRICS}


def test_metric_is_available_for_the_content_types_that_support_it() -> None:
    found = cursor_only_metrics(WORLD, np.arange(len(WORLD.posts)), 1, WORLD.last_day.toordinal())
    for name, values in found.items():
        for number, (content_type, _, _) in enumerate(CONTENT_TYPES):
            values_of_type = values[WORLD.posts.content_type == number]
            assert (values_of_type != NOT_AVAILABLE).any() == metric_support.supports(content_type, name)


def test_additive_metrics_add_up_over_days_but_reach_does_not() -> None:
    rows = np.flatnonzero(WORLD.posts.day == date(2024, 3, 4).toordinal())
    since, until = date(2024, 3, 4).toordinal(), date(2024, 4, 4).toordinal()
    whole = cursor_only_metrics(WORLD, rows, since, until)
    days = [cursor_only_metrics(WORLD, rows, day, day) for day in range(since, until + 1)]
    for metric in METRICS:
        if (name := metric.api_name) not in whole:
            continue
        known = whole[name] != NOT_AVAILABLE
        assert all((day[name] != NOT_AVAILABLE)[~known].sum() == 0 for day in days)
        added = sum(np.maximum(day[name], 0)[known].sum() for day in days)
        if metric.kind.is_additive:
            assert added == whole[name][known].sum() > 0
        else:
            assert added > whole[name][known].sum() > 0


def test_partial_metrics_do_not_exceed_their_total() -> None:
    rows = np.arange(len(WORLD.posts))
    last = WORLD.last_day.toordinal()
    whole, found = WORLD.metrics(rows, since=1, until=last), cursor_only_metrics(WORLD, rows, 1, last)
    for part, total in (("reach", "impressions"), ("views", "impressions"), ("paidReach", "paidImpressions")):
        assert (found[part] <= whole[total]).all()
    assert (found["organicReach"] <= found["reach"]).all()
