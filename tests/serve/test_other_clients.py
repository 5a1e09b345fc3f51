"""A client that knows nothing of this project, dlt's rest_api source, reads every post once."""

from collections import Counter
from typing import Any

import httpx
import pytest
from dlt.sources.rest_api import rest_api_source

from tests.independent_server import IndependentServer
from tests.serve.conftest import FIRST_DAY, LAST_DAY

PAGED = {"pageSize": 100}
CURSOR = {"limit": 100, "metrics": "engagements,views"}
NUMBERED: Any = {
    "type": "page_number",
    "base_page": 1,
    "page_param": "pageNumber",
    "total_path": "pagination.totalPages",
}
CURSORS: Any = {"type": "cursor", "cursor_path": "nextCursor", "cursor_param": "nextCursor"}


@pytest.fixture(scope="module")
def expected(reference_server: IndependentServer) -> Counter[tuple[str, int, int]]:
    """The key of every post."""
    posts = reference_server.posts.published(FIRST_DAY, LAST_DAY)
    return Counter((post["instanceId"], post["campaignId"], post["postId"]) for post in posts)


@pytest.mark.parametrize(("parameters", "paginator"), [(PAGED, NUMBERED), (CURSOR, CURSORS)], ids=["paged", "cursor"])
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
