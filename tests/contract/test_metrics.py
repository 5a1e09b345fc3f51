"""The metric table is that of both revisions, and a setting picks from it by name."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import (
    DOCUMENT_METRICS,
    METRICS,
    Channel,
    metrics_asked_for,
    metrics_in,
    metrics_named,
)
from later_reporting_dagster.contract.metrics import Kind

# As the cursor revision lists them.
OFFERED = """likes, comments, shares, saves, impressions, reach, organicReach, engagements, views, totalInteractions,
replies, reposts, potentialReach, followersAtPostDate, videoViewTotalTime, avgWatchTime, navigationTapExit,
navigationTapBack, navigationTapForward, navigationSwipeForward, crosspostedViews, crosspostedFacebookOnlyViews,
engagementRate, estimatedValueGenerated, cpe, cpm, paidLikes, paidComments, paidShares, paidImpressions,
paidEngagements, paidEngagementRate, paidViews, paidReach, paidSaves, paidCpe, paidCpm"""
OF_THE_DOCUMENT = """engagements, impressions, engagementRate, estimatedValueGenerated, cpe, cpm, paidEngagements,
paidImpressions, paidEngagementRate, paidCpe, paidCpm"""
REACH = {"reach", "organicReach", "potentialReach", "paidReach"}


def test_the_table_has_each_metric_that_is_offered_once_and_the_documents_first() -> None:
    names = [metric.api_name for metric in METRICS]
    assert sorted(names) == sorted(re.findall(r"\w+", OFFERED))
    assert names[:11] == [metric.api_name for metric in DOCUMENT_METRICS] == re.findall(r"\w+", OF_THE_DOCUMENT)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.api_name)
def test_each_is_told_in_full_and_named_as_the_document_names(metric) -> None:
    assert metric.column == re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", metric.api_name)
    assert metric.channel is (Channel.PAID if metric.api_name.startswith("paid") else Channel.ORGANIC)
    assert metric.description
    assert metric.unit


def test_what_does_not_add_up_says_so() -> None:
    told = {metric.api_name for metric in METRICS if "never summed" in metric.description}
    levels = {metric.api_name for metric in METRICS if metric.kind is Kind.LEVEL}
    assert levels == REACH | {"followersAtPostDate"}
    assert told == levels | {"avgWatchTime"}
    assert not [metric for metric in METRICS if metric.api_name in told and metric.kind.adds_up]


@pytest.mark.parametrize("text", ["", "  "])
def test_without_a_name_the_documents_are_meant(text: str) -> None:
    assert metrics_named(text) == metrics_asked_for(()) == DOCUMENT_METRICS


@pytest.mark.parametrize("text", [" all ", "all,likes"])
def test_all_are_all(text: str) -> None:
    assert metrics_named(text) == METRICS


@given(st.lists(st.sampled_from(METRICS), min_size=1), st.data())
def test_any_names_in_any_order_are_those_metrics_in_the_order_of_the_table(given_metrics, data) -> None:
    names = [data.draw(st.sampled_from([metric.api_name, metric.column])) for metric in given_metrics]
    separator = data.draw(st.sampled_from([",", ", ", " ,,"]))
    named = metrics_named(separator.join(names))
    assert set(named) == set(given_metrics)
    assert list(named) == sorted(named, key=METRICS.index)
    assert len(named) == len(set(named))
    assert metrics_asked_for(metric.api_name for metric in given_metrics) == named
    assert metrics_in(["post_id", *(metric.column for metric in given_metrics), "extra"]) == named


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("likes,engagement", "'engagement' is no metric that is known; the nearest is engagements"),
        ("paidlikes", "'paidlikes' is no metric that is known; the nearest is paid_likes"),
        ("al", "'al' is no metric that is known; the nearest is all"),
        (" , ,", "' , ,' names no metric: leave it empty to mean the document's, or say all"),
    ],
)
def test_what_is_not_in_the_table_is_named_with_the_nearest_that_is(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        metrics_named(text)


@given(st.text(min_size=1).filter(str.strip), st.sampled_from(["", "likes, "]))
def test_whatever_is_no_metric_is_told_in_one_short_line(text: str, before: str) -> None:
    with pytest.raises(ValueError, match="no metric") as raised:
        metrics_named(f"{before}~{text}")
    (line,) = str(raised.value).splitlines()
    assert len(line) < 300
