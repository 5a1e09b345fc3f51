"""The OpenAPI documents of both API versions, and requests that Schemathesis generates from them."""

import copy
from collections.abc import Collection
from datetime import date, timedelta
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import requests
import schemathesis
import yaml  # type: ignore[import-untyped]
from hypothesis import HealthCheck, assume, settings
from schemathesis import Case, GenerationMode

from later_reporting_dagster import contract
from later_reporting_dagster.contract.parameters import TOKEN_PATH

PATH = files(contract).joinpath("openapi.yaml")
PAGED_DOCUMENT: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))


def load_cursor_document() -> dict[str, Any]:
    """Return the document of the cursor version, with the parts of the paged one that it refers to."""
    text = files(contract).joinpath("openapi-cursor.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text.replace("openapi.yaml#", "#"))
    document["paths"] = PAGED_DOCUMENT["paths"] | document["paths"]
    document["paths"][TOKEN_PATH] = PAGED_DOCUMENT["paths"][TOKEN_PATH]
    del document["components"]["securitySchemes"]
    for kind, components in PAGED_DOCUMENT["components"].items():
        document["components"][kind] = components | document["components"].get(kind, {})
    return document


CURSOR_DOCUMENT = load_cursor_document()


def restrict(document: dict[str, Any], *, instance_ids: Collection[str], metrics: Collection[str]) -> dict[str, Any]:
    """Restrict a document to existing instances and supported metrics, so that generated queries find posts."""
    document = copy.deepcopy(document)
    instances = document["components"]["parameters"]["instanceIds"]["schema"]["items"]
    instances["enum"] = [*instance_ids]
    if "MetricName" in document["components"]["schemas"]:
        document["components"]["schemas"]["MetricName"]["enum"] = [*metrics]
    return document


def schemathesis_config() -> schemathesis.Config:
    """Return a configuration with a fixed seed that does not read a file."""
    config = schemathesis.Config(seed=0)
    # The test replaces a generated `Authorization` by a valid token: a case that is invalid only for its token would
    # be sent as a valid request.
    config.projects.default.generation.update(with_security_parameters=False)
    return config


few_examples = settings(max_examples=12, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])


def validate(case: Case, base_url: str, api: httpx.Client) -> None:
    """Send a generated request with the token of `api`, and check that the response conforms to the document."""
    if case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE and case.query:
        case.query = _apply_described_rules(case.query)
    # A parameter with an empty list is not in the URL. Without it an invalid query may be valid, but Schemathesis
    # expects the response to the query that it generated.
    assume(_parameters_sent(case, base_url) == {*case.query})
    case.call_and_validate(base_url=base_url, headers={"Authorization": api.headers["Authorization"]})


def _apply_described_rules(query: dict[str, Any]) -> dict[str, Any]:
    """Change a query that matches the schema so that it also follows the rules that OpenAPI cannot express."""
    if "platform" in query and "contentType" in query:
        query = {name: value for name, value in query.items() if name != "contentType"}
    if "startDate" in query and "endDate" in query:
        start, end = query["startDate"], query["endDate"]
        if end < start or date.fromisoformat(end) - date.fromisoformat(start) > timedelta(days=730):
            query = query | {"endDate": start}
    # A generated cursor is never valid.
    return {name: value for name, value in query.items() if name != "nextCursor"}


def _parameters_sent(case: Case, base_url: str) -> set[str]:
    """Return the names of the query parameters in the URL that is sent for a case."""
    request = case.as_transport_kwargs(base_url=base_url)
    url = requests.Request(request["method"], request["url"], params=request["params"]).prepare().url
    return {name for name, _ in parse_qsl(urlsplit(str(url)).query, keep_blank_values=True)}
