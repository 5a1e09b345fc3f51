"""The OpenAPI documents of the server are valid, and the page about them works in a browser."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal

import httpx
import pytest
import schemathesis
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser
from starlette.applications import Starlette

from later_reporting_dagster.contract import CURSOR, METRICS, PAGED, ApiVersion
from later_reporting_dagster.serve.openapi_page import openapi_document, openapi_routes
from tests.e2e.browser import chromium
from tests.openapi_documents import SAMPLE
from tests.servers import running

DOCUMENTS = {version: openapi_document(version) for version in (PAGED, CURSOR)}


# The document


@pytest.mark.parametrize("version", DOCUMENTS, ids=str)
def test_document_is_loaded_by_schemathesis(version: ApiVersion) -> None:
    operations: list[Any] = [*schemathesis.openapi.from_dict(DOCUMENTS[version]).get_all_operations()]
    assert [found.ok().label for found in operations] == [
        "POST /oauth/token",
        "GET /v2/instances",
        "GET /v2/posts/performance",
        "GET /v2/campaigns",
    ]


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
    assert is_valid(SAMPLE)
    assert is_valid(SAMPLE | {"data": [post | stored]})
    plain = {name: value for name, value in post.items() if name not in {metric.api_name for metric in METRICS}}
    assert is_valid({"data": [plain | stored | {"metrics": {"cpm": None}}], "nextCursor": None}, CURSOR)
    for name, value in (("postId", None), ("impressions", -1), ("postDate", "2024-07-15")):
        assert not is_valid(SAMPLE | {"data": [post | {name: value}]})


# The page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless browser. Not session-scoped: other tests cannot start an event loop meanwhile."""
    with chromium() as browser:
        yield browser


@pytest.mark.e2e
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (1280, "dark")])
def test_page_is_accessible_and_fits_and_needs_nothing_else(
    width: int, scheme: Literal["light", "dark"], browser: Browser
) -> None:
    messages: list[str] = []
    requests: list[str] = []
    with running(Starlette(routes=[*openapi_routes()])) as base_url:
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        try:
            page.on("request", lambda request: requests.append(request.url))
            page.on("console", lambda message: messages.append(message.text))
            response = page.goto(f"{base_url}/docs")
            assert response is not None
            assert response.headers["content-security-policy"].startswith("default-src 'none'; style-src ")
            assert page.get_by_text("GET /v2/posts/performance", exact=True).count() == 2
            violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
            assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
            assert page.evaluate("document.documentElement.scrollWidth") == width
            assert requests == [f"{base_url}/docs"]
            assert messages == []
            for link in page.get_by_role("link").all():
                assert httpx.get(f"{base_url}/{link.get_attribute('href')}").json()["openapi"]
        finally:
            page.close()
