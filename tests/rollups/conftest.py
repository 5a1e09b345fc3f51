"""Posts to roll up: by hand, and all that hypothesis can think of."""

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from later_reporting_dagster.contract import DOCUMENT_METRICS
from later_reporting_dagster.contract.metrics import Kind
from later_reporting_dagster.lake.schema import POSTS_SCHEMA

Row = dict[str, Any]


def row(**fields: Any) -> Row:
    """One post of one group, without metrics unless they are given."""
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


COUNTS = st.none() | st.just(0) | st.integers(-3, 20) | st.integers(0, 50_000)
# Two decimals, as the document has them; small ones too, whose lower bound is clipped at 0.
MONEY = st.none() | st.integers(-2, 9_999).map(lambda cents: cents / 100)


@st.composite
def _rows(draw: st.DrawFn) -> Row:
    fields: Row = {metric.column: draw(COUNTS if metric.kind is Kind.COUNT else MONEY) for metric in DOCUMENT_METRICS}
    if draw(st.booleans()):  # one cost behind both unit costs, as in a real answer, so that their intervals meet
        for channel in ("", "paid_"):
            cost = draw(st.integers(0, 100_000)) / 100
            for unit_cost, count in (("cpe", "engagements"), ("cpm", "impressions")):
                if fields[channel + count]:
                    units = fields[channel + count] / (1 if unit_cost == "cpe" else 1000)
                    fields[channel + unit_cost] = round(cost / units, 2)
    return row(
        instance_id=draw(st.sampled_from(["a", "007"])),
        campaign_id=draw(st.integers(1, 2)),
        platform=draw(st.sampled_from([None, "tiktok"])),
        content_type=draw(st.sampled_from([None, "", "tiktok"])),
        **fields,
    )


ROWS = st.lists(_rows(), max_size=10)
