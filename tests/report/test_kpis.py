"""The figures of a report as it opens, held against a slow reference over the raw rows."""

from random import SystemRandom
from typing import Any

import pytest

from later_reporting_dagster.contract import DOCUMENT_METRICS, METRICS, Metric
from later_reporting_dagster.report.kpis import headlines, headlines_in_markdown, lift_interval
from later_reporting_dagster.rollups.sql_engine import SumOutOfRange
from tests.report.posts import AS_OF, METRICS_TABLE, PUBLISHED_TABLE, day_before, drawn_rows, one_post, report_data, row
from tests.report.reference import picked, recorded

NOW, BEFORE = range(28), range(28, 56)


def near(value: Any) -> Any:
    return None if value is None else pytest.approx(float(value), rel=1e-9, abs=1e-4)


def test_headlines_are_those_of_the_raw_rows() -> None:
    seed = SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    cells = drawn_rows(seed)
    now, before = (recorded(picked(cells, METRICS_TABLE, ages)) for ages in (NOW, BEFORE))
    data = report_data(cells)
    found = headlines(data)
    assert len(found) == 9
    for headline in found:
        assert headline.value == near(now[headline.name]), headline
        assert headline.before == near(before[headline.name]), headline
    interval = lift_interval(data)
    verdict = interval["paid_lift_verdict"]
    assert (verdict and str(verdict).replace("_", " ")) == now["paid_lift_verdict"]


def test_a_period_before_the_first_day_is_not_available() -> None:
    found = headlines(report_data(drawn_rows(1, days=13)))
    assert all(headline.before is None for headline in found)
    assert any(headline.value for headline in found)


def test_nothing_landed_is_not_available_and_no_zero() -> None:
    data = report_data(one_post())
    assert {headline.value for headline in headlines(data)} == {None}
    zero = headlines(report_data(one_post(impressions=0, engagements=0)))
    assert [headline.value for headline in zero] == [0, None, None, 0, None, None, None, None, None]


def test_headlines_are_told_as_a_table() -> None:
    nothing = headlines_in_markdown(headlines(report_data(one_post(impressions=0))))
    assert "| Organic impressions | 0 | not available |" in nothing
    assert "| Paid lift | not available | not available |" in nothing


def test_creators_are_as_their_newest_post_says() -> None:
    cells = one_post(creator_content_type="tiktok", creator_full_name="New", creator_handle_name="n")
    old = {**cells[PUBLISHED_TABLE, AS_OF, "a"][0], "creator_full_name": "Old", "creator_handle_name": "o"}
    cells[PUBLISHED_TABLE, day_before(2), "a"] = [old | {"post_id": 2}]
    for order in (cells, dict(reversed(cells.items()))):
        (creator,) = report_data(order).creators
        assert (creator.name, [profile.handle for profile in creator.profiles]) == ("New", ["n"])


def test_a_creator_without_a_published_post_is_named_by_what_was_recorded() -> None:
    cells = one_post()
    cells[METRICS_TABLE, AS_OF, "a"] += [row(creator_id=9, post_id=9, campaign_id=7, creator_full_name="Recorded")]
    assert [creator.name for creator in report_data(cells).creators] == [None, "Recorded"]


def test_a_hundred_creators_are_shown_by_impressions() -> None:
    cells = one_post(impressions=1000)
    cells[METRICS_TABLE, AS_OF, "a"] += [
        row(creator_id=number, post_id=number, campaign_id=7, impressions=number) for number in range(2, 200)
    ]
    shown = report_data(cells).tables["creators"].to_pylist()
    weeks = [each for each in shown if each["window"] == "7d" and each["campaign_id"] is None]
    assert sorted(each["impressions"] for each in weeks) == [*range(101, 200), 1000]


@pytest.mark.parametrize("channel", ["impressions", "paid_impressions"])
def test_a_sum_that_no_column_holds_is_named(channel: str) -> None:
    cells = one_post(impressions=2**62)
    cells[METRICS_TABLE, AS_OF, "a"].append(row(campaign_id=7, post_id=2, **{channel: 2**62}))
    with pytest.raises(SumOutOfRange, match="impressions does not fit int64"):
        report_data(cells)


def test_campaigns_of_two_instances_are_two() -> None:
    cells = one_post(impressions=1) | {(table, day, "b"): [] for table, day, _ in one_post()}
    cells[METRICS_TABLE, AS_OF, "b"] = [row(instance_id="b", campaign_id=7, creator_id=1, impressions=20)]
    data = report_data(cells)
    assert data.campaigns == [("a", 7), ("b", 7)]
    assert [creator.instance_id for creator in data.creators] == ["a", "b"]
    assert headlines(data)[0].value == 21


@pytest.mark.parametrize("metrics", [DOCUMENT_METRICS, METRICS])
def test_coverage_is_told_of_the_metrics_that_were_asked_for(metrics: tuple[Metric, ...]) -> None:
    data = report_data(one_post(likes=3), metrics=metrics)
    assert data.metrics == metrics
    assert ("likes" in data.tables["coverage"].column_names) is (metrics == METRICS)
