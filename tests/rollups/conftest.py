"""Rows of the raw tables."""

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import pyarrow as pa
import pytest

from later_reporting_dagster.lake import POSTS_SCHEMA, Lake
from later_reporting_dagster.rollups import raw_reconciliation

Row = dict[str, Any]
_Result = TypeVar("_Result")


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


def in_parts(compare: Callable[[], _Result]) -> _Result:
    """Return what a comparison of files finds, which is the same if it reads few of them at once."""
    found = compare()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_reconciliation, "_MAX_FILES", 2)
        assert compare() == found
    return found


def count_reads(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return a counter of how often each file is read from now on.

    Queries only read files through the storage if DuckDB would take the lake's root for a pattern, as `[lake]`.
    """
    counts, read = Counter[str](), lake.storage.read

    def counted(path: str) -> bytes | None:
        counts[path] += 1
        return read(path)

    monkeypatch.setattr(lake.storage, "read", counted)
    return counts
