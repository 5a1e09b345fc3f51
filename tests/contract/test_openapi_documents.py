"""The OpenAPI documents of both API versions agree with the contract."""

from datetime import date
from typing import Any

import pytest

from later_reporting_dagster import contract
from later_reporting_dagster.client.route import PageRequest, posts_route
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
from later_reporting_dagster.contract.parameters import DEFAULT_PAGE_SIZE, MAX_CAMPAIGN_IDS
from tests.openapi_documents import CURSOR_DOCUMENT, PAGED_DOCUMENT

SCHEMAS = PAGED_DOCUMENT["components"]["schemas"]
CURSOR_SCHEMAS = CURSOR_DOCUMENT["components"]["schemas"]


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """Follow the references of a node of either document."""
    while "$ref" in node:
        target: Any = CURSOR_DOCUMENT  # includes the components of the paged document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def parameters(document: dict[str, Any]) -> dict[str, Any]:
    """Return the parameters of the posts route by name."""
    operation = document["paths"][contract.POSTS_PERFORMANCE_PATH]["get"]
    return {parameter["name"]: parameter for parameter in map(resolve, operation["parameters"])}


@pytest.mark.parametrize("enum", [Platform, ContentType, DateBasis, SortProperty, SortDirection])
def test_enum_equals_that_of_the_contract(enum: Any) -> None:
    assert SCHEMAS[enum.__name__]["enum"] == [value.value for value in enum]


def test_bounds_equal_those_of_the_contract() -> None:
    size, number = (parameters(PAGED_DOCUMENT)[name]["schema"] for name in ("pageSize", "pageNumber"))
    assert (size["minimum"], size["maximum"], size["default"]) == (1, contract.MAX_PAGE_SIZE, DEFAULT_PAGE_SIZE)
    assert (number["minimum"], number["maximum"], number["default"]) == (1, contract.MAX_PAGE_NUMBER, 1)
    assert parameters(PAGED_DOCUMENT)["campaignIds"]["schema"]["maxItems"] == MAX_CAMPAIGN_IDS


def test_parameters_equal_those_that_are_sent() -> None:
    query = contract.PerformanceQuery(
        start_date=date(2024, 1, 1),
        end_date=date(2024, 1, 2),
        instance_ids=("a",),
        campaign_ids=(1,),
        platforms=(Platform.TIKTOK,),
    )
    by_version = {
        contract.PAGED: (PAGED_DOCUMENT, {"startDate", "endDate"}),
        contract.CURSOR: (CURSOR_DOCUMENT, {"startDate", "endDate", "metrics"}),
    }
    for version, (document, required) in by_version.items():
        listed = parameters(document)
        sent = posts_route(query).parameters(version, PageRequest(1, cursor="on"))
        assert set(listed) == {name for name, _ in sent} | {"contentType"}
        assert {name for name, parameter in listed.items() if parameter.get("required")} == required


def test_metrics_equal_those_of_the_contract() -> None:
    for metric in DEFAULT_METRICS:
        schema = resolve(SCHEMAS["Post"]["properties"][metric.api_name])
        assert schema["type"] == ["integer" if metric.kind.is_integer else "number", "null"]
    assert {metric.api_name for metric in METRICS} <= {*CURSOR_SCHEMAS["MetricName"]["enum"]}
    assert CURSOR_SCHEMAS["CampaignMetricName"]["enum"] == [metric.api_name for metric in CAMPAIGN_METRICS]
