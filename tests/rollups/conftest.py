"""Rows of the raw tables."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from later_reporting_dagster.lake import POSTS_SCHEMA

Row = dict[str, Any]


def row(**fields: Any) -> Row:
    """Return the row of a post. By default, posts are in one group and have no metrics."""
    blank: Row = dict.fromkeys(POSTS_SCHEMA.names)
    return blank | {
        "instance_id": "a",
        "campaign_id": 1,
        "post_id": 1,
        "post_date": datetime(2024, 1, 3, tzinfo=UTC),
        "platform": "tiktok",
        "content_type": "tiktok",
        **fields,
    }


def posts_of(*rows: Row) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=POSTS_SCHEMA)
