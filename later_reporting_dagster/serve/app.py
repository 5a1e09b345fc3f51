"""The application of `later-reporting serve`: the routes of the API over a lake, their OpenAPI, and an access log."""

import json
import logging
import time
from functools import cache, partial
from http import HTTPStatus
from importlib.resources import files
from typing import Any
from urllib.parse import unquote_plus

import msgspec
import yaml  # type: ignore[import-untyped]
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from later_reporting_dagster.client.auth import is_loopback
from later_reporting_dagster.contract.parameters import (
    CAMPAIGNS_PERFORMANCE_PATH,
    CURSOR,
    METRICS_MEMBER,
    PAGED,
    TOKEN_PATH,
    ApiVersion,
    ProblemType,
)
from later_reporting_dagster.endpoint.app import RateLimit, create_app
from later_reporting_dagster.endpoint.responses import problem_response
from later_reporting_dagster.endpoint.tokens import Tokens
from later_reporting_dagster.lake import Lake
from later_reporting_dagster.serve.store import LakeStore
from later_reporting_dagster.serve.store import ServeOptions as ServeOptions

_logger = logging.getLogger(__name__)

_DOCUMENT_PATHS = {PAGED: "/openapi.json", CURSOR: "/openapi-cursor.json"}
_DESCRIPTION = """\
Posts and campaigns of a lake, as Later's Reporting API serves them. In the paged version, a list has numbered pages
(`pageSize`, `pageNumber`) and totals. In the cursor version, it has cursors (`limit`, `nextCursor`), and posts have the
requested `metrics`. Unless the server is limited to one version, a request with `limit`, `nextCursor` or `metrics` is
of the cursor version, and any other of the paged version. If days of the range have no file in the lake, the headers
`X-Later-Missing-Days` and `X-Later-Missing-Instances` name them; with `--strict`, the response is 409. A later page is
409, too, if the lake has changed and its rows are no longer kept: start again at page 1."""
# More than the server can do: clients that adapt to the stated limit should not wait.
_NO_LIMIT = 1_000_000


def lake_app(lake: Lake, options: ServeOptions) -> ASGIApp:
    """Return the routes of the API over a lake, which it does not read before the first request and never writes to."""
    store = LakeStore(lake, options)
    documents = [Route(path, partial(_document, version=version)) for version, path in _DOCUMENT_PATHS.items()]
    tokens = Tokens(options.clients, lifetime_seconds=options.token_lifetime_seconds)
    app: ASGIApp = create_app(
        store,
        tokens=tokens if options.clients else None,
        rate_limit=RateLimit(options.requests_per_window or _NO_LIMIT, options.window_seconds),
        api_version=lambda query_string: options.api_version or version_of_parameters(query_string),
        clock=time.time,
        lifespan=lambda _: store.running(),
        more_routes=[Route("/healthz", _health), *documents],
    )
    if not options.clients:
        app = LoopbackHostsMiddleware(app)
    return AccessLogMiddleware(app)


def version_of_parameters(query_string: str) -> ApiVersion:
    """Return the API version that the parameters of a request belong to; without any, the paged version."""
    # Not `parse_qsl`, which decodes the values too.
    sent = {part.partition("=")[0] for part in query_string.split("&")}
    names = {name if name.isalnum() else unquote_plus(name).removesuffix("[]") for name in sent}
    only_with_cursors = {CURSOR.page_size_parameter, CURSOR.page_parameter, METRICS_MEMBER}
    return PAGED if names.isdisjoint(only_with_cursors) else CURSOR


async def _health(request: Request) -> Response:  # noqa: ARG001
    return Response(msgspec.json.encode({"status": "ok"}), media_type="application/json")


class AccessLogMiddleware:
    """Logs who sent a request, its route, status, bytes and milliseconds.

    Nothing else of it: a secret may be anywhere in a request by mistake.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, size, started = 0, 0, time.perf_counter()

        async def count(message: Message) -> None:
            nonlocal status, size
            status = message.get("status", status)
            size += len(message.get("body", b""))
            await send(message)

        scope.setdefault("state", {})
        try:
            await self._app(scope, receive, count)
        finally:
            milliseconds = 1000 * (time.perf_counter() - started)
            _logger.info(
                "%s %s %s %s %s %d B %.0f ms",
                (scope.get("client") or ("-",))[0],
                scope["state"].get("client_id") or "-",
                scope["method"],
                scope["path"] if "endpoint" in scope else "(unknown path)",
                status or "-",
                size,
                milliseconds,
            )


class LoopbackHostsMiddleware:
    """Rejects requests whose header `Host` is neither `localhost` nor an address of this machine.

    A server without authentication would otherwise be readable by any web page whose name is made to resolve to
    127.0.0.1 (DNS rebinding).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not is_loopback(_host(Headers(scope=scope).get("host", "").lower())):
            detail = "without authentication, the host of a URL must be localhost or a loopback address"
            response = problem_response(HTTPStatus.FORBIDDEN, ProblemType.FORBIDDEN, detail)
            await response(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _host(header: str) -> str:
    name, separator, port = header.rpartition(":")
    return (name if separator and port.isdigit() else header).removeprefix("[").removesuffix("]")


# Not a coroutine: Starlette runs it in a thread, because parsing YAML takes a tenth of a second.
def _document(request: Request, *, version: ApiVersion) -> Response:
    return Response(_document_json(version), media_type="application/json")


@cache
def _document_json(version: ApiVersion) -> bytes:
    return json.dumps(openapi_document(version), ensure_ascii=False).encode()


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
