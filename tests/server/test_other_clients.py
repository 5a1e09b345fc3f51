"""Clients that know nothing of this project read every post once: dlt's rest_api source, and a plain script."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import dlt
import httpx
import pytest
from dlt.sources.rest_api import rest_api_source

from tests.independent_server import IndependentServer
from tests.server.clients import EVERYTHING, authenticated, serving
from tests.server.conftest import FIRST_DAY, LAST_DAY

PAGED = {"pageSize": 100}
CURSOR = {"limit": 100, "metrics": "engagements,views"}
NUMBERED: Any = {
    "type": "page_number",
    "base_page": 1,
    "page_param": "pageNumber",
    "total_path": "pagination.totalPages",
}
CURSORS: Any = {"type": "cursor", "cursor_path": "nextCursor", "cursor_param": "nextCursor"}
each_version = pytest.mark.parametrize(
    ("parameters", "paginator"), [(PAGED, NUMBERED), (CURSOR, CURSORS)], ids=["paged", "cursor"]
)


@pytest.fixture(scope="module")
def expected(reference_server: IndependentServer) -> Counter[tuple[str, int, int]]:
    """The key of every post."""
    posts = reference_server.posts.published(FIRST_DAY, LAST_DAY)
    return Counter((post["instanceId"], post["campaignId"], post["postId"]) for post in posts)


@each_version
def test_dlt_reads_every_post_once(
    parameters: dict[str, Any],
    paginator: Any,
    base_url: str,
    api: httpx.Client,
    expected: Counter[tuple[str, int, int]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    token = api.headers["Authorization"].removeprefix("Bearer ")
    source = rest_api_source(
        {
            "client": {"base_url": base_url, "auth": {"type": "bearer", "token": token}, "paginator": paginator},
            "resources": [
                {
                    "name": "posts",
                    "max_table_nesting": 0,
                    "endpoint": {
                        "path": "v2/posts/performance",
                        "params": {"startDate": str(FIRST_DAY), "endDate": str(LAST_DAY), **parameters},
                        "data_selector": "data",
                    },
                }
            ],
        }
    )
    rows = [row for row in source.resources["posts"]]  # noqa: C416 - a list of a resource asks it for its length
    assert Counter((row["instanceId"], row["campaignId"], row["postId"]) for row in rows) == expected


def test_dlt_loads_every_post(plain_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    parameters: dict[str, Any] = {"startDate": str(FIRST_DAY), "endDate": str(LAST_DAY), **PAGED}
    with serving(plain_lake) as base_url, authenticated(base_url) as api:
        total = api.get("/v2/posts/performance", params=parameters).json()["pagination"]["totalItems"]
        token = api.headers["Authorization"].removeprefix("Bearer ")
        trace = load_by_dlt(base_url, token, parameters, folder=tmp_path)
    assert trace.last_normalize_info.row_counts["posts"] == total > 100


def load_by_dlt(base_url: str, token: str, parameters: dict[str, Any], *, folder: Path) -> Any:
    """Load all posts of a query into Parquet files, and return the trace of the run."""
    source = rest_api_source(
        {
            "client": {"base_url": base_url, "auth": {"type": "bearer", "token": token}, "paginator": NUMBERED},
            "resources": [{"name": "posts", "endpoint": {"path": "v2/posts/performance", "params": parameters}}],
        }
    )
    pipeline = dlt.pipeline(
        pipeline_name="served",
        pipelines_dir=str(folder / "pipelines"),
        destination=dlt.destinations.filesystem(bucket_url=str(folder / "lake")),
        dataset_name="served",
    )
    pipeline.run(source, loader_file_format="parquet").raise_on_failed_jobs()
    return pipeline.last_trace


@each_version
def test_plain_script_reads_every_post_once(
    parameters: dict[str, Any], paginator: Any, base_url: str, expected: Counter[tuple[str, int, int]]
) -> None:
    credentials = {"clientId": EVERYTHING.client_id, "clientSecret": EVERYTHING.client_secret}
    token = httpx.post(f"{base_url}/oauth/token", json=credentials).json()["jwt"]
    query: dict[str, Any] = {"startDate": str(FIRST_DAY), "endDate": str(LAST_DAY), **parameters}
    rows, last = [], False
    while not last:
        response = httpx.get(
            f"{base_url}/v2/posts/performance", params=query, headers={"Authorization": f"Bearer {token}"}
        )
        body = json.loads(response.raise_for_status().content)
        rows += body["data"]
        if paginator is CURSORS:
            query["nextCursor"] = body["nextCursor"]
            last = body["nextCursor"] is None
        else:
            query["pageNumber"] = body["pagination"]["page"] + 1
            last = body["pagination"]["page"] == body["pagination"]["totalPages"]
    assert Counter((row["instanceId"], row["campaignId"], row["postId"]) for row in rows) == expected
