"""Values at the limits of their types come back exactly, in both API versions."""

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pytest

from later_reporting_dagster.contract import METRICS
from later_reporting_dagster.lake import Lake, Partition, posts_schema
from tests.rollups.conftest import row
from tests.server.lake_store.clients import Row, assert_problem, days_query, fetch_rows, get, page_of, served

DAY = date(2024, 3, 1)
POST = row(instance_id="north", post_date=datetime(2024, 3, 1, 14, 30, tzinfo=UTC))
EXTRAS = [
    '{"a":1.0}',
    '{"a":-0.0,"b":1e+300,"c":5e-324,"d":0.1,"e":1e22,"f":123456789012345678901234567890}',
    '{"a":[1,1.0,true,null,"1"]}',
    '{"":{"":[]}}',
    '{"a":"\\u0000 \\u001f \\u2028 \\" \\\\ / \\ud83d\\ude00"}',
    '{"a\\u0000b":1}',
    '{"\\u00e9":"\\u00e9","z\\"quoted\\"":[{}]}',
    '{"a":' + "[" * 100 + "]" * 100 + "}",
    '{"a":"' + "x" * 100_000 + '"}',
    '{"creatorProfile":{"verified":true}}',
    '{"creatorProfile":{"verified":null,"a.b":{"c":[2.0]}},"z":1}',
    '{"creatorprofile":1,"POSTID":2,"postid":3}',
    '{"pagination":{"page":1},"data":[],"nextCursor":null}',
    # JSON can escape half of a character; the standard library reads and writes it.
    '{"a":"\\ud800"}',
    '{"a\\udfff":[1]}',
    '{"creatorProfile":{"a":"\\ud800"},"z":1}',
]
TEXTS = [
    "", " ", "null", "NULL", "\x00", "a\x00b", "\x01\x1f\x7f", "\u2028\u2029", '"', "\\", "\\u0041", "'", "😀",
    "\U0010ffff", "\ufeff", "é", "e\u0301", "x" * 100_000, "a\r\n\tb", "{}", "</script>",
]  # fmt: skip
FLOATS = [
    0.0, 1.0, 0.1, 0.1 + 0.2, 1e-7, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 1e16, 1e21, 1e22, 1e23,
    123456789012345680.0, 9007199254740993.0, 2**63 * 1.0, 1 / 3, -1.5, 1e15 + 0.5, 4.35, 100.0, 1e5, 1e-5,
]  # fmt: skip
WHOLE = [0, 1, 2**31, 2**53 - 1, 2**53 + 1, 2**62 + 1, 2**63 - 1]
TIMES = {
    datetime(2024, 3, 1, tzinfo=UTC): "2024-03-01T00:00:00.000Z",
    datetime(2024, 3, 1, 14, 30, 0, 500_000, tzinfo=UTC): "2024-03-01T14:30:00.500Z",
    datetime(2024, 3, 1, 23, 59, 59, 999_000, tzinfo=UTC): "2024-03-01T23:59:59.999Z",
    datetime(2024, 3, 1, 1, 2, 3, 456_789, tzinfo=UTC): "2024-03-01T01:02:03.456789Z",
    datetime(2024, 3, 1, 1, 2, 3, 1, tzinfo=UTC): "2024-03-01T01:02:03.000001Z",
    datetime(2024, 3, 1, 1, 2, 3, 456_780, tzinfo=UTC): "2024-03-01T01:02:03.456780Z",
}


def stored_rows() -> list[Row]:
    rows: list[Row] = [{"extra": text} for text in EXTRAS]
    rows += [{"content_url": text, "creator_full_name": text, "content_type": text} for text in TEXTS]
    rows += [{"cpe": value, "estimated_value_generated": value, "avg_watch_time": value} for value in FLOATS]
    rows += [{"impressions": value, "paid_reach": value, "creator_id": value} for value in WHOLE]
    rows += [{"post_date": instant} for instant in TIMES]
    rows += [{"creator_handle_name": ""}, {"creator_profile_image": "x"}, {}]
    return [{**POST, "post_id": number, **row} for number, row in enumerate(rows)]


STORED = stored_rows()


@pytest.fixture(scope="module")
def unusual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    root = tmp_path_factory.mktemp("unusual")
    table = pa.Table.from_pylist(STORED, posts_schema(METRICS))
    for table_name in ("posts_published", "post_metrics_daily"):
        Lake(str(root)).write(table_name, Partition(DAY, "north"), table)
    with served(root) as api:
        yield api


KNOWN_FIELDS = {
    "campaignId", "contentImageUrl", "contentType", "contentUrl", "creatorId", "creatorProfile", "instanceId",
    "metrics", "postDate", "postId", *(metric.api_name for metric in METRICS),
}  # fmt: skip
PROFILE_FIELDS = {"contentType", "fullName", "handleName", "profileImage", "profileLink"}


def unknown_fields(row: Row) -> Row:
    """Return the fields of a served row that the contract does not define, as `extra` has them."""
    found = {name: value for name, value in row.items() if name not in KNOWN_FIELDS}
    profile = {name: value for name, value in (row["creatorProfile"] or {}).items() if name not in PROFILE_FIELDS}
    return found | ({"creatorProfile": profile} if profile else {})


@pytest.mark.parametrize("date_basis", ["post_date", "performance_date"])
@pytest.mark.parametrize("by_cursor", [False, True], ids=["paged", "cursor"])
def test_values_come_back_exactly(date_basis: str, by_cursor: bool, unusual: httpx.Client) -> None:
    page: Any = [("limit", 100), ("metrics", ",".join(metric.api_name for metric in METRICS))] if by_cursor else []
    found = {row["postId"]: row for row in fetch_rows(unusual, days_query(DAY, DAY, ("dateBasis", date_basis), *page))}
    assert sorted(found) == list(range(len(STORED)))
    for expected in STORED:
        row = found[expected["post_id"]]
        metrics = row["metrics"] if by_cursor else row
        for metric in METRICS:
            if metric.api_name in metrics:
                assert metrics[metric.api_name] == expected.get(metric.column), (metric.api_name, expected)
        assert (row["contentUrl"], row["contentType"]) == (expected.get("content_url"), expected["content_type"])
        assert row["creatorId"] == expected.get("creator_id")
        if expected["post_date"] in TIMES:
            assert row["postDate"] == TIMES[expected["post_date"]]
        extra = json.loads(expected.get("extra") or "{}")
        assert json.dumps(unknown_fields(row), sort_keys=True) == json.dumps(extra, sort_keys=True)
        assert_profile(row["creatorProfile"], expected, has_extra="creatorProfile" in extra)


def assert_profile(profile: Any, expected: Row, *, has_extra: bool) -> None:
    names = {
        "fullName": "creator_full_name",
        "handleName": "creator_handle_name",
        "profileImage": "creator_profile_image",
    }
    columns = {name: expected.get(column) for name, column in names.items()}
    if not has_extra and {*columns.values()} == {None}:
        assert profile is None
    else:
        assert {name: profile[name] for name in names} == columns
        assert {*profile} >= PROFILE_FIELDS


def test_unknown_metric_does_not_replace_requested_ones(tmp_path: Path) -> None:
    # The contract stores an unknown metric below `metrics` if its name is that of a field of the post.
    row = {**POST, "post_id": 1, "engagements": 5, "extra": '{"metrics":{"instanceId":"elsewhere"},"z":1}'}
    table = pa.Table.from_pylist([row], posts_schema(METRICS))
    Lake(str(tmp_path)).write("posts_published", Partition(DAY, "north"), table)
    with served(tmp_path) as api:
        (found,) = fetch_rows(api, days_query(DAY, DAY, ("metrics", "cpe,engagements")))
        assert found["metrics"]["engagements"] == 5
        assert [*found["metrics"]][:2] == ["cpe", "engagements"]
        assert found["instanceId"] == "north"
        (found,) = fetch_rows(api, days_query(DAY, DAY))
        assert found["engagements"] == 5
        assert found["z"] == 1


def test_metric_that_is_not_stored_is_served_once_and_null(tmp_path: Path) -> None:
    row = {**POST, "post_id": 1, "extra": '{"engagements":7,"z":1}'}
    names = [name for name in posts_schema(METRICS).names if name != "engagements"]
    table = pa.Table.from_pylist([row], posts_schema(METRICS)).select(names)
    Lake(str(tmp_path)).write("posts_published", Partition(DAY, "north"), table)
    with served(tmp_path) as api:
        body = get(api, days_query(DAY, DAY)).text
        assert body.count('"engagements"') == 1
        assert (json.loads(body)["data"][0]["engagements"], json.loads(body)["data"][0]["z"]) == (None, 1)


# Options of the server


def test_metric_that_is_not_offered_is_refused(tmp_path: Path) -> None:
    offered = tuple(metric for metric in METRICS if metric.api_name in ("cpe", "views"))
    with served(tmp_path, metrics=offered) as api:
        page_of(get(api, days_query(DAY, DAY, ("metrics", "views,cpe"))))
        assert "likes" in assert_problem(get(api, days_query(DAY, DAY, ("metrics", "views,likes"))), 400, "ANL_00400")
