"""The OpenAPI documents of the server are valid."""

from datetime import timedelta
from typing import Any

import httpx
import schemathesis

from later_reporting_dagster.contract import CURSOR, METRICS, PAGED, ApiVersion
from later_reporting_dagster.serve.app import openapi_document
from tests.openapi_documents import SAMPLE

DOCUMENTS = {version: openapi_document(version) for version in (PAGED, CURSOR)}


def is_valid(body: Any, version: ApiVersion = PAGED) -> bool:
    """Return whether a body is a page of posts, according to a document."""
    headers = {"X-Ratelimit-Limit": "120", "X-Ratelimit-Window": "60"}
    response = httpx.Response(200, json=body, headers=headers, request=httpx.Request("GET", "http://127.0.0.1/"))
    response.elapsed = timedelta()
    operation: Any = schemathesis.openapi.from_dict(DOCUMENTS[version])["/v2/posts/performance"]["GET"]
    return bool(operation.is_valid_response(response))


def test_page_of_posts_may_have_what_a_lake_stores() -> None:
    post = SAMPLE["data"][0]
    stored: dict[str, Any] = {
        "unknown": {"a": [None]},
        "creatorProfile": None,
        "contentType": None,
        "contentUrl": None,
        "creatorId": None,
        "impressions": None,
        "postDate": "2024-07-15T14:30:00.000001Z",
    }
    operations: list[Any] = [*schemathesis.openapi.from_dict(DOCUMENTS[PAGED]).get_all_operations()]
    assert len(operations) == 4
    assert is_valid(SAMPLE)
    assert is_valid(SAMPLE | {"data": [post | stored]})
    plain = {name: value for name, value in post.items() if name not in {metric.api_name for metric in METRICS}}
    assert is_valid({"data": [plain | stored | {"metrics": {"cpm": None}}], "nextCursor": None}, CURSOR)
    for name, value in (("postId", None), ("impressions", -1), ("postDate", "2024-07-15")):
        assert not is_valid(SAMPLE | {"data": [post | {name: value}]})
