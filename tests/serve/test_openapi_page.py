"""The OpenAPI document of the server is valid and complete, and the page to try it works in a browser."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from typing import Any, Literal

import httpx
import pytest
import schemathesis
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from later_reporting_dagster.contract import METRICS, PAGED, ApiVersion
from later_reporting_dagster.sandbox import World, create_app
from later_reporting_dagster.serve.openapi_page import openapi_document, openapi_routes
from tests.conftest import NO_RATE_LIMIT
from tests.e2e.browser import chromium
from tests.openapi_documents import SAMPLE
from tests.servers import running

DOCUMENT = openapi_document()
POSTS = DOCUMENT["paths"]["/v2/posts/performance"]["get"]
EXACT_NUMBERS = '{"data":[{"note":"a, {b}: \\"c\\"","none":[],"count":9007199254740993,"whole":8500.0}]}'


# The document


def references(node: Any) -> Iterator[str]:
    """Yield all references of a document."""
    if isinstance(node, dict):
        yield from [node["$ref"]] if "$ref" in node else []
        node = [*node.values()]
    for each in node if isinstance(node, list) else []:
        yield from references(each)


def test_document_is_loaded_by_schemathesis() -> None:
    operations: list[Any] = [*schemathesis.openapi.from_dict(DOCUMENT).get_all_operations()]
    assert [found.ok().label for found in operations] == [
        "POST /oauth/token",
        "GET /v2/instances",
        "GET /v2/posts/performance",
        "GET /v2/campaigns",
        "GET /healthz",
    ]
    assert DOCUMENT["servers"] == [{"url": "/"}]


def test_references_are_complete_and_each_component_is_used() -> None:
    found = {*references(DOCUMENT)}
    assert all(reference.startswith("#/components/") for reference in found)
    names = {f"#/components/{kind}/{name}" for kind, parts in DOCUMENT["components"].items() for name in parts}
    assert {"/".join(reference.split("/")[:4]) for reference in found} == names - {
        "#/components/securitySchemes/bearer"
    }


def is_valid(body: Any) -> bool:
    """Return whether a body is a page of posts, according to the document."""
    headers = {"X-Ratelimit-Limit": "120", "X-Ratelimit-Window": "60"}
    response = httpx.Response(200, json=body, headers=headers, request=httpx.Request("GET", "http://127.0.0.1/"))
    response.elapsed = timedelta()
    operation: Any = schemathesis.openapi.from_dict(DOCUMENT)["/v2/posts/performance"]["GET"]
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
    assert is_valid({"data": [plain | stored | {"metrics": {"cpm": None}}], "nextCursor": None})
    for name, value in (("postId", None), ("impressions", -1), ("postDate", "2024-07-15")):
        assert not is_valid(SAMPLE | {"data": [post | {name: value}]})


# The page


async def health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def exact_numbers(request: Request) -> Response:
    return Response(EXACT_NUMBERS, media_type="application/json")


@contextmanager
def serving(version: ApiVersion) -> Iterator[str]:
    """Serve the page, beside routes with synthetic data in an API version, and yield the base URL."""
    world = World(first_day=date(2024, 1, 1), last_day=date(2024, 2, 1), instances=2, posts_per_day=3)
    api = create_app(world, options=NO_RATE_LIMIT, api_version=lambda: version)
    own = [Route("/healthz", health), Route("/v2/campaigns", exact_numbers)]
    with running(Starlette(routes=[*openapi_routes(), *own, Mount("/", api)])) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def paged_url() -> Iterator[str]:
    with serving(PAGED) as base_url:
        yield base_url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless browser. Not session-scoped: other tests cannot start an event loop meanwhile."""
    with chromium() as browser:
        yield browser


@contextmanager
def open_docs(
    browser: Browser, base_url: str, *, width: int = 1280, scheme: Literal["light", "dark"] = "light"
) -> Iterator[Page]:
    """Open the page. At the end, assert that it contacted no other server and that its policy blocked nothing."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    requests: list[str] = []
    messages: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    try:
        page.goto(f"{base_url}/docs")
        operation(page, "/healthz").wait_for()
        yield page
        assert [url for url in requests if not url.startswith(f"{base_url}/")] == []
        # Chromium logs responses with an error status. Anything else would be a mistake in the page.
        assert [text for text in messages if "Failed to load resource" not in text] == []
    finally:
        page.close()


def operation(page: Page, path: str) -> Locator:
    """Return the part of the page about a route."""
    return page.locator("details.operation").filter(has=page.get_by_text(f"GET {path}", exact=True))


def get_token(page: Page, secret: str = NO_RATE_LIMIT.client_secret) -> None:
    page.get_by_label("Client id").fill(NO_RATE_LIMIT.client_id)
    page.get_by_label("Client secret").fill(secret)
    page.get_by_role("button", name="Get a token").click()


def fill_days(posts: Locator) -> None:
    posts.get_by_label("startDate").fill("2024-01-01")
    posts.get_by_label("endDate").fill("2024-01-31")


def send(part: Locator, *, status: str) -> None:
    part.get_by_role("button", name="Send").click()
    expect(part.get_by_role("status")).to_contain_text(status)


def block(part: Locator, name: str) -> str:
    """Return the text of a part of a result: the command, the headers or the body."""
    return part.get_by_role("region", name=name).inner_text()


@pytest.mark.e2e
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_is_accessible_and_fits(
    width: int, scheme: Literal["light", "dark"], browser: Browser, paged_url: str
) -> None:
    with open_docs(browser, paged_url, width=width, scheme=scheme) as page:
        page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
        posts = operation(page, "/v2/posts/performance")
        fill_days(posts)
        send(posts, status="401")
        get_token(page)
        expect(page.locator("#token-status")).to_have_text("Requests now have a token.")
        send(posts, status="200")
        posts.get_by_label("API version").select_option("cursor")
        violations = Axe().run(page, options={"resultTypes": ["violations"]}).response["violations"]
        assert [(each["id"], each["nodes"][0]["html"]) for each in violations] == []
        assert page.evaluate("document.documentElement.scrollWidth") == width
        ink, paper = page.evaluate(
            "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
        )
        assert (ink, paper) == (
            ("rgb(27, 31, 36)", "rgb(255, 255, 255)")
            if scheme == "light"
            else ("rgb(233, 236, 239)", "rgb(20, 23, 27)")
        )


@pytest.mark.e2e
def test_form_requests_pages_and_shows_the_command(browser: Browser, paged_url: str) -> None:
    with open_docs(browser, paged_url) as page:
        get_token(page)
        posts = operation(page, "/v2/posts/performance")
        fill_days(posts)
        posts.get_by_label("instanceIds").fill("instance_000, instance_001")
        posts.get_by_role("checkbox", name="tiktok").first.check()
        posts.get_by_role("checkbox", name="youtube", exact=True).check()
        posts.get_by_label("dateBasis").select_option("performance_date")
        posts.get_by_label("pageSize").fill("7")
        send(posts, status="200 OK, 7 on this page")
        command = block(posts, "As a command")
        assert command == (
            f'curl --header "Authorization: Bearer $TOKEN" \'{paged_url}/v2/posts/performance?startDate=2024-01-01'
            "&endDate=2024-01-31&instanceIds=instance_000&instanceIds=instance_001&platform=tiktok&platform=youtube"
            "&dateBasis=performance_date&pageSize=7'"
        )
        assert "x-ratelimit-limit: 100000" in block(posts, "Headers")
        shown = json.loads(block(posts, "Body"))
        assert (shown["pagination"]["page"], len(shown["data"])) == (1, 7)
        posts.get_by_role("button", name="Next page").click()
        expect(posts.get_by_role("region", name="Body")).to_contain_text('"page": 2')
        assert posts.get_by_label("pageNumber").input_value() == "2"


@pytest.mark.e2e
def test_errors_are_shown_and_secrets_are_not_kept(browser: Browser, paged_url: str) -> None:
    with open_docs(browser, paged_url) as page:
        get_token(page, secret="wrong")
        expect(page.locator("#token-status")).to_contain_text("401")
        posts = operation(page, "/v2/posts/performance")
        fill_days(posts)
        send(posts, status="401")
        assert "ANL_00401" in block(posts, "Body")
        get_token(page)
        send(posts, status="200")
        assert page.get_by_label("Client secret").input_value() == ""
        kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
        assert kept == '[{},{},""]'
        token = page.evaluate("token")
        assert token
        assert token not in page.content()
        page.reload()
        assert page.evaluate("token") == ""


@pytest.mark.e2e
def test_page_runs_only_its_own_script(browser: Browser, paged_url: str) -> None:
    page = browser.new_page()
    try:
        response = page.goto(f"{paged_url}/docs")
        assert response is not None
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'sha256-")
        assert "unsafe" not in policy
        page.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'token = 1'}))")
        assert page.evaluate("token") == ""
        with pytest.raises(Exception, match="Failed to fetch"):
            page.evaluate("fetch('http://localhost:1/')")
    finally:
        page.close()
