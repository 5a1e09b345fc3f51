"""The served lake conforms to the OpenAPI documents of both API versions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from schemathesis import Case

from later_reporting_dagster.contract import CURSOR, METRICS, PAGED
from tests.openapi_documents import (
    CURSOR_DOCUMENT,
    PAGED_DOCUMENT,
    few_examples,
    restrict,
    schemathesis_config,
    validate,
)
from tests.serve.clients import authenticated, serving
from tests.serve.conftest import PLAIN_INSTANCE_IDS


def load_schema(document: dict[str, Any]) -> Any:
    document = restrict(document, instance_ids=PLAIN_INSTANCE_IDS, metrics=[metric.api_name for metric in METRICS])
    return schemathesis.openapi.from_dict(document, config=schemathesis_config())


paged_schema = load_schema(PAGED_DOCUMENT)
cursor_schema = load_schema(CURSOR_DOCUMENT)


@pytest.fixture(scope="module")
def paged_api(plain_lake: Path) -> Iterator[httpx.Client]:
    """A client of the served lake in the paged version only."""
    with serving(plain_lake, api_version=PAGED) as base_url, authenticated(base_url) as api:
        yield api


@pytest.fixture(scope="module")
def cursor_api(plain_lake: Path) -> Iterator[httpx.Client]:
    """A client of the served lake in the cursor version only."""
    with serving(plain_lake, api_version=CURSOR) as base_url, authenticated(base_url) as api:
        yield api


@paged_schema.parametrize()
@few_examples
def test_server_conforms_to_the_paged_document(case: Case, paged_api: httpx.Client) -> None:
    validate(case, str(paged_api.base_url), paged_api)


@cursor_schema.include(path_regex="^/v2/").parametrize()
@few_examples
def test_server_conforms_to_the_cursor_document(case: Case, cursor_api: httpx.Client) -> None:
    validate(case, str(cursor_api.base_url), cursor_api)
