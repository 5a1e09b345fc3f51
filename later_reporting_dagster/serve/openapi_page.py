"""The routes `/openapi.json`, the API as OpenAPI, and `/docs`, a page to try it. Neither needs a token or a network.

The document has both API versions: an operation has the parameters of both, and the extension `x-api-version` names the
version of a parameter that only one of them has.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import yaml  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from later_reporting_dagster.contract.parameters import (
    CAMPAIGNS_PATH,
    CAMPAIGNS_PERFORMANCE_PATH,
    CURSOR,
    PAGED,
    POSTS_PERFORMANCE_PATH,
)
from later_reporting_dagster.serve.lake_state import DAYS_HEADER, INSTANCES_HEADER

OPENAPI_PATH = "/openapi.json"
DOCS_PATH = "/docs"
HEALTH_PATH = "/healthz"

_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data:; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
_DESCRIPTION = """\
Posts and campaigns of a lake, as Later's Reporting API serves them, in both API versions. In the paged version, a list
has numbered pages (`pageSize`, `pageNumber`) and totals. In the cursor version, it has cursors (`limit`, `nextCursor`),
and posts have the requested `metrics`. A request may use the parameters of one version only. Unless the server is
limited to one version, a request with `limit`, `nextCursor` or `metrics` is of the cursor version, and any other of the
paged version."""
# The headers of a page of posts that is incomplete: description and example.
_MISSING_HEADERS = {
    DAYS_HEADER: (
        "Days of the range, up to yesterday, of which an instance of the query has no file in the lake; absent if"
        " there are none. Ranges of days, separated by commas, at most 100: then `and N more`.",
        "2024-01-01/2024-01-05, 2024-01-09",
    ),
    INSTANCES_HEADER: (
        "Instances of the query that lack any of these days, percent-encoded and separated by commas.",
        "instance_abc, instance_def",
    ),
}


def openapi_routes() -> list[Route]:
    """Return the routes of the document and of the page."""
    return [Route(OPENAPI_PATH, _document), Route(DOCS_PATH, _page)]


# Not coroutines: Starlette runs them in a thread, because parsing YAML takes a tenth of a second.
def _document(request: Request) -> Response:
    return Response(_document_json(), media_type="application/json")


def _page(request: Request) -> Response:
    page, headers = page_and_headers()
    return Response(page, media_type="text/html", headers=headers)


@cache
def _document_json() -> bytes:
    return json.dumps(openapi_document(), ensure_ascii=False).encode()


@cache
def page_and_headers() -> tuple[bytes, Mapping[str, str]]:
    """Return the page, and headers that allow only its own script and style, by their hashes."""
    page = files(__package__).joinpath("openapi_page.html").read_bytes()
    policy = _POLICY.format(script=_hash_of(page, b"script"), style=_hash_of(page, b"style"))
    return page, {
        "Content-Security-Policy": policy,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }


def _hash_of(page: bytes, element: bytes) -> str:
    (content,) = re.findall(b"<%b>(.*?)</%b>" % (element, element), page, re.DOTALL)
    return f"'sha256-{base64.b64encode(hashlib.sha256(content).digest()).decode()}'"


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document of the server: both API versions, and what only this server has.

    It has no route for the performance of campaigns, which the server does not serve.
    """
    paged, cursor = _read_yaml("openapi.yaml"), _read_yaml("openapi-cursor.yaml")
    # In both documents, the security scheme is that of the paged one.
    components = {kind: cursor["components"].get(kind, {}) | parts for kind, parts in paged["components"].items()}
    paths = {path: operations for path, operations in paged["paths"].items() if path != CAMPAIGNS_PERFORMANCE_PATH}
    for path, operations in paths.items():
        if "get" in operations:
            _add_cursor_version(operations["get"], cursor["paths"][path]["get"], components["parameters"])
    document = {
        "openapi": paged["openapi"],
        "info": {"title": "Later Reporting API of a lake", "version": "2", "description": _DESCRIPTION},
        "servers": [{"url": "/"}],
        "security": paged["security"],
        "paths": paths,
        "components": components,
    }
    _add_health(paths)
    _add_missing_days(paths[POSTS_PERFORMANCE_PATH]["get"], components["headers"])
    conflict = _conflict(components["responses"]["InternalError"]["headers"])
    for path in (POSTS_PERFORMANCE_PATH, CAMPAIGNS_PATH):
        responses = paths[path]["get"]["responses"]
        paths[path]["get"]["responses"] = dict(sorted({**responses, "409": conflict}.items()))
    _allow_stored_values(components["schemas"])
    components["responses"]["NotFound"]["description"] = (
        f"Unknown route, or a table that the lake does not have (`{CAMPAIGNS_PATH}`)."
    )
    return document | {"components": _used_components(document)}


def _read_yaml(name: str) -> dict[str, Any]:
    """Return a document of the contract. References to the other one become references within the document."""
    text = files("later_reporting_dagster.contract").joinpath(name).read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text.replace("openapi.yaml#", "#"))
    return document


def _add_cursor_version(
    operation: dict[str, Any], cursor: Mapping[str, Any], parameters: Mapping[str, dict[str, Any]]
) -> None:
    """Add the parameters and the response of the cursor version to an operation of the paged version."""
    versions: dict[str, list[str]] = {}
    for version, parts in ((PAGED, operation), (CURSOR, cursor)):
        for parameter in parts["parameters"]:
            versions.setdefault(parameter["$ref"].rpartition("/")[2], []).append(version.name)
    operation["parameters"] = [_parameter(parameters[name], of) for name, of in versions.items()]
    content, other = (each["responses"]["200"]["content"]["application/json"] for each in (operation, cursor))
    content["schema"] = {"oneOf": [content["schema"], other["schema"]]}


def _parameter(parameter: Mapping[str, Any], versions: Sequence[str]) -> dict[str, Any]:
    """Return a parameter; one that a single version has is optional, because a request may be of the other."""
    if len(versions) > 1:
        return {**parameter}
    (version,) = versions
    note = f"{'Required in' if parameter.get('required') else 'Only in'} the {version} version."
    return {
        **parameter,
        "required": False,
        "description": f"{parameter['description']} {note}",
        "x-api-version": version,
    }


def _add_health(paths: dict[str, Any]) -> None:
    status = {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}
    paths[HEALTH_PATH] = {
        "get": {
            "operationId": "health",
            "summary": "Whether the server accepts requests; does not read the lake",
            "security": [],
            "responses": {"200": {"description": "It does", "content": {"application/json": {"schema": status}}}},
        }
    }


def _add_missing_days(operation: Mapping[str, Any], headers: dict[str, Any]) -> None:
    """Add what a page of posts says of days without a file."""
    for name, (description, example) in _MISSING_HEADERS.items():
        headers[name] = {"description": description, "schema": {"type": "string"}, "example": example}
    success = operation["responses"]["200"]
    success["headers"] = success["headers"] | {
        name: {"$ref": f"#/components/headers/{name}"} for name in _MISSING_HEADERS
    }


def _conflict(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the response to a later page of rows that are gone, and in strict mode to a query over missing days."""
    problem = {"$ref": "#/components/schemas/Problem"}
    schema = {"allOf": [problem, {"properties": {"type": {"const": "ANL_00409"}}}]}
    return {
        "description": (
            "The lake has changed since page 1 was read: start again at page 1. With `--strict` also: days of the range"
            " have no file in the lake."
        ),
        "headers": headers,
        "content": {"application/problem+json": {"schema": schema}},
    }


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


def _used_components(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the components that the paths refer to, directly or through other components, and the security scheme."""
    components = document["components"]
    used: dict[str, dict[str, Any]] = {"securitySchemes": components["securitySchemes"]}
    waiting = [document["paths"]]
    while waiting:
        for reference in _references(waiting.pop()):
            kind, name = reference.removeprefix("#/components/").split("/")[:2]
            if name not in used.setdefault(kind, {}):
                used[kind][name] = components[kind][name]
                waiting.append(components[kind][name])
    return used


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for each in node:
            yield from _references(each)
