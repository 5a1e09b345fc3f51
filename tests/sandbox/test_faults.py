"""Responses and pages with faults."""

import gzip
import json
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pyarrow as pa
import pytest

from later_reporting_dagster.sandbox import FAULTS, MALFORMATIONS, FaultSettings
from tests.sandbox.clients import DAY, MONTH, WITHOUT_FAULTS, FaultClient, StartSandbox, row_key


def test_faults_and_malformations_have_kebab_case_names_and_one_line_descriptions() -> None:
    for name, entry in {**FAULTS, **MALFORMATIONS}.items():
        assert name == entry.name
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", name)
        assert entry.description
        assert "\n" not in entry.description


# Response faults

NOW = 1_700_000_000.25


@pytest.mark.parametrize(
    ("name", "seconds_from_now"), [("http-429-seconds", 7), ("http-429-date", 7), ("http-429", None)]
)
def test_http_429_has_retry_after_in_every_form(
    start_sandbox: StartSandbox, name: str, seconds_from_now: int | None
) -> None:
    settings = FaultSettings(retry_after_seconds=7)
    client = start_sandbox({name: 1.0}, settings=settings, clock=lambda: NOW)
    response = client.get(DAY)
    assert (response.status, response.body) == (429, b"Too Many Requests")
    assert response.headers["x-ratelimit-limit"] == "1000000"
    assert response.headers["x-ratelimit-window"] == "60"
    retry_after = response.headers["retry-after"]
    if seconds_from_now is None:
        assert retry_after is None
    elif name == "http-429-date":
        expected = datetime.fromtimestamp(math.ceil(NOW) + seconds_from_now, UTC)
        assert parsedate_to_datetime(retry_after) == expected
    else:
        assert retry_after == str(seconds_from_now)


@pytest.mark.parametrize(
    ("name", "status", "content_type"),
    [
        ("http-500", 500, "application/problem+json"),
        ("http-503", 503, "text/plain"),
        ("http-502-html", 502, "text/html; charset=utf-8"),
        ("http-200-html", 200, "text/html; charset=utf-8"),
    ],
)
def test_server_error_has_its_content_type(
    start_sandbox: StartSandbox, name: str, status: int, content_type: str
) -> None:
    client = start_sandbox({name: 1.0})
    for response in (client.get(DAY), client.get("/v2/instances"), client.post_token()):
        assert (response.status, response.headers["content-type"]) == (status, content_type)
        assert {"x-ratelimit-limit", "x-ratelimit-window"} <= {name.lower() for name in response.headers}
        if content_type == "application/problem+json":
            assert list(response.json()) == ["type", "title", "detail"]
            assert response.json()["type"] == "ANL_00500"
        elif "html" in content_type:
            assert response.body.startswith(b"<!DOCTYPE html>")
    assert client.app.injected == {name: 3}


def test_redirect_has_the_configured_location(start_sandbox: StartSandbox) -> None:
    settings = FaultSettings(redirect_url="http://localhost:1/elsewhere")
    response = start_sandbox({"redirect": 1.0}, settings=settings).get(DAY)
    assert (response.status, response.headers["location"], response.body) == (302, "http://localhost:1/elsewhere", b"")


def test_json_truncated_is_a_complete_response(start_sandbox: StartSandbox) -> None:
    client = start_sandbox({"json-truncated": 1.0})
    response, expected = client.get(DAY), client.get(DAY, **WITHOUT_FAULTS)
    assert response.is_complete
    assert int(response.headers["content-length"]) == len(response.body)
    assert expected.body.startswith(response.body)
    with pytest.raises(ValueError, match="Expecting|Unterminated"):
        response.json()


def test_wrong_content_type_has_the_correct_body(start_sandbox: StartSandbox) -> None:
    client = start_sandbox({"wrong-content-type": 1.0})
    response, expected = client.get(DAY), client.get(DAY, **WITHOUT_FAULTS)
    assert (response.status, response.headers["content-type"], response.body) == (200, "text/html", expected.body)


def test_gzip_body_is_correct(start_sandbox: StartSandbox) -> None:
    client = start_sandbox({"gzip": 1.0})
    response, expected = client.get(DAY), client.get(DAY, **WITHOUT_FAULTS)
    assert response.headers["content-encoding"] == "gzip"
    assert gzip.decompress(response.body) == expected.body


def test_brotli_body_is_correct(start_sandbox: StartSandbox) -> None:
    client = start_sandbox({"brotli": 1.0})
    response, expected = client.get(DAY), client.get(DAY, **WITHOUT_FAULTS)
    assert response.headers["content-encoding"] == "br"
    assert pa.decompress(response.body, len(expected.body), codec="brotli", asbytes=True) == expected.body


def test_gzip_cut_ends_before_the_end_of_the_stream(start_sandbox: StartSandbox) -> None:
    client = start_sandbox({"gzip-cut": 1.0})
    response, expected = client.get(DAY), client.get(DAY, **WITHOUT_FAULTS)
    assert response.is_complete
    assert response.headers["content-encoding"] == "gzip"
    decoder = zlib.decompressobj(wbits=31)
    assert expected.body.startswith(decoder.decompress(response.body))
    assert not decoder.eof


# Page faults


@dataclass
class MonthPages:
    """Pages of a month, of which there are several, each with a fault and without."""

    client: FaultClient

    def page(self, number: int) -> tuple[Any, Any]:
        """Return the bodies of a page with the fault and without it."""
        path = f"{MONTH}&pageNumber={number}"
        return self.client.get(path).json(), self.client.get(path, **WITHOUT_FAULTS).json()


PagesWithFault = Callable[[str], MonthPages]


@pytest.fixture
def pages_with_fault(start_sandbox: StartSandbox) -> PagesWithFault:
    """Start a sandbox that injects one fault into every request."""
    return lambda name: MonthPages(start_sandbox({name: 1.0}))


def test_pagination_missing_leaves_only_data(pages_with_fault: PagesWithFault) -> None:
    body, expected = pages_with_fault("pagination-missing").page(1)
    assert body == {"data": expected["data"]}


@pytest.mark.parametrize(
    ("name", "wrong_total"),
    [
        ("total-too-high", lambda total: total + 1),
        ("total-too-low", lambda total: total - 1),
        ("total-without-last-page", lambda total: (total - 1) // 100 * 100),
    ],
)
def test_wrong_total_is_the_same_on_every_page(
    pages_with_fault: PagesWithFault, name: str, wrong_total: Callable[[int], int]
) -> None:
    pages = pages_with_fault(name)
    for number in (1, 2):
        body, expected = pages.page(number)
        total = wrong_total(expected["pagination"]["totalItems"])
        assert body["data"] == expected["data"]
        assert body["pagination"] == {
            **expected["pagination"], "totalItems": total, "totalPages": math.ceil(total / 100)
        }  # fmt: skip


def test_total_changing_differs_between_responses(pages_with_fault: PagesWithFault) -> None:
    pages = pages_with_fault("total-changing")
    totals = {pages.page(number)[0]["pagination"]["totalItems"] for number in (1, 2, 3) for _ in range(3)}
    assert len(totals) > 3
    assert min(totals) > pages.page(1)[1]["pagination"]["totalItems"]


def test_total_fault_leaves_a_page_unchanged_if_impossible(start_sandbox: StartSandbox) -> None:
    client = start_sandbox({"total-without-last-page": 1.0})
    assert client.get(DAY).body == client.get(DAY, **WITHOUT_FAULTS).body
    assert client.app.injected == {"total-without-last-page": 0}
    day_without_posts = DAY.replace("2024-06-03", "2023-01-01")
    client = start_sandbox({"total-too-low": 1.0})
    assert client.get(day_without_posts).json()["pagination"]["totalItems"] == 0


def test_page_repeated_has_the_rows_of_the_previous_page(pages_with_fault: PagesWithFault) -> None:
    pages = pages_with_fault("page-repeated")
    first, expected_first = pages.page(1)
    second, expected_second = pages.page(2)
    assert first == expected_first
    assert second == expected_second | {"data": expected_first["data"]}
    assert pages.client.app.injected == {"page-repeated": 1}


def test_ties_shuffled_changes_the_order_within_days(pages_with_fault: PagesWithFault) -> None:
    pages = pages_with_fault("ties-shuffled")
    bodies = [pages.page(2) for _ in range(3)]
    for body, expected in bodies:
        assert body["pagination"] == expected["pagination"]
        assert [row["postDate"][:10] for row in body["data"]] == [row["postDate"][:10] for row in expected["data"]]
    assert len({json.dumps(body) for body, _ in bodies}) == 3
    # Posts move to other pages: a client that fetches all pages misses some and gets others twice.
    assert any({*map(row_key, body["data"])} != {*map(row_key, expected["data"])} for body, expected in bodies)


def test_post_outside_range_has_the_day_after_the_range(pages_with_fault: PagesWithFault) -> None:
    body, expected = pages_with_fault("post-outside-range").page(2)
    *others, last = body["data"]
    assert (others, body["pagination"]) == (expected["data"][:-1], expected["pagination"])
    assert last == expected["data"][-1] | {"postDate": "2024-07-01T00:00:00.000Z"}


def test_post_of_other_instance_has_an_instance_that_was_not_requested(pages_with_fault: PagesWithFault) -> None:
    body, expected = pages_with_fault("post-of-other-instance").page(2)
    last = expected["data"][-1] | {"instanceId": "instance_of_somebody_else"}
    assert body["data"] == [*expected["data"][:-1], last]


def test_page_short_is_never_the_last_page(pages_with_fault: PagesWithFault) -> None:
    pages = pages_with_fault("page-short")
    body, expected = pages.page(2)
    assert len(body["data"]) < 100
    assert body == expected | {"data": expected["data"][: len(body["data"])]}
    last, expected_last = pages.page(expected["pagination"]["totalPages"])
    assert last == expected_last
