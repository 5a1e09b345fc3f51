"""HTTP clients and values that the tests of the sandbox share."""

import http.client
import json
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx

from later_reporting_dagster.sandbox import FAULTS_HEADER, FaultMiddleware, SandboxOptions

Row = dict[str, Any]
RowKey = tuple[str, int, int]
GetPosts = Callable[[str], httpx.Response]
FetchAllPosts = Callable[[str], list[Row]]

CREDENTIALS = {"clientId": "sandbox-client", "clientSecret": "sandbox-secret"}
NO_RATE_LIMIT = SandboxOptions(requests_per_window=1_000_000)
DAY = "/v2/posts/performance?startDate=2024-06-03&endDate=2024-06-03&instanceIds=instance_abc"
MONTH = (
    "/v2/posts/performance?startDate=2024-06-01&endDate=2024-06-30&pageSize=100&sortProperty=postDate&sortDirection=ASC"
)
WITHOUT_FAULTS = {FAULTS_HEADER: "off"}


def authenticate(client: httpx.Client) -> None:
    """Fetch a token and send it with all later requests."""
    response = client.post("/oauth/token", json=CREDENTIALS).raise_for_status()
    client.headers["Authorization"] = f"Bearer {response.json()['jwt']}"


def row_key(row: Row) -> RowKey:
    return row["instanceId"], row["campaignId"], row["postId"]


def unique_keys(rows: list[Row]) -> set[RowKey]:
    """Return the keys of rows, and assert that none occurs twice."""
    keys = {row_key(row) for row in rows}
    assert len(keys) == len(rows)
    return keys


@dataclass
class RawResponse:
    """A response as it was received; `is_complete` is false if the body was cut off."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes
    is_complete: bool = True

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FaultClient:
    """A client that neither repairs nor hides a fault. Each request has its own connection."""

    base_url: str
    app: FaultMiddleware
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> RawResponse:
        return self._request("GET", path, body=None, headers=headers)

    def post_token(self, **headers: str) -> RawResponse:
        return self._request("POST", "/oauth/token", body=json.dumps(CREDENTIALS).encode(), headers=headers)

    def authenticate(self) -> None:
        """Fetch a token without faults and send it with all later requests."""
        self.headers["Authorization"] = f"Bearer {self.post_token(**WITHOUT_FAULTS).json()['jwt']}"

    def fetch_pages(self, query: str, **headers: str) -> list[Row]:
        """Return the rows of all pages of a query, without any check."""
        rows: list[Row] = []
        number = pages = 1
        while number <= pages:
            body = self.get(f"{query}&pageNumber={number}", **headers).json()
            rows += body["data"]
            number, pages = number + 1, body["pagination"]["totalPages"]
        return rows

    def _request(self, method: str, path: str, *, body: bytes | None, headers: Mapping[str, str]) -> RawResponse:
        url = urlsplit(self.base_url)
        with closing(http.client.HTTPConnection(str(url.hostname), url.port, timeout=10)) as connection:
            connection.request(method, path, body, {**self.headers, **headers})
            response = connection.getresponse()
            try:
                return RawResponse(response.status, response.headers, response.read())
            except http.client.IncompleteRead as error:
                return RawResponse(response.status, response.headers, error.partial, is_complete=False)


StartSandbox = Callable[..., FaultClient]
