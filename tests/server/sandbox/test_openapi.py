"""The sandbox conforms to the OpenAPI documents of both API versions."""

from typing import Any

import httpx
import schemathesis
from schemathesis import Case

from later_reporting_dagster.contract import METRICS
from later_reporting_dagster.server.sandbox.metrics import supports
from later_reporting_dagster.server.sandbox.synthetic_world import CONTENT_TYPES
from tests.openapi_documents import (
    CURSOR_DOCUMENT,
    PAGED_DOCUMENT,
    few_examples,
    restrict,
    schemathesis_config,
    validate,
)
from tests.server.conftest import WORLD

METRICS_OF_ALL_POSTS = [
    metric.api_name
    for metric in METRICS
    if all(supports(content_type, metric.api_name) for content_type, _, _ in CONTENT_TYPES)
]


def load_schema(document: dict[str, Any]) -> Any:
    document = restrict(document, instance_ids=WORLD.instance_ids, metrics=METRICS_OF_ALL_POSTS)
    return schemathesis.openapi.from_dict(document, config=schemathesis_config())


paged_schema = load_schema(PAGED_DOCUMENT)
cursor_schema = load_schema(CURSOR_DOCUMENT)


@paged_schema.parametrize()
@few_examples
def test_sandbox_conforms_to_the_paged_document(case: Case, paged_api: httpx.Client) -> None:
    validate(case, str(paged_api.base_url), paged_api)


@cursor_schema.include(path_regex="^/v2/").parametrize()
@few_examples
def test_sandbox_conforms_to_the_cursor_document(case: Case, cursor_api: httpx.Client) -> None:
    validate(case, str(cursor_api.base_url), cursor_api)
