"""The world is a pure function of its seed, and its numbers hold together."""

from dataclasses import fields, replace
from datetime import date

import numpy as np
import pytest

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, DateBasis
from later_reporting_dagster.sandbox import World, metric_support
from later_reporting_dagster.sandbox.post_pages import matching_rows
from later_reporting_dagster.sandbox.query_parameters import read_posts_query
from later_reporting_dagster.sandbox.synthetic_world import CONTENT_TYPES, NOT_AVAILABLE, Posts, rates

WORLD = World(first_day=date(2024, 1, 1), last_day=date(2024, 6, 30))
DAYS = range(WORLD.first_day.toordinal(), WORLD.last_day.toordinal() + 1)
SUMMED = ("impressions", "engagements", "estimatedValueGenerated", "paidImpressions", "paidEngagements")


def columns(posts: Posts, rows: object = slice(None)) -> dict[str, list[object]]:
    return {field.name: getattr(posts, field.name)[..., rows].tolist() for field in fields(posts)}


def of_days(world: World, first: date, last: date) -> dict[str, list[object]]:
    days = world.posts.day
    return columns(world.posts, np.flatnonzero((days >= first.toordinal()) & (days <= last.toordinal())))


def to_date(world: World) -> dict[str, np.ndarray]:
    return world.metrics(np.arange(len(world.posts)), since=1, until=world.last_day.toordinal())


def test_the_same_seed_is_the_same_world() -> None:
    assert columns(replace(WORLD).posts) == columns(WORLD.posts) != columns(replace(WORLD, seed=1).posts)


def test_a_days_posts_are_the_same_whatever_today_is() -> None:
    week = date(2024, 3, 4), date(2024, 3, 10)
    later = World(first_day=date(2023, 11, 3), last_day=date(2025, 11, 3))
    assert later.first_day < WORLD.first_day
    assert of_days(later, *week) == of_days(WORLD, *week)
    assert of_days(World(first_day=week[0], last_day=week[1]), *week) == of_days(WORLD, *week)


def test_what_a_day_recorded_is_the_same_whatever_today_is() -> None:
    question, _ = read_posts_query("startDate=2024-06-10&endDate=2024-06-10&dateBasis=performance_date")
    day = date(2024, 6, 10)
    recorded = []
    for world in (replace(WORLD, last_day=day), WORLD):
        rows = matching_rows(world, question)
        metrics = world.metrics(rows, since=day.toordinal(), until=day.toordinal())
        recorded.append({name: values.tolist() for name, values in metrics.items()})
    assert recorded[0] == recorded[1]


def test_further_instances_change_nothing_in_the_others() -> None:
    larger = replace(WORLD, further_instances=("instance_abc", "a,b/ü"))
    assert larger.instance_ids[-2:] == ("instance_abc", "a,b/ü")
    assert columns(larger.posts, slice(0, len(WORLD.posts))) == columns(WORLD.posts)
    assert set(larger.posts.instance.tolist()) == set(range(10))


@pytest.mark.parametrize(
    "impossible",
    [
        {"last_day": date(2023, 12, 31)},
        {"instances": 0},
        {"instances": -1},
        {"posts_per_day": -1},
        {"posts_per_day": 500_001},
        {"further_instances": ("instance_000",)},
    ],
)
def test_an_impossible_world_is_refused(impossible: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="world|posts_per_day"):
        replace(WORLD, **impossible)  # type: ignore[arg-type]


def test_rows_are_unique_by_key_and_by_nothing_less() -> None:
    posts = WORLD.posts
    of_row = list(zip(posts.instance.tolist(), posts.campaign_id.tolist(), posts.post_id.tolist(), strict=True))
    assert len(set(of_row)) == len(of_row)
    assert len({(instance, post) for instance, _, post in of_row}) < len(of_row)
    assert len({(campaign, post) for _, campaign, post in of_row}) < len(of_row)


def test_a_post_in_two_campaigns_is_one_content() -> None:
    posts = WORLD.posts
    again = 1 + np.flatnonzero((np.diff(posts.post_id) == 0) & (np.diff(posts.instance) == 0))
    assert 0.01 < len(again) / len(posts) < 0.05
    for name in ("creator_id", "content_type", "published_ms", "life"):
        assert (getattr(posts, name)[again] == getattr(posts, name)[again - 1]).all()
    assert (posts.totals[:, again] == posts.totals[:, again - 1]).all()
    assert (posts.campaign_id[again] != posts.campaign_id[again - 1]).all()


def test_publication_falls_on_its_utc_day_and_touches_its_ends() -> None:
    midnight = (WORLD.posts.day - date(1970, 1, 1).toordinal()) * 86_400_000
    time_of_day = WORLD.posts.published_ms - midnight
    assert time_of_day.min() == 0
    assert time_of_day.max() == 86_399_999
    assert len(np.unique(time_of_day)) > 0.9 * len(time_of_day)


def test_every_day_of_performance_sums_to_what_post_date_says_to_date() -> None:
    everything = np.arange(len(WORLD.posts))
    sums = {name: np.zeros(len(everything), dtype=np.int64) for name in SUMMED}
    listed = np.zeros(len(everything), dtype=np.int64)
    for day in DAYS:
        today = date.fromordinal(day)
        question, _ = read_posts_query(f"startDate={today}&endDate={today}&dateBasis=performance_date")
        rows = matching_rows(WORLD, question)
        listed[rows] += 1
        metrics = WORLD.metrics(rows, since=day, until=day)
        for name in SUMMED:
            assert (metrics[name] >= NOT_AVAILABLE).all()
            sums[name][rows] += metrics[name]
    totals = to_date(WORLD)
    for name in SUMMED:
        available = totals[name] != NOT_AVAILABLE
        assert (sums[name][available] == totals[name][available]).all()
        assert (sums[name][~available] == NOT_AVAILABLE * listed[~available]).all()
    lived = np.minimum(WORLD.posts.life, DAYS[-1] + 1 - WORLD.posts.day)
    assert (listed == lived).all()


def test_metrics_grow_for_days_after_publication() -> None:
    old = np.flatnonzero((WORLD.posts.life == 28) & (WORLD.posts.day == WORLD.first_day.toordinal()))
    day = WORLD.first_day.toordinal()
    daily = [WORLD.metrics(old, since=day + age, until=day + age)["impressions"] for age in range(28)]
    seen = np.array(daily)[:, WORLD.posts.totals[0][old] > 1000]
    assert (seen[0] > seen[3]).all()
    assert (seen[3] > 0).all()
    assert not WORLD.metrics(old, since=day + 28, until=day + 40)["impressions"].clip(0).any()


def test_rates_round_half_up_and_are_null_without_a_denominator() -> None:
    values = rates(
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
def test_rates_agree_with_the_counts_of_their_row(basis: DateBasis, prefix: str) -> None:
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
    # Each rounded rate gives an interval for the cost; one cost lies in both.
    by_engagements, by_impressions = cpe[both] / 100 * engagements[both], cpm[both] / 100 * impressions[both] / 1000
    slack = 0.005 * engagements[both] + 0.005 * impressions[both] / 1000 + 1e-6
    assert (np.abs(by_engagements - by_impressions) <= slack).all()


# The metrics that the document does not have


def further(world: World, rows: np.ndarray, since: int, until: int) -> dict[str, np.ndarray]:
    return world.further_metrics(rows, since=since, until=until)


def test_the_world_has_every_metric_that_is_known() -> None:
    rows = np.arange(len(WORLD.posts))
    names = to_date(WORLD).keys() | further(WORLD, rows, 1, WORLD.last_day.toordinal()).keys()
    assert names == {metric.api_name for metric in METRICS}


def test_each_metric_is_measured_for_the_content_types_that_have_it_and_for_no_other() -> None:
    found = further(WORLD, np.arange(len(WORLD.posts)), 1, WORLD.last_day.toordinal())
    for name, values in found.items():
        for number, (content_type, _, _) in enumerate(CONTENT_TYPES):
            of_type = values[WORLD.posts.content_type == number]
            assert (of_type != NOT_AVAILABLE).any() == metric_support.has(content_type, name)


def test_what_adds_up_adds_up_over_days_and_reach_does_not() -> None:
    rows = np.flatnonzero(WORLD.posts.day == date(2024, 3, 4).toordinal())
    since, until = date(2024, 3, 4).toordinal(), date(2024, 4, 4).toordinal()
    whole = further(WORLD, rows, since, until)
    days = [further(WORLD, rows, day, day) for day in range(since, until + 1)]
    for metric in METRICS:
        if (name := metric.api_name) not in whole:
            continue
        known = whole[name] != NOT_AVAILABLE
        assert all((day[name] != NOT_AVAILABLE)[~known].sum() == 0 for day in days)
        added = sum(np.maximum(day[name], 0)[known].sum() for day in days)
        if metric.kind.adds_up:
            assert added == whole[name][known].sum() > 0
        else:
            assert added > whole[name][known].sum() > 0


def test_what_is_a_part_is_no_more_than_the_whole() -> None:
    rows = np.arange(len(WORLD.posts))
    last = WORLD.last_day.toordinal()
    whole, found = WORLD.metrics(rows, since=1, until=last), further(WORLD, rows, 1, last)
    for part, of in (("reach", "impressions"), ("views", "impressions"), ("paidReach", "paidImpressions")):
        assert (found[part] <= whole[of]).all()
    assert (found["organicReach"] <= found["reach"]).all()


def test_a_filter_takes_what_every_content_type_that_it_lets_in_has() -> None:
    everything = [content_type for content_type, _, _ in CONTENT_TYPES]
    document = [metric.api_name for metric in DOCUMENT_METRICS]
    assert metric_support.not_supported([*document, "likes"], everything) == []
    assert metric_support.not_supported(["likes", "navigationTapExit", "clicks"], everything) == [
        "navigationTapExit",
        "clicks",
    ]
    assert metric_support.not_supported(["navigationTapExit"], ["instagram_story"]) == []
    assert metric_support.not_supported(["navigationTapExit"], ["instagram_story", "instagram_reel"]) != []
    for metric in METRICS:  # each can be asked for somewhere
        assert [each for each in everything if not metric_support.not_supported([metric.api_name], [each])]
