"""The API as OpenAPI, one document an API version, and the page `/docs`, which lists its routes. None needs a token."""

import json
from functools import cache, partial
from importlib.resources import files
from typing import Any

import yaml  # type: ignore[import-untyped]
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from later_reporting_dagster.contract.parameters import (
    CAMPAIGNS_PERFORMANCE_PATH,
    CURSOR,
    PAGED,
    TOKEN_PATH,
    ApiVersion,
)

_DOCUMENT_PATHS = {PAGED: "/openapi.json", CURSOR: "/openapi-cursor.json"}
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_TEMPLATES = Environment(loader=PackageLoader(__package__, "."), undefined=StrictUndefined, autoescape=True)
_DESCRIPTION = """\
Posts and campaigns of a lake, as Later's Reporting API serves them. In the paged version, a list has numbered pages
(`pageSize`, `pageNumber`) and totals. In the cursor version, it has cursors (`limit`, `nextCursor`), and posts have the
requested `metrics`. Unless the server is limited to one version, a request with `limit`, `nextCursor` or `metrics` is
of the cursor version, and any other of the paged version. If days of the range have no file in the lake, the headers
`X-Later-Missing-Days` and `X-Later-Missing-Instances` name them; with `--strict`, the response is 409. A later page is
409, too, if the lake has changed and its rows are no longer kept: start again at page 1."""


def openapi_routes() -> list[Route]:
    documents = [Route(path, partial(_document, version=version)) for version, path in _DOCUMENT_PATHS.items()]
    return [*documents, Route("/docs", _page)]


# Not coroutines: Starlette runs them in a thread, because parsing YAML takes a tenth of a second.
def _document(request: Request, *, version: ApiVersion) -> Response:
    return Response(_document_json(version), media_type="application/json")


def _page(request: Request) -> Response:
    return Response(_page_html(), media_type="text/html", headers=_PAGE_HEADERS)


@cache
def _document_json(version: ApiVersion) -> bytes:
    return json.dumps(openapi_document(version), ensure_ascii=False).encode()


@cache
def _page_html() -> str:
    documents = {path: (version, openapi_document(version)) for version, path in _DOCUMENT_PATHS.items()}
    return _TEMPLATES.get_template("openapi_page.html").render(documents=documents)


def openapi_document(version: ApiVersion) -> dict[str, Any]:
    """Return the document of the contract for an API version, without the route that the server does not serve."""
    paged, cursor = _read_yaml("openapi.yaml"), _read_yaml("openapi-cursor.yaml")
    # In both documents, the security scheme is that of the paged one.
    components = {kind: cursor["components"].get(kind, {}) | parts for kind, parts in paged["components"].items()}
    _allow_stored_values(components["schemas"])
    paths = (paged if version is PAGED else cursor)["paths"] | {TOKEN_PATH: paged["paths"][TOKEN_PATH]}
    del paths[CAMPAIGNS_PERFORMANCE_PATH]
    return {
        "openapi": paged["openapi"],
        "info": {"title": "Later Reporting API of a lake", "version": "2", "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": paged["security"],
        "paths": paths,
        "components": components,
    }


def _read_yaml(name: str) -> dict[str, Any]:
    """Return a document of the contract. References to the other one become references within the document."""
    text = files("later_reporting_dagster.contract").joinpath(name).read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text.replace("openapi.yaml#", "#"))
    return document


def _allow_stored_values(schemas: dict[str, Any]) -> None:
    """Allow what a lake may have beyond the API reference: unknown fields, nulls, negative amounts, and any URL."""
    for name in ("Post", "CursorPost", "CreatorProfile", "Campaign"):
        schemas[name]["additionalProperties"] = True
        for field in schemas[name]["properties"].values():
            if field.get("format") == "uri":
                del field["format"]
    schemas["Amount"].pop("minimum")
    schemas["CursorPost"]["properties"]["metrics"]["additionalProperties"].pop("minimum")
    post, campaign = schemas["Post"]["properties"], schemas["Campaign"]["properties"]
    post["creatorProfile"] = {"oneOf": [post["creatorProfile"], {"type": "null"}]}
    nullable = [post[name] for name in ("contentType", "contentUrl", "contentImageUrl", "creatorId")]
    for field in [*nullable, *(campaign[name] for name in ("campaignName", "startDate", "status"))]:
        field["type"] = [field["type"], "null"]
    post["postDate"]["pattern"] = post["postDate"]["pattern"].replace("{3}Z", "{3}([0-9]{3})?Z")
