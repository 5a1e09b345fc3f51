"""The served lake returns what the server returned that it was fetched from, so a lake can be fetched from it."""

import json
from collections import Counter
from datetime import timedelta
from itertools import groupby
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from tests.conftest import files
from tests.independent_server import (
    CAMPAIGN_IDS,
    CONTENT_TYPES,
    METRICS,
    PAGED_METRICS,
    PLATFORMS,
    SORT_PROPERTIES,
    IndependentServer,
    Parameters,
)
from tests.server.conftest import FIRST_DAY, INSTANCE_IDS, LAST_DAY
from tests.server.lake_store.clients import EVERYTHING, Row, fetch_pages, get, land, page_of, rows_of

FIELDS = (
    "campaignId", "contentImageUrl", "contentType", "contentUrl", "creatorId", "creatorProfile", "instanceId",
    "postDate", "postId",
)  # fmt: skip
QUICK_QUERIES, QUERIES = 40, 200
ONE_DAY = timedelta(days=1)


# Compare responses


def canonical(value: Any, name: str = "") -> Any:
    """Return a value in which equal numbers of a metric are written alike; unknown fields stay as they are."""
    if isinstance(value, dict):
        is_row = not name or name == "metrics"
        return {key: canonical(part, key) if is_row else part for key, part in value.items()}
    if name in METRICS and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def runs(rows: list[Row], sort_property: str) -> list[tuple[Any, Counter[str]]]:
    """Return the consecutive rows of each value of the sort property, in any order."""

    def value(row: Row) -> Any:
        return row[sort_property] if sort_property in row else row["metrics"][sort_property]

    return [
        (found, Counter(json.dumps(canonical(row), sort_keys=True) for row in of_value))
        for found, of_value in groupby(rows, key=value)
    ]


def envelope(page: Any) -> Any:
    """Return a page without its rows and the text of its cursor."""
    known = {name: part for name, part in page.items() if name not in ("data", "nextCursor")}
    return {**known, "rows": len(page["data"]), "ends": page.get("nextCursor") is None, "members": {*page}}


def assert_pages_equal(pages: list[Any], expected: list[Any], *, sort_property: str) -> None:
    """Assert that pages have the same rows in the same order, up to rows that sort alike."""
    assert [envelope(page) for page in pages] == [envelope(page) for page in expected]
    assert runs(rows_of(pages), sort_property) == runs(rows_of(expected), sort_property)


# Random queries


def array(name: str, values: list[Any], form: int) -> list[tuple[str, object]]:
    """Return an array in the form `p=a,b`, `p=a&p=b` or `p[]=a&p[]=b`."""
    has_comma = any("," in str(value) for value in values)
    if form == 0 and not has_comma:
        return [(name, ",".join(map(str, values)))]
    if form == 2:
        return [(f"{name}[]", value) for value in values]
    # A value with a comma that is alone is sent twice, because the server would separate it.
    return [(name, value) for value in (values * 2 if has_comma and len(values) == 1 else values)]


def random_query(number: int) -> tuple[list[tuple[str, object]], Parameters]:
    """Return a query as pairs of its query string, without a page size, and as separate values.

    Each sort property occurs with each form of arrays, in each API version and direction.
    """
    random = Random(number)
    first = FIRST_DAY + timedelta(days=random.randrange(-2, 11))
    values: Parameters = {
        "startDate": [str(first)],
        "endDate": [str(first + timedelta(days=random.choice((0, 0, 1, 3, 12, 400))))],
    }
    if random.randrange(3):
        values["instanceIds"] = random.sample(INSTANCE_IDS, random.randrange(1, 6))
    if random.randrange(3) == 0:
        values["campaignIds"] = [str(number) for number in random.sample((*CAMPAIGN_IDS, 9, -1, 2**70), 4)]
    kind = random.choice(("platform", "contentType", "", ""))
    if kind:
        values[kind] = random.sample(PLATFORMS if kind == "platform" else CONTENT_TYPES, random.choice((1, 2, 4)))
    sort_property = (*SORT_PROPERTIES, "")[number % 13]
    if sort_property:
        values["sortProperty"] = [sort_property]
    if direction := ("ASC", "DESC", "")[number // 26 % 3]:
        values["sortDirection"] = [direction]
    if date_basis := random.choice(("post_date", "performance_date", "")):
        values["dateBasis"] = [date_basis]
    if date_basis == "performance_date":
        # A lake knows rates of a range within rounding, and has no metrics of days after those that were fetched.
        values["startDate"] = values["endDate"] = [str(min(first, LAST_DAY))]
    if number % 2:
        # The response has to contain what it is sorted by, so that ties are known.
        names = {*random.sample(METRICS, random.choice((1, 3, 37)))} | {sort_property or "cpe"} - {"postDate"}
        values["metrics"] = random.sample(sorted(names), len(names))
    pairs: list[tuple[str, object]] = []
    for name, parts in values.items():
        is_array = name in ("instanceIds", "campaignIds", "platform", "contentType", "metrics")
        pairs += array(name, parts, number % 3) if is_array else [(name, parts[0])]
    random.shuffle(pairs)
    return pairs, values


def with_page_size(pairs: list[tuple[str, object]], *, number: int, total: int) -> list[tuple[str, object]]:
    """Return a query with a page size, so that it has few pages."""
    random = Random(number)
    size = max(random.choice((1, 2, 7, 50, 99, 100)), -(-total // 8))
    if size >= 50 and random.randrange(2):
        return pairs  # the default
    return [*pairs, ("limit" if number % 2 else "pageSize", min(size, 100))]


@pytest.mark.parametrize(
    "numbers",
    [range(QUICK_QUERIES), pytest.param(range(QUICK_QUERIES, QUERIES), marks=pytest.mark.faults)],
    ids=["quick", "many"],
)
def test_queries_equal_those_of_the_independent_server(
    numbers: range, api: httpx.Client, reference_api: httpx.Client, reference_server: IndependentServer
) -> None:
    for number in numbers:
        pairs, values = random_query(number)
        pairs = with_page_size(pairs, number=number, total=len(reference_server.select(values)))
        sort_property = values.get("sortProperty", ["postDate"])[0]
        assert_pages_equal(fetch_pages(api, pairs), fetch_pages(reference_api, pairs), sort_property=sort_property)


def test_fields_are_sorted_and_requested_metrics_keep_their_order(api: httpx.Client) -> None:
    days = [("startDate", FIRST_DAY), ("endDate", LAST_DAY)]
    for row in page_of(get(api, days))["data"]:
        known = [name for name in row if name in FIELDS or name in PAGED_METRICS]
        assert known == sorted({*FIELDS, *PAGED_METRICS})
    names = ["views", "cpe", "paidReach", "avgWatchTime", "engagements"]
    for row in page_of(get(api, [*days, ("metrics", ",".join(names))]))["data"]:
        assert [name for name in row if name in FIELDS] == sorted(FIELDS)
        assert [*row["metrics"]] == names
        assert not {*row} & {*METRICS}


def test_page_past_the_end_is_empty_and_has_the_true_totals(api: httpx.Client, reference_api: httpx.Client) -> None:
    pairs = [("startDate", FIRST_DAY), ("endDate", FIRST_DAY), ("pageNumber", 500)]
    assert page_of(get(api, pairs)) == page_of(get(reference_api, pairs))


@pytest.mark.parametrize("page", [[("pageSize", 7)], [("limit", 7)], [("instanceIds[]", "a,b")]], ids=str)
def test_campaigns_equal_those_of_the_independent_server(
    page: list[tuple[str, object]], api: httpx.Client, reference_api: httpx.Client
) -> None:
    found, expected = (fetch_pages(each, page, "/v2/campaigns") for each in (api, reference_api))
    assert [envelope(each) for each in found] == [envelope(each) for each in expected]
    texts = [sorted(json.dumps(row, sort_keys=True) for row in rows_of(pages)) for pages in (found, expected)]
    assert texts[0] == texts[1] != []


def contents(root: Path) -> dict[str, bytes]:
    return {path: data for path, (data, _) in files(root).items()}


def test_lake_that_is_fetched_from_a_served_lake_has_the_same_bytes(
    landed: Path, base_url: str, tmp_path: Path
) -> None:
    land(base_url, tmp_path, days=(FIRST_DAY, LAST_DAY), instance_ids=INSTANCE_IDS, client=EVERYTHING)
    expected, found = contents(landed), contents(tmp_path)
    assert found.keys() == expected.keys()
    assert [path for path in expected if found[path] != expected[path]] == []
    assert len(expected) == 2 * 10 * len(INSTANCE_IDS) + 1
