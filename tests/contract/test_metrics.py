"""Tests of the metric table, of the selection of metrics by name, and of both in the OpenAPI documents."""

import re
from datetime import date
from typing import Any

import pytest

from later_reporting_dagster.contract import (
    CAMPAIGN_METRICS,
    CURSOR,
    DEFAULT_METRICS,
    METRICS,
    PAGED,
    ContentType,
    DateBasis,
    PerformanceQuery,
    Platform,
    parse_metrics,
)
from later_reporting_dagster.contract.metrics import ACCOUNT_METRICS, OVER_TIME_METRICS
from later_reporting_dagster.contract.parameters import SortDirection
from later_reporting_dagster.contract.route import POSTS_PERFORMANCE, PageRequest
from later_reporting_dagster.server.routes import SORT_PROPERTIES
from tests.openapi_documents import CURSOR_DOCUMENT, PAGED_DOCUMENT


def test_parse_metrics_returns_each_metric_once_in_table_order() -> None:
    assert parse_metrics("  ") == DEFAULT_METRICS
    assert parse_metrics(" all ") == parse_metrics("all,likes") == METRICS
    named = parse_metrics("likes,, paid_cpm ,paidCpm,impressions, likes")
    assert [metric.api_name for metric in named] == ["impressions", "paidCpm", "likes"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("likes,engagement", "unknown metric 'engagement'; the nearest is engagements"),
        ("paidlikes", "unknown metric 'paidlikes'; the nearest is paid_likes"),
        ("al", "unknown metric 'al'; the nearest is all"),
        (" , ,", "no metric in ' , ,': leave it empty for the default metrics, or write all"),
    ],
)
def test_parse_metrics_of_an_unknown_name_suggests_the_nearest(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        parse_metrics(text)


SCHEMAS = PAGED_DOCUMENT["components"]["schemas"]
CURSOR_SCHEMAS = CURSOR_DOCUMENT["components"]["schemas"]


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = CURSOR_DOCUMENT  # includes the components of the paged document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


@pytest.mark.parametrize("enum", [Platform, ContentType, DateBasis, SortDirection])
def test_enum_equals_that_of_the_contract(enum: Any) -> None:
    assert SCHEMAS[enum.__name__]["enum"] == [value.value for value in enum]


def test_metrics_equal_those_of_the_contract() -> None:
    for metric in DEFAULT_METRICS:
        schema = resolve(SCHEMAS["Post"]["properties"][metric.api_name])
        assert schema["type"] == ["integer" if metric.kind.is_integer else "number", "null"]
    assert sorted(metric.api_name for metric in METRICS) == sorted(CURSOR_SCHEMAS["MetricName"]["enum"])
    assert {*SCHEMAS["SortProperty"]["enum"]} == {*SORT_PROPERTIES}
    assert METRICS[: len(DEFAULT_METRICS)] == DEFAULT_METRICS
    of_totals = {"Campaign": CAMPAIGN_METRICS, "Account": ACCOUNT_METRICS, "Bucket": OVER_TIME_METRICS}
    for name, metrics in of_totals.items():
        assert CURSOR_SCHEMAS[f"{name}MetricName"]["enum"] == [metric.api_name for metric in metrics]


def test_parameters_in_the_documents_equal_those_that_are_sent() -> None:
    day = date(2024, 1, 1)
    filters: Any = {"instance_ids": ("a",), "platforms": (Platform.TIKTOK,)}
    route, query = POSTS_PERFORMANCE, PerformanceQuery(start_date=day, end_date=day, **filters)
    for version, document in ((PAGED, PAGED_DOCUMENT), (CURSOR, CURSOR_DOCUMENT)):
        listed = {each["name"] for each in map(resolve, document["paths"][route.path]["get"]["parameters"])}
        sent = {name for name, _ in route.parameters(query, version, PageRequest(1, cursor="on"))}
        assert listed == sent | {"contentType", "campaignIds"}
