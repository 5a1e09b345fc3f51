"""The dimension `campaigns` loses no campaign, and keeps when each was listed."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from later_reporting_dagster.contract import BadRow
from later_reporting_dagster.contract.rows import Campaign
from later_reporting_dagster.ingest.campaigns import CAMPAIGNS_SCHEMA, campaigns_table, write_campaigns
from later_reporting_dagster.lake import CAMPAIGNS_TABLE, Lake
from tests.conftest import CallingFirst

TODAY = date(2024, 3, 10)
KEYS = [(instance_id, number) for instance_id in ("a", "b", "Zoë/😀") for number in (-1, 1, 2**62)]


def campaign(instance_id: str = "a", campaign_id: int = 1, *, name: str | None = "Spring") -> Campaign:
    return Campaign(
        instance_id=instance_id,
        campaign_id=campaign_id,
        campaign_name=name,
        status="live",
        start_date=datetime(2024, 3, 1, tzinfo=UTC),
    )


@given(st.lists(st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["x", "y", None])), max_size=6))
def test_dimension_follows_every_listing(listings: list[dict[tuple[str, int], str | None]]) -> None:
    rows: pa.Table | None = None
    expected: dict[tuple[str, int], tuple[str | None, date, date]] = {}
    for number, listing in enumerate(listings):
        today = TODAY + timedelta(days=number)
        listed = [campaign(*key, name=name) for key, name in listing.items()]
        rows = campaigns_table(listed, previous=rows, instance_ids=(), today=today)
        for key, name in listing.items():
            expected[key] = (name, expected[key][1] if key in expected else today, today)
        assert [
            (row["instance_id"], row["campaign_id"], row["campaign_name"], row["first_seen"], row["last_seen"])
            for row in rows.to_pylist()
        ] == [(*key, *each) for key, each in sorted(expected.items())]
        assert {(row["instance_id"], row["campaign_id"]) for row in rows.to_pylist() if row["listed_now"]} == {*listing}


def test_dimension_leaves_out_instances_that_are_not_configured() -> None:
    rows = campaigns_table([campaign("a"), campaign("b")], previous=None, instance_ids=["b"], today=TODAY)
    assert rows["instance_id"].to_pylist() == ["b"]
    # A campaign that was listed while another instance was configured is kept.
    more = campaigns_table([campaign("a"), campaign("b")], previous=rows, instance_ids=["a"], today=TODAY)
    assert more.select(["instance_id", "listed_now"]).to_pylist() == [
        {"instance_id": "a", "listed_now": True},
        {"instance_id": "b", "listed_now": False},
    ]


def test_bad_row_keeps_the_stored_row_and_is_quarantined_until_it_is_corrected(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    write_campaigns(lake, [campaign()], [], instance_ids=(), today=TODAY)
    bad = BadRow(reason="campaignName must be a string, not 5", raw='{"campaignId": 1, "campaignName": 5}')
    later = TODAY + timedelta(days=1)
    rows, _ = write_campaigns(lake, [], [bad], instance_ids=(), today=later)
    assert [(row["campaign_name"], row["listed_now"]) for row in rows.to_pylist()] == [("Spring", False)]
    assert [row.reason for row in lake.quarantine.rows(CAMPAIGNS_TABLE)] == [bad.reason]
    write_campaigns(lake, [], [bad, bad], instance_ids=(), today=later + timedelta(days=1))
    assert len(lake.quarantine.rows(CAMPAIGNS_TABLE)) == 2
    write_campaigns(lake, [campaign(name="Spring 2")], [], instance_ids=(), today=later + timedelta(days=2))
    assert lake.quarantine.rows(CAMPAIGNS_TABLE) == []
    stored = lake.read_intact_table(CAMPAIGNS_TABLE, schema=CAMPAIGNS_SCHEMA)
    assert stored is not None
    assert stored["campaign_name"].to_pylist() == ["Spring 2"]


def test_two_runs_at_once_lose_no_campaign(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    write_campaigns(lake, [campaign(campaign_id=1)], [], instance_ids=(), today=TODAY)

    def write_other() -> None:
        write_campaigns(Lake(str(tmp_path)), [campaign("b")], [], instance_ids=(), today=TODAY)

    # Its rows are listed once the stored ones have been read.
    listed = CallingFirst([campaign(campaign_id=2)], write_other)
    rows, _ = write_campaigns(lake, listed, [], instance_ids=(), today=TODAY)
    assert list(zip(*rows.select(["instance_id", "campaign_id"]).to_pydict().values(), strict=True)) == [
        ("a", 1),
        ("a", 2),
        ("b", 1),
    ]
    assert lake.read_intact_table(CAMPAIGNS_TABLE, schema=CAMPAIGNS_SCHEMA) == rows


def test_damaged_file_is_replaced(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    write_campaigns(lake, [campaign()], [], instance_ids=(), today=TODAY)
    (tmp_path / CAMPAIGNS_TABLE / "part-0.parquet").write_bytes(b"damaged")
    assert lake.read_intact_table(CAMPAIGNS_TABLE, schema=CAMPAIGNS_SCHEMA) is None
    rows, written = write_campaigns(lake, [campaign("b")], [], instance_ids=(), today=TODAY)
    assert (rows.num_rows, written.changed) == (1, True)
