"""Metrics supported by queries with content-type filters."""

from later_reporting_dagster.contract import DEFAULT_METRICS, METRICS
from later_reporting_dagster.sandbox.metric_support import unsupported_metrics
from later_reporting_dagster.sandbox.synthetic_world import CONTENT_TYPES

CONTENT_TYPE_NAMES = [content_type for content_type, _, _ in CONTENT_TYPES]


def test_query_supports_metrics_that_every_included_content_type_has() -> None:
    paged_metrics = [metric.api_name for metric in DEFAULT_METRICS]
    assert unsupported_metrics([*paged_metrics, "likes"], CONTENT_TYPE_NAMES) == []
    names = ["likes", "navigationTapExit", "clicks"]
    assert unsupported_metrics(names, CONTENT_TYPE_NAMES) == ["navigationTapExit", "clicks"]
    assert unsupported_metrics(["navigationTapExit"], ["instagram_story"]) == []
    assert unsupported_metrics(["navigationTapExit"], ["instagram_story", "instagram_reel"]) != []


def test_every_metric_is_supported_by_a_content_type() -> None:
    for metric in METRICS:
        assert any(not unsupported_metrics([metric.api_name], [each]) for each in CONTENT_TYPE_NAMES)
