"""The OpenAPI documents say what the contract says, and the sandbox does what they say, in either revision."""

import copy
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, assume, settings
from schemathesis import Case, GenerationMode

from later_reporting_dagster import contract
from later_reporting_dagster.contract import (
    DOCUMENT_METRICS,
    METRICS,
    ContentType,
    DateBasis,
    Platform,
    SortDirection,
    SortProperty,
)
from later_reporting_dagster.contract.enums import ProblemType
from later_reporting_dagster.contract.limits import DEFAULT_PAGE_SIZE, MAXIMUM_CAMPAIGN_IDS
from later_reporting_dagster.sandbox import EXAMPLE_INSTANCE_IDS, World, create_app, metric_support, running_sandbox
from later_reporting_dagster.sandbox.synthetic_world import CONTENT_TYPES
from tests.sandbox.conftest import UNHURRIED
from tests.sandbox.test_document import SAMPLE

PATH = files(contract).joinpath("openapi.yaml")
DOCUMENT: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
SCHEMAS = DOCUMENT["components"]["schemas"]
OPERATION = DOCUMENT["paths"][contract.POSTS_PERFORMANCE_PATH]["get"]


def document_by_cursor() -> dict[str, Any]:
    """The other revision's document in one piece, with what it refers to in the first."""
    text = files(contract).joinpath("openapi-cursor.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text.replace("openapi.yaml#", "#"))
    document["paths"] = DOCUMENT["paths"] | document["paths"]
    document["paths"][contract.TOKEN_PATH] = DOCUMENT["paths"][contract.TOKEN_PATH]
    del document["components"]["securitySchemes"]
    for kind, components in DOCUMENT["components"].items():
        document["components"][kind] = components | document["components"].get(kind, {})
    return document


BY_CURSOR = document_by_cursor()
OPERATION_BY_CURSOR = BY_CURSOR["paths"][contract.POSTS_PERFORMANCE_PATH]["get"]


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = BY_CURSOR  # which has all that is in the first one too
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


PARAMETERS = {parameter["name"]: parameter for parameter in map(resolved, OPERATION["parameters"])}
PARAMETERS_BY_CURSOR = {parameter["name"]: parameter for parameter in map(resolved, OPERATION_BY_CURSOR["parameters"])}


# The document and the contract


def test_paths_are_the_contracts() -> None:
    assert list(DOCUMENT["paths"]) == [contract.TOKEN_PATH, contract.INSTANCES_PATH, contract.POSTS_PERFORMANCE_PATH]


@pytest.mark.parametrize("enum", [Platform, ContentType, DateBasis, SortProperty, SortDirection])
def test_enums_are_the_contracts(enum: Any) -> None:
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
def test_parameters_take_their_enum(parameter: str, schema: str) -> None:
    given = PARAMETERS[parameter]["schema"]
    assert given.get("items", given) == {"$ref": f"#/components/schemas/{schema}"}


def test_bounds_are_the_contracts() -> None:
    assert PARAMETERS["pageSize"]["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": contract.MAXIMUM_PAGE_SIZE,
        "default": DEFAULT_PAGE_SIZE,
    }
    assert PARAMETERS["pageNumber"]["schema"] == {
        "type": "integer",
        "minimum": 1,
        "maximum": contract.MAXIMUM_PAGE_NUMBER,
        "default": 1,
    }
    assert PARAMETERS["campaignIds"]["schema"]["maxItems"] == MAXIMUM_CAMPAIGN_IDS
    assert SCHEMAS["DateBasis"]["default"] == DateBasis.POST_DATE
    assert SCHEMAS["SortDirection"]["default"] == SortDirection.DESC


def test_parameters_are_those_that_the_contract_sends() -> None:
    every = contract.PostPerformanceQuery(
        start_date=date(2024, 1, 1),
        end_date=date(2024, 1, 2),
        instance_ids=("a",),
        campaign_ids=(1,),
        platforms=(Platform.TIKTOK,),
        sort_property=SortProperty.CPM,
        sort_direction=SortDirection.ASC,
    )
    assert set(PARAMETERS) == {name for name, _ in every.parameters()} | {"contentType"}
    assert {name for name, parameter in PARAMETERS.items() if parameter.get("required")} == {"startDate", "endDate"}
    by_cursor = {name for name, _ in replace(every, cursor="on").parameters(contract.CURSOR)}
    assert set(PARAMETERS_BY_CURSOR) == by_cursor | {"contentType"}
    required = {name for name, parameter in PARAMETERS_BY_CURSOR.items() if parameter.get("required")}
    assert required == {"startDate", "endDate", "metrics"}


def test_the_revisions_differ_in_nothing_else() -> None:
    assert {name: PARAMETERS[name] for name in PARAMETERS.keys() & PARAMETERS_BY_CURSOR.keys()} == {
        name: PARAMETERS_BY_CURSOR[name] for name in PARAMETERS.keys() & PARAMETERS_BY_CURSOR.keys()
    }
    limit, size = (dict(BY_CURSOR["components"]["parameters"][name], name="") for name in ("limit", "pageSize"))
    assert limit == size
    metrics = {metric.api_name for metric in METRICS}
    required = {*BY_CURSOR["components"]["schemas"]["CursorPost"]["required"]}
    assert required - {"metrics"} == {*SCHEMAS["Post"]["required"]} - metrics
    assert metrics <= {*BY_CURSOR["components"]["schemas"]["MetricName"]["enum"]}


def test_metrics_are_the_contracts_and_nullable() -> None:
    for metric in DOCUMENT_METRICS:
        schema = resolved(SCHEMAS["Post"]["properties"][metric.api_name])
        assert schema["type"] == ["integer" if metric.kind.is_whole else "number", "null"]


def test_a_post_is_that_of_the_sample() -> None:
    assert SCHEMAS["Post"]["required"] == list(SCHEMAS["Post"]["properties"]) == list(SAMPLE["data"][0])
    example = OPERATION["responses"]["200"]["content"]["application/json"]["examples"]["documented"]["value"]
    assert example == SAMPLE


def test_problem_types_are_the_contracts() -> None:
    def types(schema: dict[str, Any]) -> list[str]:
        rule = schema["allOf"][1]["properties"]["type"]
        return rule.get("enum") or [rule["const"]]

    problems = [
        problem_type
        for response in DOCUMENT["components"]["responses"].values()
        for media, content in response["content"].items()
        if media == "application/problem+json"
        for problem_type in types(content["schema"])
    ]
    assert sorted(problems) == sorted(ProblemType)


def test_every_answer_has_the_rate_limit_headers() -> None:
    for path in DOCUMENT["paths"].values():
        for operation in path.values():
            assert {"400", "401", "429", "500"} <= set(operation["responses"])
            for response in map(resolved, operation["responses"].values()):
                assert set(response["headers"]) == {"X-Ratelimit-Limit", "X-Ratelimit-Window"}


# The sandbox and the document


def for_this_world(document: dict[str, Any]) -> dict[str, Any]:
    """The document with instances that exist and metrics that all posts have: what is asked of it finds posts."""
    document = copy.deepcopy(document)
    instances = document["components"]["parameters"]["instanceIds"]["schema"]["items"]
    instances["enum"] = ["instance_000", "instance_001", *EXAMPLE_INSTANCE_IDS]
    if "MetricName" in document["components"]["schemas"]:
        document["components"]["schemas"]["MetricName"]["enum"] = [
            metric.api_name
            for metric in METRICS
            if all(metric_support.has(content_type, metric.api_name) for content_type, _, _ in CONTENT_TYPES)
        ]
    return document


def schemathesis_config() -> schemathesis.Config:
    """Return a configuration that depends on no file and on no random seed."""
    config = schemathesis.Config(seed=0)
    # The test sends a token of its own, which would replace a generated one: a case that is invalid only for its
    # generated `Authorization` would be sent as a valid request.
    config.projects.default.generation.update(with_security_parameters=False)
    return config


schema = schemathesis.openapi.from_dict(for_this_world(DOCUMENT), config=schemathesis_config())
schema_by_cursor = schemathesis.openapi.from_dict(for_this_world(BY_CURSOR), config=schemathesis_config())


@pytest.fixture(scope="module")
def url_by_cursor(world: World) -> Iterator[str]:
    with running_sandbox(create_app(world, options=replace(UNHURRIED, revision=contract.CURSOR))) as url:
        yield url


def with_rules_that_openapi_cannot_express(query: dict[str, Any]) -> dict[str, Any]:
    """Of a query that is valid by the letter, the nearest one that is valid by the descriptions too."""
    if "platform" in query and "contentType" in query:
        query = {name: value for name, value in query.items() if name != "contentType"}
    if "startDate" in query and "endDate" in query:
        start, end = query["startDate"], query["endDate"]
        if end < start or date.fromisoformat(end) - date.fromisoformat(start) > timedelta(days=730):
            query = query | {"endDate": start}
    # A cursor that nobody issued leads nowhere.
    return {name: value for name, value in query.items() if name != "nextCursor"}


def parameters_sent(case: Case, base_url: str) -> set[str]:
    """Return the names of the query parameters in the URL that is sent for a case."""
    request = case.as_transport_kwargs(base_url=base_url)
    url = requests.Request(request["method"], request["url"], params=request["params"]).prepare().url
    return {name for name, _ in parse_qsl(urlsplit(str(url)).query, keep_blank_values=True)}


often = settings(max_examples=50, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])


def validate(case: Case, base_url: str, api: httpx.Client) -> None:
    if case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE and case.query:
        case.query = with_rules_that_openapi_cannot_express(case.query)
    # A parameter whose value is an empty list is not in the URL. Without it an invalid query may be a valid one, yet
    # Schemathesis judges the response by the query that it generated.
    assume(parameters_sent(case, base_url) == {*case.query})
    case.call_and_validate(base_url=base_url, headers={"Authorization": api.headers["Authorization"]})


@schema.parametrize()
@often
def test_the_sandbox_keeps_to_the_document(case: Case, base_url: str, api: httpx.Client) -> None:
    validate(case, base_url, api)


@schema_by_cursor.include(path_regex="^/v2/").parametrize()
@often
def test_the_sandbox_keeps_to_the_document_by_cursor(case: Case, url_by_cursor: str, api: httpx.Client) -> None:
    validate(case, url_by_cursor, api)


def test_posts_by_cursor_keep_to_the_document(url_by_cursor: str, api: httpx.Client) -> None:
    operation = schema_by_cursor[contract.POSTS_PERFORMANCE_PATH]["GET"]
    query = "startDate=2024-06-01&endDate=2024-07-15&limit=100&metrics=engagements,impressions,cpe,paidCpm"
    address = f"{url_by_cursor}{contract.POSTS_PERFORMANCE_PATH}?{query}"
    pages, cursor = 0, None
    while pages == 0 or cursor is not None:
        more = f"&{httpx.QueryParams(nextCursor=cursor)}" if cursor else ""
        answer = api.get(f"{address}{more}")
        operation.validate_response(answer)
        pages, cursor = pages + 1, answer.json()["nextCursor"]
    assert pages > 5


@pytest.mark.parametrize("basis", list(DateBasis))
def test_thousands_of_posts_keep_to_the_document(api: httpx.Client, basis: str) -> None:
    operation = schema[contract.POSTS_PERFORMANCE_PATH]["GET"]
    query = f"startDate=2024-06-01&endDate=2024-08-31&dateBasis={basis}&pageSize=100"
    pages = api.get(f"{contract.POSTS_PERFORMANCE_PATH}?{query}").json()["pagination"]["totalPages"]
    assert pages > 15
    for number in range(1, pages + 1):
        operation.validate_response(api.get(f"{contract.POSTS_PERFORMANCE_PATH}?{query}&pageNumber={number}"))
