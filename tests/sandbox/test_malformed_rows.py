"""Malformed rows and unusual instance ids in responses."""

import math
import re
from collections.abc import Callable
from datetime import date, datetime, timedelta
from urllib.parse import quote, urlencode

import pytest

from later_reporting_dagster.sandbox import MALFORMATIONS, UNUSUAL_INSTANCE_IDS, World
from tests.sandbox.clients import DAY, MONTH, WITHOUT_FAULTS, FaultClient, Row, StartSandbox, row_key, unique_keys

IS_MALFORMED: dict[str, Callable[[Row], bool]] = {
    "unknown-fields": lambda row: row["reach"] == 12 and row["creatorProfile"]["followers"] == 2**53 + 1,
    "unknown-content-type": lambda row: row["contentType"] == "instagram_hologram",
    "unknown-platform": lambda row: row["contentType"] == "threads_post",
    "profile-missing": lambda row: "creatorProfile" not in row,
    "profile-null": lambda row: row["creatorProfile"] is None,
    "absent-for-null": lambda row: None not in [*row.values(), *row["creatorProfile"].values()],
    "whole-float": lambda row: isinstance(row["impressions"], float) and row["impressions"] == 8500,
    "fractional-count": lambda row: row["impressions"] == 8500.5,
    "infinite-number": lambda row: row["cpe"] == math.inf,
    "nan": lambda row: math.isnan(row["cpe"]),
    "negative-count": lambda row: row["impressions"] == -1,
    "count-beyond-floats": lambda row: row["impressions"] == 2**53 + 1,
    "count-beyond-int64": lambda row: row["impressions"] == 2**64,
    "text-for-number": lambda row: row["engagements"] == "1240",
    "date-without-milliseconds": lambda row: bool(re.fullmatch(r"2024-06-..T..:..:..Z", row["postDate"])),
    "date-with-offset": lambda row: row["postDate"].endswith("+14:00"),
    "date-without-zone": lambda row: bool(re.fullmatch(r"2024-06-..T..:..:..\.\d{3}", row["postDate"])),
    "date-last-microsecond": lambda row: row["postDate"].endswith("T23:59:59.999999Z"),
    "date-impossible": lambda row: row["postDate"].startswith("2023-02-29T"),
    "ids-zero": lambda row: (row["postId"], row["creatorId"]) == (0, 0),
    "id-negative": lambda row: row["postId"] < 0,
    "id-huge": lambda row: 2**62 < row["postId"] < 2**63,
    "id-beyond-int64": lambda row: row["postId"] > 2**64,
    "right-to-left": lambda row: "\u202e" in row["creatorProfile"]["fullName"],
    "newlines": lambda row: {"\r", "\n", "\x00", "\u2028"} <= {*row["creatorProfile"]["fullName"]},
    "lone-surrogate": lambda row: row["creatorProfile"]["fullName"] == "A\ud83dd",
    "megabyte-text": lambda row: len(row["creatorProfile"]["fullName"]) == 2**20,
}


@pytest.mark.parametrize("name", MALFORMATIONS)
def test_malformation_alters_a_share_of_the_rows(start_sandbox: StartSandbox, base_url: str, name: str) -> None:
    days = f"{MONTH.replace('06-30', '06-02')}&dateBasis=performance_date" if "date" not in name else MONTH
    client = start_sandbox(malformed_rows={name: 0.1}, seed=5)
    rows, expected = client.fetch_pages(days), FaultClient(base_url, client.app, client.headers).fetch_pages(days)
    altered = [(row, original) for row, original in zip(rows, expected, strict=True) if row != original]
    assert altered
    assert client.app.altered[name] == {row_key(original) for _, original in altered}
    assert all(IS_MALFORMED[name](row) for row, _ in altered)
    unique_keys(rows)
    if name == "date-with-offset":
        assert all(
            datetime.fromisoformat(row["postDate"]) == datetime.fromisoformat(original["postDate"])
            for row, original in altered
        )


def test_malformed_row_is_the_same_in_every_response_and_without_faults(start_sandbox: StartSandbox) -> None:
    shares = {"newlines": 0.3, "negative-count": 0.3}
    client = start_sandbox({"http-500": 0.5}, malformed_rows=shares, seed=3)
    by_key = {row_key(row): row for row in client.fetch_pages(MONTH, **WITHOUT_FAULTS)}
    for row in client.get(f"{DAY}&pageSize=100", **WITHOUT_FAULTS).json()["data"]:
        assert by_key[row_key(row)] == row
    counts = [len(altered) for altered in client.app.altered.values()]
    assert all(0.2 < count / len(by_key) < 0.4 for count in counts)
    client = start_sandbox(malformed_rows=shares, seed=4)
    assert {row_key(row): row for row in client.fetch_pages(MONTH)} != by_key


@pytest.mark.parametrize(
    ("name", "text"), [("nan", b'"cpe":NaN,'), ("infinite-number", b'"cpe":1e400,'), ("lone-surrogate", rb'"A\ud83dd"')]
)
def test_malformation_is_inserted_as_raw_text(start_sandbox: StartSandbox, name: str, text: bytes) -> None:
    client = start_sandbox(malformed_rows={name: 1.0})
    assert text in client.get(DAY).body


def test_unusual_instance_ids_are_listed_and_can_be_queried(start_sandbox: StartSandbox) -> None:
    day = date(2024, 3, 1)
    start = day - timedelta(days=2)
    world = World(first_day=start, last_day=day, instances=0, extra_instance_ids=UNUSUAL_INSTANCE_IDS)
    client = start_sandbox(world=world)
    assert client.get("/v2/instances").json()["data"]["instanceIds"] == [*UNUSUAL_INSTANCE_IDS]
    for name in UNUSUAL_INSTANCE_IDS:
        # A single value with a comma would be parsed as two ids.
        ids = urlencode([("instanceIds", name)] * 2, quote_via=quote)
        response = client.get(f"/v2/posts/performance?startDate={start}&endDate={day}&{ids}")
        if name:
            assert {row["instanceId"] for row in response.json()["data"]} == {name}
        else:
            assert response.status == 400
