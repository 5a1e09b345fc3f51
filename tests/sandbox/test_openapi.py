"""The OpenAPI documents agree with the contract package, and the sandbox with the documents, in both API versions."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis import Case

from later_reporting_dagster import contract
from later_reporting_dagster.contract import (
    DEFAULT_METRICS,
    METRICS,
    ContentType,
    DateBasis,
    Platform,
    SortDirection,
    SortProperty,
)
from later_reporting_dagster.contract.enums import ProblemType
from later_reporting_dagster.contract.limits import DEFAULT_PAGE_SIZE, MAX_CAMPAIGN_IDS
from later_reporting_dagster.sandbox import EXAMPLE_INSTANCE_IDS, World, create_app, metric_support, running_server
from later_reporting_dagster.sandbox.synthetic_world import CONTENT_TYPES
from later_reporting_dagster.server.query_parameters import CAMPAIGN_SORT_PROPERTIES
from tests.openapi_documents import (
    CURSOR_DOCUMENT,
    PAGED_DOCUMENT,
    few_examples,
    restrict,
    schemathesis_config,
    validate,
)
from tests.sandbox.clients import NO_RATE_LIMIT
from tests.sandbox.test_api_reference import SAMPLE

SCHEMAS = PAGED_DOCUMENT["components"]["schemas"]
OPERATION = PAGED_DOCUMENT["paths"][contract.POSTS_PERFORMANCE_PATH]["get"]
CURSOR_OPERATION = CURSOR_DOCUMENT["paths"][contract.POSTS_PERFORMANCE_PATH]["get"]


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """Follow the references of a node of either document."""
    while "$ref" in node:
        target: Any = CURSOR_DOCUMENT  # includes the components of the paged document
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


PARAMETERS = {parameter["name"]: parameter for parameter in map(resolve, OPERATION["parameters"])}
CURSOR_PARAMETERS = {parameter["name"]: parameter for parameter in map(resolve, CURSOR_OPERATION["parameters"])}


# Documents and contract


def test_paths_equal_those_of_the_contract() -> None:
    assert list(PAGED_DOCUMENT["paths"]) == [
        contract.TOKEN_PATH,
        contract.INSTANCES_PATH,
        contract.POSTS_PERFORMANCE_PATH,
        contract.CAMPAIGNS_PATH,
        contract.CAMPAIGNS_PERFORMANCE_PATH,
    ]
    assert CURSOR_DOCUMENT["paths"].keys() == PAGED_DOCUMENT["paths"].keys()


@pytest.mark.parametrize("enum", [Platform, ContentType, DateBasis, SortProperty, SortDirection])
def test_enum_equals_that_of_the_contract(enum: Any) -> None:
    assert SCHEMAS[enum.__name__]["enum"] == [value.value for value in enum]


@pytest.mark.parametrize(
    ("parameter", "schema"),
    [
        ("platform", "Platform"),
        ("contentType", "ContentType"),
        ("dateBasis", "DateBasis"),
        ("sortProperty", "SortProperty"),
        ("sortDirection", "SortDirection"),
    ],
)
def test_parameter_refers_to_its_enum(parameter: str, schema: str) -> None:
    parameter_schema = PARAMETERS[parameter]["schema"]
    assert parameter_schema.get("items", parameter_schema) == {"$ref": f"#/components/schemas/{schema}"}


def test_bounds_equal_those_of_the_contract() -> None:
    assert PARAMETERS["pageSize"]["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": contract.MAX_PAGE_SIZE,
        "default": DEFAULT_PAGE_SIZE,
    }
    assert PARAMETERS["pageNumber"]["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": contract.MAX_PAGE_NUMBER,
        "default": 1,
    }
    assert PARAMETERS["campaignIds"]["schema"]["maxItems"] == MAX_CAMPAIGN_IDS
    assert SCHEMAS["DateBasis"]["default"] == DateBasis.POST_DATE
    assert SCHEMAS["SortDirection"]["default"] == SortDirection.DESC


def test_parameters_equal_those_of_the_query_class() -> None:
    query = contract.PostPerformanceQuery(
        start_date=date(2024, 1, 1),
        end_date=date(2024, 1, 2),
        instance_ids=("a",),
        campaign_ids=(1,),
        platforms=(Platform.TIKTOK,),
        sort_property=SortProperty.CPM,
        sort_direction=SortDirection.ASC,
    )
    assert set(PARAMETERS) == {name for name, _ in query.parameters()} | {"contentType"}
    assert {name for name, parameter in PARAMETERS.items() if parameter.get("required")} == {"startDate", "endDate"}
    cursor_parameters = {name for name, _ in replace(query, cursor="on").parameters(contract.CURSOR)}
    assert set(CURSOR_PARAMETERS) == cursor_parameters | {"contentType"}
    required = {name for name, parameter in CURSOR_PARAMETERS.items() if parameter.get("required")}
    assert required == {"startDate", "endDate", "metrics"}


def test_campaign_performance_has_the_parameters_of_posts_except_for_its_metrics() -> None:
    for document, posts in ((PAGED_DOCUMENT, PARAMETERS), (CURSOR_DOCUMENT, CURSOR_PARAMETERS)):
        operation = document["paths"][contract.CAMPAIGNS_PERFORMANCE_PATH]["get"]
        parameters = {parameter["name"]: parameter for parameter in map(resolve, operation["parameters"])}
        assert list(parameters) == list(posts)
        different = {name for name in parameters if parameters[name] != posts[name]}
        assert different == {"sortProperty"} | ({"metrics"} & posts.keys())


def test_campaign_metrics_equal_those_of_the_contract() -> None:
    cursor_schemas = CURSOR_DOCUMENT["components"]["schemas"]
    assert cursor_schemas["CampaignMetricName"]["enum"] == [metric.api_name for metric in contract.CAMPAIGN_METRICS]
    assert SCHEMAS["CampaignSortProperty"]["enum"] == list(CAMPAIGN_SORT_PROPERTIES)
    schema = SCHEMAS["CampaignPerformance"]
    assert schema["required"] == list(schema["properties"]) == ["campaignId", *CAMPAIGN_SORT_PROPERTIES]
    for metric in contract.CAMPAIGN_METRICS:
        if metric.api_name in CAMPAIGN_SORT_PROPERTIES:
            kind = "integer" if metric.kind.is_integer else "number"
            assert resolve(schema["properties"][metric.api_name])["type"] == [kind, "null"]


def test_campaign_fields_equal_those_of_the_contract() -> None:
    schema = SCHEMAS["Campaign"]
    fields = {re.sub("_.", lambda part: part[0][1].upper(), name) for name in contract.Campaign.__struct_fields__}
    assert schema["required"] == list(schema["properties"]) == sorted(fields - {"extra"})


def test_api_versions_share_all_other_parts() -> None:
    assert {name: PARAMETERS[name] for name in PARAMETERS.keys() & CURSOR_PARAMETERS.keys()} == {
        name: CURSOR_PARAMETERS[name] for name in PARAMETERS.keys() & CURSOR_PARAMETERS.keys()
    }
    limit, size = (dict(CURSOR_DOCUMENT["components"]["parameters"][name], name="") for name in ("limit", "pageSize"))
    assert limit == size
    metrics = {metric.api_name for metric in METRICS}
    required = {*CURSOR_DOCUMENT["components"]["schemas"]["CursorPost"]["required"]}
    assert required - {"metrics"} == {*SCHEMAS["Post"]["required"]} - metrics
    assert metrics <= {*CURSOR_DOCUMENT["components"]["schemas"]["MetricName"]["enum"]}


def test_metrics_equal_those_of_the_contract_and_are_nullable() -> None:
    for metric in DEFAULT_METRICS:
        schema = resolve(SCHEMAS["Post"]["properties"][metric.api_name])
        assert schema["type"] == ["integer" if metric.kind.is_integer else "number", "null"]


def test_post_schema_equals_the_sample() -> None:
    assert SCHEMAS["Post"]["required"] == list(SCHEMAS["Post"]["properties"]) == list(SAMPLE["data"][0])
    example = OPERATION["responses"]["200"]["content"]["application/json"]["examples"]["documented"]["value"]
    assert example == SAMPLE


def test_problem_types_equal_those_of_the_contract() -> None:
    def types(schema: dict[str, Any]) -> list[str]:
        rule = schema["allOf"][1]["properties"]["type"]
        return rule.get("enum") or [rule["const"]]

    problems = [
        problem_type
        for response in PAGED_DOCUMENT["components"]["responses"].values()
        for media, content in response["content"].items()
        if media == "application/problem+json"
        for problem_type in types(content["schema"])
    ]
    assert sorted(problems) == sorted(ProblemType)


def test_every_response_has_the_rate_limit_headers() -> None:
    for path in PAGED_DOCUMENT["paths"].values():
        for operation in path.values():
            assert {"400", "401", "429", "500"} <= set(operation["responses"])
            for response in map(resolve, operation["responses"].values()):
                assert set(response["headers"]) == {"X-Ratelimit-Limit", "X-Ratelimit-Window"}


# Sandbox and documents


INSTANCE_IDS = ("instance_000", "instance_001", *EXAMPLE_INSTANCE_IDS)
METRICS_OF_ALL_POSTS = [
    metric.api_name
    for metric in METRICS
    if all(metric_support.supports(content_type, metric.api_name) for content_type, _, _ in CONTENT_TYPES)
]


def load_schema(document: dict[str, Any]) -> Any:
    document = restrict(document, instance_ids=INSTANCE_IDS, metrics=METRICS_OF_ALL_POSTS)
    return schemathesis.openapi.from_dict(document, config=schemathesis_config())


schema = load_schema(PAGED_DOCUMENT)
cursor_schema = load_schema(CURSOR_DOCUMENT)


@pytest.fixture(scope="module")
def cursor_base_url(world: World) -> Iterator[str]:
    """Base URL of a sandbox in the cursor API version."""
    with running_server(create_app(world, options=replace(NO_RATE_LIMIT, api_version=contract.CURSOR))) as url:
        yield url


@schema.parametrize()
@few_examples
def test_sandbox_conforms_to_the_paged_document(case: Case, base_url: str, api: httpx.Client) -> None:
    validate(case, base_url, api)


@cursor_schema.include(path_regex="^/v2/").parametrize()
@few_examples
def test_sandbox_conforms_to_the_cursor_document(case: Case, cursor_base_url: str, api: httpx.Client) -> None:
    validate(case, cursor_base_url, api)


def test_all_pages_conform_to_the_cursor_document(cursor_base_url: str, api: httpx.Client) -> None:
    operation = cursor_schema[contract.POSTS_PERFORMANCE_PATH]["GET"]
    query = "startDate=2024-06-01&endDate=2024-07-15&limit=100&metrics=engagements,impressions,cpe,paidCpm"
    url = f"{cursor_base_url}{contract.POSTS_PERFORMANCE_PATH}?{query}"
    pages, cursor = 0, None
    while pages == 0 or cursor is not None:
        page = f"&{httpx.QueryParams(nextCursor=cursor)}" if cursor else ""
        response = api.get(f"{url}{page}")
        operation.validate_response(response)
        pages, cursor = pages + 1, response.json()["nextCursor"]
    assert pages > 5


@pytest.mark.parametrize("basis", list(DateBasis))
def test_all_pages_conform_to_the_paged_document(api: httpx.Client, basis: str) -> None:
    operation = schema[contract.POSTS_PERFORMANCE_PATH]["GET"]
    query = f"startDate=2024-06-01&endDate=2024-08-31&dateBasis={basis}&pageSize=100"
    pages = api.get(f"{contract.POSTS_PERFORMANCE_PATH}?{query}").json()["pagination"]["totalPages"]
    assert pages > 15
    for number in range(1, pages + 1):
        operation.validate_response(api.get(f"{contract.POSTS_PERFORMANCE_PATH}?{query}&pageNumber={number}"))


@pytest.mark.parametrize(
    ("route", "query"),
    [
        (contract.CAMPAIGNS_PATH, ""),
        (contract.CAMPAIGNS_PERFORMANCE_PATH, "startDate=2024-06-01&endDate=2024-06-01&dateBasis=performance_date&"),
    ],
)
def test_campaigns_conform_to_both_documents(api: httpx.Client, cursor_base_url: str, route: str, query: str) -> None:
    response = api.get(f"{route}?{query}pageSize=100")
    schema[route]["GET"].validate_response(response)
    assert len(response.json()["data"]) > 40
    metrics = f"metrics={','.join(metric.api_name for metric in contract.CAMPAIGN_METRICS)}&" if query else ""
    response = api.get(f"{cursor_base_url}{route}?{query}{metrics}limit=100")
    cursor_schema[route]["GET"].validate_response(response)
    assert len(response.json()["data"]) > 40
