"""The OpenAPI documents of both API versions agree with the contract."""

from typing import Any

import pytest

from later_reporting_dagster.contract import (
    CAMPAIGN_METRICS,
    DEFAULT_METRICS,
    METRICS,
    ContentType,
    DateBasis,
    Platform,
    SortDirection,
    SortProperty,
)
from tests.openapi_documents import CURSOR_DOCUMENT, PAGED_DOCUMENT

SCHEMAS = PAGED_DOCUMENT["components"]["schemas"]
CURSOR_SCHEMAS = CURSOR_DOCUMENT["components"]["schemas"]


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = CURSOR_DOCUMENT  # includes the components of the paged document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


@pytest.mark.parametrize("enum", [Platform, ContentType, DateBasis, SortProperty, SortDirection])
def test_enum_equals_that_of_the_contract(enum: Any) -> None:
    assert SCHEMAS[enum.__name__]["enum"] == [value.value for value in enum]


def test_metrics_equal_those_of_the_contract() -> None:
    for metric in DEFAULT_METRICS:
        schema = resolve(SCHEMAS["Post"]["properties"][metric.api_name])
        assert schema["type"] == ["integer" if metric.kind.is_integer else "number", "null"]
    assert {metric.api_name for metric in METRICS} <= {*CURSOR_SCHEMAS["MetricName"]["enum"]}
    assert CURSOR_SCHEMAS["CampaignMetricName"]["enum"] == [metric.api_name for metric in CAMPAIGN_METRICS]
