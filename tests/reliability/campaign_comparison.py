"""Compare campaigns and their performance with the JSON rows of a server, value by value.

Nothing here uses the package's parsers: a mistake in shared code would not be found.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa

from tests.independent_server import CAMPAIGN_METRICS, Posts

Row = dict[str, Any]

_TEXTS = ("campaignName", "description", "instanceId", "status")
_TIMES = ("firstPostDate", "lastPostDate", "startDate")
_LAKE_COLUMNS = {"first_seen", "last_seen", "listed_now"}
"""Columns of the table of campaigns that the API does not have."""


def assert_campaigns_equal(stored: Iterable[Row], served: Iterable[Row]) -> None:
    """Assert that stored campaigns are exactly those of a server.

    Args:
        stored: Values by column, with `extra` as JSON text or None. Columns that the API does not have are ignored.
        served: JSON rows of `GET /v2/campaigns`.
    """
    expected = {(row["instanceId"], row["campaignId"]): _expected_campaign(row) for row in served}
    found = [
        {name: value for name, value in _with_parsed_extra(row).items() if name not in _LAKE_COLUMNS} for row in stored
    ]
    _assert_equal({(row["instance_id"], row["campaign_id"]): row for row in found}, expected, rows=len(found))


def assert_performance_equals(stored: Iterable[Row], served: Iterable[Row], *, metrics: Sequence[str]) -> None:
    """Assert that the stored performance of campaigns on a day is exactly that of a server.

    Args:
        stored: Values by column, with `extra` as JSON text or None.
        served: JSON rows of `GET /v2/campaigns/performance` in the form of the paged version.
        metrics: API names of the requested metrics. Other metrics are not stored; other fields are, in `extra`.
    """
    columns = {name: _column(name) for name in metrics}
    expected = {row["campaignId"]: _expected_performance(row, columns) for row in served}
    found = [_with_parsed_extra(row) for row in stored]
    _assert_equal({row["campaign_id"]: row for row in found}, expected, rows=len(found))


def assert_campaign_tables_equal(
    campaigns: pa.Table, performance: Mapping[date, pa.Table], *, posts: Posts, metrics: Sequence[str]
) -> None:
    """Assert that the two tables of campaigns in a lake are exactly the data of an independent server.

    Args:
        campaigns: The table `campaigns`.
        performance: The files of the table `campaign_performance_daily`, by day.
        posts: Data of the server.
        metrics: API names of the requested metrics.
    """
    assert_campaigns_equal(campaigns.to_pylist(), posts.campaigns())
    for day, table in performance.items():
        assert_performance_equals(table.to_pylist(), posts.campaigns_reported(day), metrics=metrics)


def _expected_campaign(row: Row) -> Row:
    known = {"campaignId", *_TEXTS, *_TIMES}
    times = {name: row[name] and datetime.fromisoformat(row[name]).astimezone(UTC) for name in _TIMES}
    return {
        "campaign_id": row["campaignId"],
        **{_column(name): row[name] for name in _TEXTS},
        **{_column(name): value for name, value in times.items()},
        "extra": {name: value for name, value in row.items() if name not in known} or None,
    }


def _expected_performance(row: Row, columns: Mapping[str, str]) -> Row:
    return {
        "campaign_id": row["campaignId"],
        **{column: row.get(name) for name, column in columns.items()},
        "extra": {name: row[name] for name in row if name not in {"campaignId", *CAMPAIGN_METRICS}} or None,
    }


def _with_parsed_extra(row: Row) -> Row:
    return row | {"extra": row["extra"] and json.loads(row["extra"])}


def _column(api_name: str) -> str:
    return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", api_name)


def _assert_equal(found: Mapping[Any, Row], expected: Mapping[Any, Row], *, rows: int) -> None:
    assert rows == len(found), "a key is stored twice"
    assert found.keys() == expected.keys()
    for key, row in expected.items():
        assert found[key] == row, key
